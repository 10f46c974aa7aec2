import { useEffect, useRef } from "preact/hooks";
import type { AppState } from "./app_state";
import { Icon, StopIcon } from "./icons";

export function Composer({ app }: { app: AppState }) {
  const area = useRef<HTMLTextAreaElement>(null);
  const busy = app.generation !== null;
  useEffect(() => {
    // On a phone the keyboard would cover what one came to read.
    if (matchMedia("(hover: hover)").matches) area.current?.focus();
  }, [app.current.id]);

  const send = () => {
    const text = area.current!.value;
    if (busy || text.trim() === "") return;
    area.current!.value = "";
    fit(area.current!);
    app.send(text);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <form class="composer" onSubmit={(event) => {
      event.preventDefault();
      send();
    }}>
      <label class="hidden" for="input">Message</label>
      <textarea id="input" ref={area} class="grow" rows={1} placeholder="Write a message" enterkeyhint="send"
        onKeyDown={onKeyDown} onInput={(event) => fit(event.currentTarget)} aria-describedby="keys" />
      {busy ? (
        <button type="button" class="send" aria-label="Stop" title="Stop (Escape)" onClick={() => {
          app.stop();
          area.current?.focus();
        }}><StopIcon /></button>
      ) : (
        <button type="submit" class="send" aria-label="Send" title="Send (Enter)"><Icon name="send" /></button>
      )}
      <p class="keys" id="keys">
        <kbd>Enter</kbd> sends<span>, </span><kbd>Shift</kbd> <kbd>Enter</kbd> starts a line<span>, </span>
        <kbd>Esc</kbd> stops<span>, </span><kbd>/</kbd> comes back here
      </p>
    </form>
  );
}

/** Where the browser does not do it by `field-sizing`. */
function fit(area: HTMLTextAreaElement): void {
  if (CSS.supports("field-sizing", "content")) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}
