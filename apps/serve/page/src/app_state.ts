// What the page shows and what its buttons do. Components read the fields and are told by `subscribe` when one changed.
import { ApiError, listModels } from "./api";
import * as chat from "./conversation";
import type { Conversation, Message } from "./conversation";
import { Generation } from "./generation";
import { exportJson, importJson, Store, StorageFull } from "./storage";

export interface Notice {
  kind: "info" | "error";
  text: string;
  action?: { label: string; run: () => void };
}

export type Theme = "auto" | "light" | "dark";

const UI_KEY = "upg.ui";
const API_KEY = "upg.key";
/** An answer is saved so often while it grows, so that a reload loses little. */
const SAVE_EVERY_MS = 2000;

export class AppState {
  conversations: Conversation[] = [];
  current: Conversation = chat.newConversation();
  models: string[] = [];
  generation: Generation | null = null;
  notice: Notice | null = null;
  theme: Theme = "auto";
  /** Called with what to do once there is a key; null when none is wanted. */
  keyWanted: { message: string; retry: () => void } | null = null;
  private readonly store = new Store(localStorage);
  private readonly listeners = new Set<() => void>();

  constructor() {
    this.conversations = this.store.all();
    const ui = readUi();
    this.theme = ui.theme;
    const last = this.conversations.find((c) => c.id === ui.current);
    this.current = last ?? chat.newConversation(this.conversations[0]);
    this.applyTheme();
    addEventListener("storage", (event) => this.onOtherTab(event));
    addEventListener("pagehide", () => {
      // Else the connection that now breaks would be taken for a failure of the server.
      this.stop();
      this.saveGrowing();
    });
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }

  // --- Server

  get key(): string {
    return sessionStorage.getItem(API_KEY) ?? "";
  }

  async loadModels(): Promise<void> {
    try {
      this.models = await listModels(this.key);
      if (this.notice?.kind === "error") this.notice = null;
    } catch (error) {
      this.report(error, () => void this.loadModels());
    }
    this.changed();
  }

  /** The model that the current conversation uses: its own, if the server has it. */
  get model(): string {
    const { model } = this.current;
    return this.models.includes(model) || this.models.length === 0 ? model : this.models[0]!;
  }

  useKey(key: string): void {
    const retry = this.keyWanted?.retry;
    sessionStorage.setItem(API_KEY, key);
    this.keyWanted = null;
    this.changed();
    if (this.models.length === 0) void this.loadModels();
    retry?.();
  }

  dropKeyRequest(): void {
    this.keyWanted = null;
    this.changed();
  }

  private report(error: unknown, retry: () => void): void {
    const text = error instanceof Error ? error.message : String(error);
    if (error instanceof ApiError && error.status === 401) this.keyWanted = { message: text, retry };
    else this.notice = { kind: "error", text, action: { label: "Try again", run: retry } };
  }

  // --- Answers

  /** Sends a message below the shown branch, or below `parent` as an edit. */
  send(text: string, parent: string | null = this.current.tip): void {
    if (this.generation || text.trim() === "") return;
    const message: Message = { id: chat.newId(), parent, role: "user", content: text, time: Date.now() };
    this.update(chat.append(this.current, message));
    void this.answer(message.id);
  }

  /** Writes a further answer to the message that `id` answers. */
  regenerate(id: string): void {
    const parent = this.current.messages[id]?.parent;
    if (!this.generation && parent) void this.answer(parent);
  }

  async answer(parent: string): Promise<void> {
    if (this.generation || !this.current.messages[parent]) return;
    const { id: conversation, sampling } = this.current;
    const model = this.model;
    const answer: Message = { id: chat.newId(), parent, role: "assistant", content: "", time: Date.now(), model };
    const messages = chat.prompt(this.current, parent);
    const before = this.current;
    const generation = new Generation(conversation, answer.id);
    this.generation = generation;
    this.notice = null;
    this.update(chat.append(before, answer));
    const timer = setInterval(() => this.saveGrowing(), SAVE_EVERY_MS);
    let failure: unknown;
    try {
      await generation.run({ model, messages, sampling, key: this.key });
    } catch (error) {
      failure = error;
    }
    clearInterval(timer);
    this.generation = null;
    const result = generation.result();
    if (failure instanceof ApiError && failure.status === 401) {
      // Nothing was asked of the model yet: the question stays, and is asked again with the key.
      this.updateById(conversation, (c) => chat.remove(c, answer.id));
      this.keyWanted = { message: failure.message, retry: () => void this.answer(parent) };
      this.changed();
      return;
    }
    if (failure !== undefined) {
      result.ended = "error";
      result.error = failure instanceof Error ? failure.message : String(failure);
    }
    this.updateById(conversation, (c) => chat.patch(c, answer.id, result));
  }

  stop(): void {
    this.generation?.stop();
  }

  private saveGrowing(): void {
    const generation = this.generation;
    if (!generation) return;
    const conversation = this.find(generation.conversation);
    // Should the page be gone before the end, then this is what it looks like: stopped.
    if (conversation) this.save(chat.patch(conversation, generation.message, { ...generation.result(), ended: "stopped" }));
  }

