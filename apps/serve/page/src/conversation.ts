// A conversation is a tree of messages and the tip of the branch that is shown. Editing a message or answering again
// adds a sibling; nothing is overwritten. Every function returns a new conversation and leaves its argument alone.
import type { ChatMessage, Sampling, Usage } from "./api";
import { splitThinking } from "./thinking";

export type Role = "user" | "assistant";

export interface Stats extends Partial<Usage> {
  /** Milliseconds until the first token, and from the first to the last. */
  firstMs?: number;
  restMs?: number;
}

export interface Message {
  id: string;
  parent: string | null;
  role: Role;
  content: string;
  reasoning?: string;
  time: number;
  model?: string;
  /** Why an answer ended, when not by itself. */
  ended?: "stopped" | "length" | "error";
  error?: string;
  stats?: Stats;
}

export interface Conversation {
  id: string;
  title: string;
  /** False while the title follows the first message. */
  named: boolean;
  updated: number;
  system: string;
  model: string;
  sampling: Sampling;
  messages: Record<string, Message>;
  tip: string | null;
}

export function newId(): string {
  // randomUUID is missing where the page comes over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

export function newConversation(like?: Pick<Conversation, "system" | "model" | "sampling">): Conversation {
  return {
    id: newId(),
    title: "New chat",
    named: false,
    updated: Date.now(),
    system: like?.system ?? "",
    model: like?.model ?? "",
    sampling: { ...like?.sampling },
    messages: {},
    tip: null,
  };
}

export function isEmpty(c: Conversation): boolean {
  return c.tip === null && Object.keys(c.messages).length === 0;
}

/** The messages of the shown branch, first to last. */
export function branch(c: Conversation): Message[] {
  const path: Message[] = [];
  let at = c.tip === null ? undefined : c.messages[c.tip];
  while (at) {
    path.push(at);
    at = at.parent === null ? undefined : c.messages[at.parent];
  }
  return path.reverse();
}

/** The messages of one role that answer the same parent, oldest first. */
export function siblings(c: Conversation, id: string): string[] {
  const self = c.messages[id];
  if (!self) return [];
  return Object.values(c.messages)
    .filter((m) => m.parent === self.parent && m.role === self.role)
    .sort((a, b) => a.time - b.time)
    .map((m) => m.id);
}

/** The newest message at or below `id`: where a branch goes on when it is chosen. */
export function newestBelow(c: Conversation, id: string): string {
  let at = id;
  for (;;) {
    let newest: Message | undefined;
    for (const m of Object.values(c.messages)) if (m.parent === at && (!newest || m.time >= newest.time)) newest = m;
    if (!newest) return at;
    at = newest.id;
  }
}

export function append(c: Conversation, message: Message): Conversation {
  const next = {
    ...c,
    messages: { ...c.messages, [message.id]: message },
    tip: message.id,
    updated: message.time,
  };
  if (!c.named && message.role === "user" && message.parent === null) next.title = titleFrom(message.content);
  return next;
}

/** `c` with some fields of one message changed; `c` itself if the message is gone. */
export function patch(c: Conversation, id: string, change: Partial<Message>): Conversation {
  const message = c.messages[id];
  return message ? { ...c, messages: { ...c.messages, [id]: { ...message, ...change } } } : c;
}

export function choose(c: Conversation, id: string): Conversation {
  return c.messages[id] ? { ...c, tip: newestBelow(c, id) } : c;
}

/** Removes a message and all that follows it. A sibling is shown in its place, or its parent becomes the tip. */
export function remove(c: Conversation, id: string): Conversation {
  const message = c.messages[id];
  if (!message) return c;
  const messages = { ...c.messages };
  const gone = [id];
  for (let at = gone.pop(); at !== undefined; at = gone.pop()) {
    delete messages[at];
    for (const m of Object.values(messages)) if (m.parent === at) gone.push(m.id);
  }
  const next = { ...c, messages, tip: c.tip };
  if (c.tip !== null && messages[c.tip]) return next;
  const others = siblings(c, id).filter((other) => other !== id);
  const heir = others[Math.max(0, siblings(c, id).indexOf(id) - 1)] ?? message.parent;
  next.tip = heir === null ? null : heir === message.parent ? heir : newestBelow(next, heir);
  return next;
}

/** What is sent for an answer that follows `tip`. Thinking is left out: templates expect histories without it. */
export function prompt(c: Conversation, tip: string): ChatMessage[] {
  const sent: ChatMessage[] = branch({ ...c, tip }).map((m) => ({
    role: m.role,
    content: m.role === "assistant" ? splitThinking(m.content).answer : m.content,
  }));
  if (c.system.trim() !== "") sent.unshift({ role: "system", content: c.system });
  return sent;
}

export function titleFrom(text: string): string {
  const line = text.trim().replace(/\s+/g, " ");
  const letters = [...line];
  return letters.length <= 60 ? line : `${letters.slice(0, 59).join("").trimEnd()}…`;
}

/** Tokens per second after the first token, or undefined where too little was measured. */
export function speed(stats: Stats): number | undefined {
  if (stats.completion === undefined || stats.completion < 2 || !stats.restMs || stats.restMs < 1) return undefined;
  return ((stats.completion - 1) * 1000) / stats.restMs;
}
