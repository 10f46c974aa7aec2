// One answer while it is being written: its text, its timing, and who wants to hear of it.
import { streamChat, type ChatRequest, type Usage } from "./api";
import type { Message, Stats } from "./conversation";

export class Generation {
  text = "";
  reasoning = "";
  /** Pieces received: about one per token, until the server says how many there were. */
  pieces = 0;
  private readonly abort = new AbortController();
  private readonly listeners = new Set<() => void>();
  private readonly started = performance.now();
  private firstAt = 0;
  private lastAt = 0;
  private usage?: Usage;
  private finish?: string;

  constructor(readonly conversation: string, readonly message: string) {}

  /** Reads the answer to its end. Throws ApiError; being stopped is no error. */
  async run(request: Omit<ChatRequest, "signal">): Promise<void> {
    try {
      for await (const delta of streamChat({ ...request, signal: this.abort.signal })) {
        this.finish = delta.finish ?? this.finish;
        this.usage = delta.usage ?? this.usage;
        if (!delta.text && !delta.reasoning) continue;
        this.lastAt = performance.now();
        this.firstAt ||= this.lastAt;
        this.pieces++;
        this.text += delta.text ?? "";
        this.reasoning += delta.reasoning ?? "";
        for (const listener of this.listeners) listener();
      }
    } catch (error) {
      if (!this.stopped) throw error;
    }
  }

  stop(): void {
    this.abort.abort();
  }

  get stopped(): boolean {
    return this.abort.signal.aborted;
  }

  onText(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  stats(): Stats {
    const stats: Stats = { ...this.usage };
    if (this.firstAt > 0) {
      stats.firstMs = this.firstAt - this.started;
      stats.restMs = this.lastAt - this.firstAt;
    }
    return stats;
  }

  /** The message's fields as they stand. */
  result(): Partial<Message> {
    const result: Partial<Message> = { content: this.text, stats: this.stats(), ended: undefined, error: undefined };
    if (this.reasoning !== "") result.reasoning = this.reasoning;
    if (this.stopped) result.ended = "stopped";
    else if (this.finish === "length") result.ended = "length";
    return result;
  }
}
