import { useEffect, useRef, useState } from "preact/hooks";
import type { AppState, Theme } from "./app_state";
import type { Conversation } from "./conversation";
import { Icon } from "./icons";

interface Props {
  app: AppState;
  /** On narrow screens the list lies over the conversation until it is closed. */
  open: boolean;
  close: () => void;
}

export function Sidebar({ app, open, close }: Props) {
  const file = useRef<HTMLInputElement>(null);
  const go = (action: () => void) => () => {
    action();
    close();
  };
  return (
    <nav id="list" class={`sidebar${open ? " open" : ""}`} aria-label="Conversations">
      <div class="sidebar-head">
        <span class="wordmark">UPG</span>
        <button type="button" class="plain square only-narrow" aria-label="Close the list" onClick={close}>
          <Icon name="close" />
        </button>
      </div>
      <button type="button" class="new" onClick={go(() => {
        app.startNew();
        document.querySelector<HTMLElement>("#input")?.focus();
      })}><Icon name="plus" /> New chat</button>
      <ul class="chats">
        {app.conversations.map((c) => (
          <Entry key={c.id} app={app} conversation={c} open={go(() => app.open(c.id))} />
        ))}
      </ul>
      {app.conversations.length === 0 && <p class="none">Conversations stay in this browser.</p>}
      {app.fill > 0.6 && <p class="none">Storage is {Math.round(app.fill * 100)} % full.</p>}
      <div class="sidebar-foot">
        <button type="button" class="quiet" disabled={app.conversations.length === 0} onClick={() => download(app.exportAll())}>
          <Icon name="export" /> Export
        </button>
        <button type="button" class="quiet" onClick={() => file.current?.click()}><Icon name="import" /> Import</button>
        <input ref={file} type="file" accept=".json,application/json" hidden aria-label="File to import" onChange={(event) => {
          const input = event.currentTarget;
          void input.files?.[0]?.text().then((text) => app.import(text));
          input.value = "";
        }} />
        <ThemeButton app={app} />
      </div>
    </nav>
  );
}

const NEXT: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
const THEME_NAME: Record<Theme, string> = { auto: "as the system", light: "light", dark: "dark" };

function ThemeButton({ app }: { app: AppState }) {
  const name = `Colours: ${THEME_NAME[app.theme]}`;
  return (
    <button type="button" class="quiet square theme" aria-label={name} title={name} onClick={() => app.setTheme(NEXT[app.theme])}>
      <Icon name={app.theme} />
    </button>
  );
}

function Entry({ app, conversation, open }: { app: AppState; conversation: Conversation; open: () => void }) {
  const [naming, setNaming] = useState(false);
  const renameButton = useRef<HTMLButtonElement>(null);
  const current = app.current.id === conversation.id;
  if (naming) {
    return <Naming title={conversation.title} done={(title) => {
      if (title !== null) app.rename(conversation.id, title);
      setNaming(false);
      setTimeout(() => renameButton.current?.focus());
    }} />;
  }
  const { title } = conversation;
  return (
    <li class={current ? "chat current" : "chat"}>
      <button type="button" class="chat-open" aria-current={current ? "page" : undefined} title={title} onClick={open}>
        {title}
      </button>
      <button type="button" class="quiet square" ref={renameButton} aria-label={`Rename ${title}`} title="Rename"
        onClick={() => setNaming(true)}><Icon name="pencil" /></button>
      <button type="button" class="quiet square" aria-label={`Delete ${title}`} title="Delete"
        onClick={() => app.deleteConversation(conversation.id)}><Icon name="bin" /></button>
    </li>
  );
}

function Naming({ title, done }: { title: string; done: (title: string | null) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const over = useRef(false);
  useEffect(() => input.current?.select(), []);
  const end = (result: string | null) => {
    if (over.current) return;
    over.current = true;
    done(result);
  };
  return (
    <li class="chat">
      <input ref={input} class="naming" aria-label="Name of the conversation" defaultValue={title} maxLength={200}
        onBlur={(event) => end(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter") end(event.currentTarget.value);
          if (event.key !== "Escape") return;
          event.stopPropagation();
          end(null);
        }} />
    </li>
  );
}

function download(json: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([json], { type: "application/json" }));
  link.download = `upg-chats-${new Date().toISOString().slice(0, 10)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