  // --- Messages

  choose(id: string): void {
    if (!this.generation) this.update(chat.choose(this.current, id));
  }

  removeMessage(id: string): void {
    if (this.generation) return;
    const before = this.current;
    this.update(chat.remove(before, id));
    const count = Object.keys(before.messages).length - Object.keys(this.current.messages).length;
    this.tell(count === 1 ? "Message deleted." : `${count} messages deleted.`, {
      label: "Undo",
      run: () => this.update(before),
    });
  }

  // --- Conversations

  find(id: string): Conversation | undefined {
    return this.conversations.find((c) => c.id === id) ?? (this.current.id === id ? this.current : undefined);
  }

  open(id: string): void {
    this.current = this.find(id) ?? this.current;
    this.saveUi();
    this.changed();
  }

  startNew(): void {
    if (!chat.isEmpty(this.current)) this.current = chat.newConversation(this.current);
    this.saveUi();
    this.changed();
  }

  rename(id: string, title: string): void {
    if (title.trim() !== "") this.updateById(id, (c) => ({ ...c, title: title.trim().slice(0, 200), named: true }));
  }

  deleteConversation(id: string): void {
    let conversation = this.find(id);
    if (!conversation) return;
    if (this.generation?.conversation === id) {
      this.stop();
      conversation = chat.patch(conversation, this.generation.message, this.generation.result());
    }
    const deleted = conversation;
    this.store.delete(id);
    this.conversations = this.conversations.filter((c) => c.id !== id);
    if (this.current.id === id) this.current = chat.newConversation(deleted);
    this.saveUi();
    this.tell(`Deleted “${deleted.title}”.`, { label: "Undo", run: () => {
      this.update(deleted);
      this.open(id);
    } });
  }

  configure(change: Partial<Pick<Conversation, "system" | "model" | "sampling">>): void {
    this.update({ ...this.current, ...change });
  }

  exportAll(): string {
    return exportJson(this.conversations);
  }

  import(text: string): void {
    try {
      const found = importJson(text, new Set(this.conversations.map((c) => c.id)));
      let saved = 0;
      for (const conversation of found) {
        if (!this.save(conversation)) break;
        this.conversations.push(conversation);
        saved++;
      }
      this.conversations.sort((a, b) => b.updated - a.updated);
      if (saved === found.length) this.tell(`Imported ${saved} conversation${saved === 1 ? "" : "s"}.`);
      this.changed();
    } catch (error) {
      this.notice = { kind: "error", text: (error as Error).message };
      this.changed();
    }
  }

  get fill(): number {
    return this.store.fill();
  }

  // --- The rest

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.applyTheme();
    this.saveUi();
    this.changed();
  }

  tell(text: string, action?: Notice["action"]): void {
    this.notice = { kind: "info", text, action };
    this.changed();
  }

  dismiss(): void {
    this.notice = null;
    this.changed();
  }

  private applyTheme(): void {
    if (this.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }

  private update(conversation: Conversation): void {
    const others = this.conversations.filter((c) => c.id !== conversation.id);
    if (this.current.id === conversation.id) this.current = conversation;
    // What was never said needs no place in the list.
    const listed = others.length < this.conversations.length || !chat.isEmpty(conversation);
    this.conversations = listed ? [...others, conversation].sort((a, b) => b.updated - a.updated) : others;
    if (listed) this.save(conversation);
    this.saveUi();
    this.changed();
  }

  private updateById(id: string, change: (c: Conversation) => Conversation): void {
    const conversation = this.find(id);
    if (conversation) this.update(change(conversation));
  }

  private save(conversation: Conversation): boolean {
    try {
      this.store.save(conversation);
      return true;
    } catch (error) {
      if (!(error instanceof StorageFull)) throw error;
      this.notice = { kind: "error", text: error.message };
      this.changed();
      return false;
    }
  }

  private saveUi(): void {
    try {
      localStorage.setItem(UI_KEY, JSON.stringify({ theme: this.theme, current: this.current.id }));
    } catch {
      // Storage is full: the conversations say so.
    }
  }

  private onOtherTab(event: StorageEvent): void {
    const id = Store.idOf(event.key);
    if (id === null || this.generation?.conversation === id) return;
    const loaded = this.store.load(id);
    this.conversations = this.conversations.filter((c) => c.id !== id);
    if (loaded) this.conversations = [...this.conversations, loaded].sort((a, b) => b.updated - a.updated);
    if (loaded && this.current.id === id) this.current = loaded;
    this.changed();
  }
}

function readUi(): { theme: Theme; current: string } {
  try {
    const ui = JSON.parse(localStorage.getItem(UI_KEY) ?? "{}");
    return { theme: ui.theme === "light" || ui.theme === "dark" ? ui.theme : "auto", current: String(ui.current ?? "") };
  } catch {
    return { theme: "auto", current: "" };
  }
}
