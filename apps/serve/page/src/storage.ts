// Conversations in localStorage, one key each, so that two tabs do not overwrite each other's; and their JSON files.
import type { Sampling } from "./api";
import { newId, type Conversation, type Message, type Stats } from "./conversation";

const PREFIX = "upg.chat.";
/** Browsers give a site 5 Mi UTF-16 units; some is left for what else the page keeps. */
export const MAX_UNITS = 4.5 * 1024 * 1024;

export class StorageFull extends Error {
  constructor() {
    super("The browser's storage for this page is full, so the last changes are not saved. " +
      "Export what matters and delete conversations.");
  }
}

export class Store {
  constructor(private readonly storage: Storage, private readonly maxUnits = MAX_UNITS) {}

  /** All conversations, the latest first. What cannot be read is left where it is and not listed. */
  all(): Conversation[] {
    const found: Conversation[] = [];
    for (const key of this.keys()) {
      const conversation = this.load(key.slice(PREFIX.length));
      if (conversation) found.push(conversation);
    }
    return found.sort((a, b) => b.updated - a.updated);
  }

  load(id: string): Conversation | null {
    try {
      return readConversation(JSON.parse(this.storage.getItem(PREFIX + id) ?? "null"));
    } catch {
      return null;
    }
  }

  /** Throws StorageFull; what was stored before then stays. */
  save(conversation: Conversation): void {
    const key = PREFIX + conversation.id;
    const text = JSON.stringify(conversation);
    const others = this.used() - (this.storage.getItem(key)?.length ?? 0);
    if (others + text.length > this.maxUnits) throw new StorageFull();
    try {
      this.storage.setItem(key, text);
    } catch {
      throw new StorageFull();
    }
  }

  delete(id: string): void {
    this.storage.removeItem(PREFIX + id);
  }

  used(): number {
    return this.keys().reduce((sum, key) => sum + key.length + (this.storage.getItem(key)?.length ?? 0), 0);
  }

  /** How full the storage is, from 0 to 1. */
  fill(): number {
    return Math.min(1, this.used() / this.maxUnits);
  }

  /** The id of the conversation that a storage event is about, or null. */
  static idOf(key: string | null): string | null {
    return key?.startsWith(PREFIX) ? key.slice(PREFIX.length) : null;
  }

  private keys(): string[] {
    const keys: string[] = [];
    for (let i = 0; i < this.storage.length; i++) {
      const key = this.storage.key(i);
      if (key?.startsWith(PREFIX)) keys.push(key);
    }
    return keys;
  }
}

export function exportJson(conversations: Conversation[]): string {
  return JSON.stringify({ format: "upg-chat", version: 1, conversations }, null, 1);
}

/** Reads what exportJson wrote. Throws an Error that says what is wrong. Ids in `taken` are replaced. */
export function importJson(text: string, taken: ReadonlySet<string>): Conversation[] {
  let json: any;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (json?.format !== "upg-chat" || !Array.isArray(json.conversations)) {
    throw new Error("This file holds no conversations exported from this page.");
  }
  if (json.version !== 1) throw new Error(`This file has version ${String(json.version)}; this page reads version 1.`);
  const ids = new Set(taken);
  return json.conversations.map((value: unknown, i: number) => {
    const conversation = readConversation(value);
    if (!conversation) throw new Error(`Conversation ${i + 1} of this file cannot be read.`);
    if (ids.has(conversation.id)) conversation.id = newId();
    ids.add(conversation.id);
    return conversation;
  });
}

type Loose = Record<string, unknown>;

const isObject = (v: unknown): v is Loose => typeof v === "object" && v !== null && !Array.isArray(v);
const text = (v: unknown, otherwise = "") => (typeof v === "string" ? v : otherwise);
const number = (v: unknown, otherwise: number) => (typeof v === "number" && Number.isFinite(v) ? v : otherwise);

/** A conversation from anything, or null. What it returns is a sound tree: the rest of the page relies on it. */
export function readConversation(value: unknown): Conversation | null {
  if (!isObject(value) || !/^[\w-]{1,64}$/.test(text(value.id)) || !isObject(value.messages)) return null;
  const messages: Record<string, Message> = Object.create(null);
  for (const [id, raw] of Object.entries(value.messages)) {
    if (!isObject(raw) || (raw.role !== "user" && raw.role !== "assistant") || typeof raw.content !== "string") return null;
    messages[id] = readMessage(id, raw);
  }
  for (const message of Object.values(messages)) if (!reachesRoot(messages, message)) return null;
  const tip = text(value.tip);
  return {
    id: text(value.id),
    title: text(value.title, "Untitled").slice(0, 200),
    named: value.named === true,
    updated: number(value.updated, 0),
    system: text(value.system),
    model: text(value.model),
    sampling: readSampling(value.sampling),
    messages,
    tip: messages[tip] ? tip : null,
  };
}

function readMessage(id: string, raw: Loose): Message {
  const message: Message = {
    id,
    parent: typeof raw.parent === "string" ? raw.parent : null,
    role: raw.role as Message["role"],
    content: raw.content as string,
    time: number(raw.time, 0),
  };
  if (typeof raw.reasoning === "string") message.reasoning = raw.reasoning;
  if (typeof raw.model === "string") message.model = raw.model;
  if (typeof raw.error === "string") message.error = raw.error;
  if (raw.ended === "stopped" || raw.ended === "length" || raw.ended === "error") message.ended = raw.ended;
  if (isObject(raw.stats)) message.stats = readNumbers<Stats>(raw.stats, ["prompt", "completion", "cached", "firstMs", "restMs"]);
  return message;
}

function reachesRoot(messages: Record<string, Message>, from: Message): boolean {
  let at: Message | undefined = from;
  for (let steps = Object.keys(messages).length; at && steps >= 0; steps--) {
    if (at.parent === null) return true;
    at = messages[at.parent];
  }
  return false;
}

export const SAMPLING_FIELDS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"] as const;

export function readSampling(value: unknown): Sampling {
  return isObject(value) ? readNumbers<Sampling>(value, SAMPLING_FIELDS) : {};
}

function readNumbers<T extends object>(from: Loose, fields: readonly (keyof T & string)[]): T {
  const to: Loose = {};
  for (const field of fields) {
    const v = from[field];
    if (typeof v === "number" && Number.isFinite(v)) to[field] = v;
  }
  return to as T;
}
