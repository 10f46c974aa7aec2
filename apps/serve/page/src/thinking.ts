// Some models think aloud before they answer, between <think> tags at the start of the text.

export interface Thought {
  thinking: string;
  answer: string;
  /** The answer has not begun. */
  open: boolean;
}

const OPEN = /^\s*<think>/;

export function splitThinking(text: string): Thought {
  const start = OPEN.exec(text);
  if (!start) return { thinking: "", answer: text, open: false };
  const end = text.indexOf("</think>", start[0].length);
  if (end < 0) return { thinking: text.slice(start[0].length).trim(), answer: "", open: true };
  return {
    thinking: text.slice(start[0].length, end).trim(),
    answer: text.slice(end + "</think>".length).trimStart(),
    open: false,
  };
}
