// Server-sent events from a byte stream that may be cut anywhere, by the rules of the HTML standard: lines end in CR, LF
// or CRLF; an empty line ends an event; the data lines of one event are joined by LF; lines with a colon first are
// comments. Only the data is kept.

export class SseParser {
  private line = "";
  private data: string[] = [];
  private afterCr = false;
  private atStart = true;

  /** Takes the next piece of text; returns the data of each event that it completes. */
  push(text: string): string[] {
    const events: string[] = [];
    if (this.atStart && text !== "") {
      this.atStart = false;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    // A CRLF may be cut in two: its LF then ends nothing.
    if (this.afterCr && text.startsWith("\n")) text = text.slice(1);
    if (text !== "") this.afterCr = false;
    let from = 0;
    for (const match of text.matchAll(/\r\n|\r|\n/g)) {
      this.endLine(this.line + text.slice(from, match.index), events);
      this.line = "";
      from = match.index + match[0].length;
      if (match[0] === "\r" && from === text.length) this.afterCr = true;
    }
    this.line += text.slice(from);
    return events;
  }

  private endLine(line: string, events: string[]): void {
    if (line === "") {
      if (this.data.length > 0) events.push(this.data.join("\n"));
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    if (field !== "data") return;
    const value = colon < 0 ? "" : line.slice(colon + 1);
    this.data.push(value.startsWith(" ") ? value.slice(1) : value);
  }
}

/** The data of each event of a response body. */
export async function* sseEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Also when the consumer leaves early, so that the server learns that nobody reads on.
    reader.cancel().catch(() => {});
  }
}
