// The region that screen readers read aloud. It is given whole blocks: the text on the page changes with every token,
// and a reader that follows it would start over each time.
let region: HTMLElement | null = null;

export function setAnnouncer(element: HTMLElement | null): void {
  region = element;
}

export function announce(text: string): void {
  if (!region || text.trim() === "") return;
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > 20) region.firstElementChild?.remove();
}
