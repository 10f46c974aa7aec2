import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { setAnnouncer } from "./announce";
import type { AppState } from "./app_state";
import { Composer } from "./composer";
import { branch } from "./conversation";
import { useChanges } from "./hooks";
import { Icon } from "./icons";
import { MessageView } from "./message_view";
import { KeyDialog, Settings } from "./settings";
import { Sidebar } from "./sidebar";

export function App({ app }: { app: AppState }) {
  useChanges(app);
  const [listOpen, setListOpen] = useState(false);
  const [settings, setSettings] = useState(false);
  const menu = useRef<HTMLButtonElement>(null);
  const closeList = () => {
    setListOpen(false);
    if (listOpen) menu.current?.focus();
  };

  useEffect(() => {
    void app.loadModels();
  }, [app]);
  useEffect(() => {
    document.title = `${app.current.title} · UPG`;
  }, [app.current.title]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => onGlobalKey(event, app, listOpen ? closeList : null);
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  });

  return (
    <>
      <a class="skip" href="#input" onClick={(event) => {
        event.preventDefault();
        document.querySelector<HTMLElement>("#input")?.focus();
      }}>Skip to the message field</a>
      <Sidebar app={app} open={listOpen} close={closeList} />
      {listOpen && <div class="veil" onClick={closeList} />}
      <main class="main">
        <header class="top">
          <button type="button" ref={menu} class="plain square only-narrow" aria-label="Conversations" aria-expanded={listOpen}
            aria-controls="list" onClick={() => setListOpen(!listOpen)}><Icon name="list" /></button>
          <h1>{app.current.title}</h1>
          <Models app={app} />
          <button type="button" class="plain" aria-haspopup="dialog" onClick={() => setSettings(true)}>
            <Icon name="sliders" /><span class="only-wide">Settings</span>
          </button>
        </header>
        <Messages app={app} openSettings={() => setSettings(true)} />
        <div class="bottom">
          <NoticeView app={app} />
          <Composer app={app} />
        </div>
      </main>
      {settings && <Settings app={app} close={() => setSettings(false)} />}
      {app.keyWanted && !settings && <KeyDialog app={app} message={app.keyWanted.message} />}
      <div class="hidden" role="log" aria-live="polite" aria-label="Answer" ref={setAnnouncer} />
    </>
  );
}

function onGlobalKey(event: KeyboardEvent, app: AppState, closeList: (() => void) | null): void {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (closeList) closeList();
    else app.stop();
  }
  const typing = (event.target as Element).closest("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.querySelector<HTMLElement>("#input")?.focus();
  }
}

function Models({ app }: { app: AppState }) {
  if (app.models.length === 0) return null;
  return (
    <select class="models" aria-label="Model" value={app.model} title={app.model}
      onChange={(event) => app.configure({ model: event.currentTarget.value })}>
      {app.models.map((id) => <option key={id} value={id}>{id}</option>)}
    </select>
  );
}

function NoticeView({ app }: { app: AppState }) {
  const { notice } = app;
  return (
    <div aria-live="polite">
      {notice && (
        <div class={`notice ${notice.kind}`} role={notice.kind === "error" ? "alert" : undefined}>
          <p>{notice.text}</p>
          {notice.action && (
            <button type="button" class="plain" onClick={() => {
              const { run } = notice.action!;
              app.dismiss();
              run();
            }}>{notice.action.label}</button>
          )}
          <button type="button" class="plain square" aria-label="Dismiss" onClick={() => app.dismiss()}>
            <Icon name="close" />
          </button>
        </div>
      )}
    </div>
  );
}

/** So near to the end counts as reading the end, in pixels. */
const NEAR = 60;

function Messages({ app, openSettings }: { app: AppState; openSettings: () => void }) {
  const scroller = useRef<HTMLDivElement>(null);
  const inside = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [away, setAway] = useState(false);
  const shown = branch(app.current);
  const tip = shown.at(-1);
  const toEnd = () => {
    following.current = true;
    scroller.current!.scrollTop = scroller.current!.scrollHeight;
  };

  // A growing answer is followed as long as its end is in view; who scrolls up is left in peace.
  useEffect(() => {
    const observer = new ResizeObserver(() => following.current && toEnd());
    observer.observe(inside.current!);
    observer.observe(scroller.current!);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(toEnd, [app.current.id]);
  useLayoutEffect(() => {
    if (app.generation?.conversation === app.current.id) toEnd();
  }, [app.generation]);

  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = scroller.current!;
    following.current = scrollHeight - scrollTop - clientHeight < NEAR;
    setAway(!following.current);
  };
  return (
    <div class="scroll-frame">
      <div class="scroller" ref={scroller} onScroll={onScroll} tabIndex={0} role="region" aria-label="Conversation">
        <div class="column" ref={inside}>
          {app.current.system.trim() !== "" && (
            <button type="button" class="system" onClick={openSettings}><b>System</b> {app.current.system}</button>
          )}
          {shown.length === 0 && <Welcome app={app} />}
          {shown.map((m) => <MessageView key={m.id} app={app} message={m} last={m === tip} />)}
          {tip?.role === "user" && !app.generation && (
            <button type="button" class="plain unanswered" onClick={() => void app.answer(tip.id)}>Answer this message</button>
          )}
        </div>
      </div>
      {away && <button type="button" class="to-end" aria-label="To the end" onClick={toEnd}><Icon name="down" /></button>}
    </div>
  );
}

function Welcome({ app }: { app: AppState }) {
  return (
    <div class="welcome">
      <h2>{app.model === "" ? "UPG" : app.model}</h2>
      <p>Answers are computed by this server. Conversations stay in this browser.</p>
    </div>
  );
}
