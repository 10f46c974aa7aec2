import { expect, test } from "vitest";
import { SseParser } from "./sse";
import { splitThinking } from "./thinking";

const STREAM = "data: one\n\n: a comment\r\n\r\ndata: two\r\ndata: lines\r\n\r\nevent: x\ndata:three\n\ndata: cut";

test("events are the same wherever the stream is cut", () => {
  for (let size = 1; size <= STREAM.length; ++size) {
    const parser = new SseParser();
    const events: string[] = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.push(STREAM.slice(at, at + size)));
    expect(events).toEqual(["one", "two\nlines", "three"]);
  }
});

test("a lone carriage return ends a line too", () => {
  expect(new SseParser().push("data: a\r\rdata: b\r\r")).toEqual(["a", "b"]);
});

test("thoughts are told from the answer, finished or not", () => {
  expect(splitThinking("<think>hm")).toEqual({ thinking: "hm", answer: "", open: true });
  expect(splitThinking("<think> hm </think>\n\nYes")).toEqual({ thinking: "hm", answer: "Yes", open: false });
  expect(splitThinking("No <think>")).toEqual({ thinking: "", answer: "No <think>", open: false });
});
