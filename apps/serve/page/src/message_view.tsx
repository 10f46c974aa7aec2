import { useEffect, useRef, useState } from "preact/hooks";
import type { AppState } from "./app_state";
import { copyText } from "./clipboard";
import { siblings, speed, type Message, type Stats } from "./conversation";
import type { Generation } from "./generation";
import { useGrowth } from "./hooks";
import { Icon } from "./icons";
import { MarkdownView } from "./markdown_view";
import { splitThinking } from "./thinking";

interface Props {
  app: AppState;
  message: Message;
  last: boolean;
}

export function MessageView({ app, message, last }: Props) {
  const generation = app.generation?.message === message.id ? app.generation : null;
  const asked = message.role === "user";
  return (
    <article class={`message ${message.role}${last ? " last" : ""}`} aria-label={asked ? "You" : "Answer"}
      aria-busy={generation !== null}>
      {asked ? <Question app={app} message={message} /> : <Answer app={app} message={message} generation={generation} />}
    </article>
  );
}

function Question({ app, message }: { app: AppState; message: Message }) {
  const [editing, setEditing] = useState(false);
  const editButton = useRef<HTMLButtonElement>(null);
  const leave = () => {
    setEditing(false);
    setTimeout(() => editButton.current?.focus());
  };
  if (editing) return <Editor app={app} message={message} leave={leave} />;
  const busy = app.generation !== null;
  return (
    <>
      <div class="said">{message.content}</div>
      <footer class="under">
        <Versions app={app} message={message} what="version" />
        <span class="actions">
          <CopyAction text={message.content} />
          <button type="button" class="quiet" ref={editButton} disabled={busy} onClick={() => setEditing(true)}>Edit</button>
          <DeleteAction app={app} message={message} />
        </span>
      </footer>
    </>
  );
}

function Editor({ app, message, leave }: { app: AppState; message: Message; leave: () => void }) {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(message.content.length, message.content.length);
  }, []);
  const save = () => {
    const text = area.current?.value ?? "";
    if (text.trim() === "" || app.generation) return;
    leave();
    app.send(text, message.parent);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      leave();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      save();
    }
  };
  return (
    <form class="editor" onSubmit={(event) => {
      event.preventDefault();
      save();
    }}>
      <textarea ref={area} class="grow" aria-label="Edit the message" defaultValue={message.content} onKeyDown={onKeyDown} />
      <div class="editor-buttons">
        <button type="button" class="plain" onClick={leave}>Cancel</button>
        <button type="submit" class="strong">Send</button>
      </div>
    </form>
  );
}

function Answer({ app, message, generation }: { app: AppState; message: Message; generation: Generation | null }) {
  useGrowth(generation);
  const content = generation?.text ?? message.content;
  const reasoning = generation?.reasoning ?? message.reasoning ?? "";
  const { thinking, answer, open } = splitThinking(content);
  const thought = [reasoning, thinking].filter((t) => t !== "").join("\n\n");
  const growing = generation !== null;
  // Read aloud is what was written while one looked on, not what was found on opening.
  const aloud = useRef(false);
  aloud.current ||= growing;
  return (
    <>
      {thought !== "" && <Thought text={thought} unfinished={growing && (open || answer === "")} />}
      {answer !== "" && <MarkdownView text={answer} growing={growing} aloud={aloud.current} />}
      {growing && content === "" && reasoning === "" && <p class="waiting"><span>Reading the conversation</span></p>}
      {message.ended === "error" && <p class="failed" role="alert">{message.error}</p>}
      {message.ended === "length" && <p class="remark">The answer reached the limit of tokens.</p>}
      {message.ended === "stopped" && !growing && <p class="remark">Stopped.</p>}
      <footer class="under">
        <Versions app={app} message={message} what="answer" />
        {growing ? <span class="stats">{count(generation.pieces, "token")} so far</span> : <Figures message={message} />}
        {!growing && (
          <span class="actions">
            {answer !== "" && <CopyAction text={answer} />}
            <button type="button" class="quiet" disabled={app.generation !== null}
              onClick={() => app.regenerate(message.id)}>{message.ended === "error" ? "Try again" : "Regenerate"}</button>
            <DeleteAction app={app} message={message} />
          </span>
        )}
      </footer>
    </>
  );
}

function Thought({ text, unfinished }: { text: string; unfinished: boolean }) {
  return (
    <details class="thought">
      <summary>{unfinished ? "Thinking…" : "Thoughts"}</summary>
      <div class="thought-text">{text}</div>
    </details>
  );
}

function Figures({ message }: { message: Message }) {
  const parts = figures(message.stats ?? {});
  if (parts.length === 0) return null;
  return <span class="stats" title={message.model}>{parts.join(" · ")}</span>;
}

export function figures(stats: Stats): string[] {
  const parts: string[] = [];
  if (stats.completion !== undefined) parts.push(count(stats.completion, "token"));
  const rate = speed(stats);
  if (rate !== undefined) parts.push(`${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`);
  if (stats.firstMs !== undefined) parts.push(`first after ${(stats.firstMs / 1000).toFixed(stats.firstMs < 9950 ? 1 : 0)} s`);
  if (stats.prompt !== undefined) {
    const cached = stats.cached ? ` (${stats.cached.toLocaleString("en")} cached)` : "";
    parts.push(`prompt ${stats.prompt.toLocaleString("en")}${cached}`);
  }
  return parts;
}

function count(n: number, what: string): string {
  return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
}

function Versions({ app, message, what }: { app: AppState; message: Message; what: string }) {
  const all = siblings(app.current, message.id);
  if (all.length < 2) return null;
  const at = all.indexOf(message.id);
  const busy = app.generation !== null;
  const step = (by: number, name: string, icon: "left" | "right") => (
    <button type="button" class="quiet square" aria-label={`${name} ${what}`} disabled={busy || !all[at + by]}
      onClick={() => app.choose(all[at + by]!)}><Icon name={icon} /></button>
  );
  return (
    <span class="versions" role="group" aria-label={`${what} ${at + 1} of ${all.length}`}>
      {step(-1, "Previous", "left")}
      <span aria-hidden="true">{at + 1}/{all.length}</span>
      {step(1, "Next", "right")}
    </span>
  );
}

function CopyAction({ text }: { text: string }) {
  const [label, setLabel] = useState("Copy");
  const copy = async () => {
    setLabel((await copyText(text)) ? "Copied" : "Copying failed");
    setTimeout(() => setLabel("Copy"), 1500);
  };
  return <button type="button" class="quiet" onClick={() => void copy()}>{label}</button>;
}

function DeleteAction({ app, message }: { app: AppState; message: Message }) {
  return (
    <button type="button" class="quiet" disabled={app.generation !== null} onClick={() => {
      app.removeMessage(message.id);
      document.querySelector<HTMLElement>("#input")?.focus();
    }}>Delete</button>
  );
}
