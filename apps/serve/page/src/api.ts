// The server's OpenAI-compatible routes. Paths are relative to the page, so that it also works below a prefix.
import { sseEvents } from "./sse";

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** What is absent is left to the server. */
export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  seed?: number;
}

export interface Usage {
  prompt: number;
  completion: number;
  cached?: number;
}

export interface Delta {
  text?: string;
  reasoning?: string;
  finish?: string;
  usage?: Usage;
}

export class ApiError extends Error {
  constructor(message: string, readonly status = 0) {
    super(message);
  }
}

function url(path: string): string {
  return new URL(path, document.baseURI).href;
}

function headers(key: string): Record<string, string> {
  return key === "" ? {} : { Authorization: `Bearer ${key}` };
}

async function request(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url(path), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  return new ApiError(describeError(response.status, response.statusText, text), response.status);
}

const IN_WORDS: Record<number, string> = {
  400: "The server did not accept the request",
  401: "The server asks for an API key",
  403: "The server does not allow this",
  404: "The server does not know this address or model",
  413: "The request is too long for the server",
  429: "The server is busy: too many requests",
  500: "The server failed",
  503: "The server is not ready",
};

/** One sentence about a failed request, with the server's own message where it sent one. */
export function describeError(status: number, statusText: string, body: string): string {
  const words = IN_WORDS[status] ?? `The server answered ${status}${statusText ? ` ${statusText}` : ""}`;
  let detail = "";
  try {
    detail = errorMessage(JSON.parse(body));
  } catch {
    if (!body.trimStart().startsWith("<")) detail = body.trim().slice(0, 300);
  }
  return detail === "" ? `${words}.` : `${words}: ${detail}`;
}

function errorMessage(json: unknown): string {
  const error = (json as { error?: unknown } | null)?.error;
  if (typeof error === "string") return error;
  const message = (error as { message?: unknown } | null | undefined)?.message;
  return typeof message === "string" ? message : "";
}

export async function listModels(key: string): Promise<string[]> {
  const response = await request("v1/models", { headers: headers(key) });
  const json = (await response.json().catch(() => null)) as { data?: { id?: unknown }[] } | null;
  const ids = json?.data?.map((model) => model.id);
  if (!ids) throw new ApiError("The server's list of models cannot be read.");
  return ids.filter((id): id is string => typeof id === "string");
}

export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  sampling: Sampling;
  key: string;
  signal: AbortSignal;
}

/** Streams one answer. Throws ApiError; an abort throws the signal's AbortError. */
export async function* streamChat(chat: ChatRequest): AsyncGenerator<Delta> {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(chat.key) },
    body: JSON.stringify({
      model: chat.model,
      messages: chat.messages,
      ...chat.sampling,
      stream: true,
      stream_options: { include_usage: true },
    }),
    signal: chat.signal,
  });
  if (!response.body) throw new ApiError("The server sent no answer.");
  let finished = false;
  try {
    for await (const data of sseEvents(response.body)) {
      if (data === "[DONE]") return;
      const delta = readChunk(data);
      finished ||= delta.finish !== undefined;
      yield delta;
    }
  } catch (error) {
    if (error instanceof ApiError || chat.signal.aborted) throw error;
    throw new ApiError("The connection broke before the answer was complete.");
  }
  if (!finished) throw new ApiError("The connection ended before the answer was complete.");
}

/** One chunk of the stream. Throws what the server reports in the middle of it. */
export function readChunk(data: string): Delta {
  let json: any;
  try {
    json = JSON.parse(data);
  } catch {
    throw new ApiError("The server sent something that is not JSON.");
  }
  if (json?.error) throw new ApiError(`The server stopped: ${errorMessage(json) || "it gave no reason."}`);
  const choice = json?.choices?.[0];
  const delta: Delta = {};
  if (typeof choice?.delta?.content === "string") delta.text = choice.delta.content;
  if (typeof choice?.delta?.reasoning_content === "string") delta.reasoning = choice.delta.reasoning_content;
  if (typeof choice?.finish_reason === "string") delta.finish = choice.finish_reason;
  const usage = json?.usage;
  if (typeof usage?.completion_tokens === "number" && typeof usage?.prompt_tokens === "number") {
    delta.usage = { prompt: usage.prompt_tokens, completion: usage.completion_tokens };
    const cached = usage.prompt_tokens_details?.cached_tokens;
    if (typeof cached === "number") delta.usage.cached = cached;
  }
  return delta;
}
