import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Sampling } from "./api";
import type { AppState } from "./app_state";
import { Icon } from "./icons";

interface Field {
  name: keyof Sampling;
  label: string;
  help: string;
  min: number;
  max: number;
  step: number | "any";
}

const FIELDS: Field[] = [
  { name: "temperature", label: "Temperature", help: "0 always takes the likeliest token", min: 0, max: 5, step: "any" },
  { name: "top_p", label: "Top p", help: "the likeliest tokens that make up this share", min: 0, max: 1, step: "any" },
  { name: "top_k", label: "Top k", help: "so many of the likeliest tokens; 0: all", min: 0, max: 1000000, step: 1 },
  { name: "min_p", label: "Min p", help: "at least this share of the likeliest token's chance", min: 0, max: 1, step: "any" },
  { name: "max_tokens", label: "Max tokens", help: "the longest answer", min: 1, max: 10000000, step: 1 },
  { name: "seed", label: "Seed", help: "the same seed gives the same answer", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
];

/** A modal dialog: the browser keeps the focus in it, closes it on Escape and gives the focus back. */
export function Modal({ title, close, children, sheet }: {
  title: string;
  close: () => void;
  children: ComponentChildren;
  sheet?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current!;
    const opener = document.activeElement as HTMLElement | null;
    element.showModal();
    return () => opener?.focus();
  }, []);
  return (
    <dialog ref={dialog} class={sheet ? "sheet" : "box"} aria-labelledby="dialog-title" onClose={close}
      onClick={(event) => event.target === event.currentTarget && dialog.current?.close()}>
      <div class="dialog-inside">
        <header class="dialog-head">
          <h2 id="dialog-title">{title}</h2>
          <button type="button" class="plain square" aria-label="Close" onClick={() => dialog.current?.close()}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

export function Settings({ app, close }: { app: AppState; close: () => void }) {
  const { system, sampling } = app.current;
  const setNumber = (field: Field, input: HTMLInputElement) => {
    if (!input.validity.valid) return;
    const next = { ...app.current.sampling };
    if (input.value === "") delete next[field.name];
    else next[field.name] = Number(input.value);
    app.configure({ sampling: next });
  };
  return (
    <Modal title="Settings" close={close} sheet>
      <p class="dialog-note">For this conversation; a new one starts with the same.</p>
      <div class="field wide">
        <label for="system">System prompt</label>
        <textarea id="system" rows={5} defaultValue={system} placeholder="None"
          onInput={(event) => app.configure({ system: event.currentTarget.value })} />
      </div>
      <fieldset>
        <legend>Sampling</legend>
        <p class="dialog-note">Empty fields are left to the server.</p>
        {FIELDS.map((field) => (
          <div class="field" key={field.name}>
            <label for={field.name}>{field.label}</label>
            <input id={field.name} type="number" inputMode="decimal" min={field.min} max={field.max} step={field.step}
              defaultValue={sampling[field.name]?.toString() ?? ""} placeholder="server" aria-describedby={`${field.name}-help`}
              onInput={(event) => setNumber(field, event.currentTarget)} />
            <p id={`${field.name}-help`}>{field.help}</p>
          </div>
        ))}
      </fieldset>
      <fieldset>
        <legend>Server</legend>
        <div class="field wide">
          <label for="key">API key</label>
          <input id="key" type="password" autocomplete="off" defaultValue={app.key} placeholder="None"
            aria-describedby="key-help" onChange={(event) => app.useKey(event.currentTarget.value.trim())} />
          <p id="key-help">Kept until this tab is closed.</p>
        </div>
      </fieldset>
    </Modal>
  );
}

export function KeyDialog({ app, message }: { app: AppState; message: string }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);
  return (
    <Modal title="API key" close={() => app.dropKeyRequest()}>
      <form onSubmit={(event) => {
        event.preventDefault();
        const key = input.current?.value.trim() ?? "";
        if (key !== "") app.useKey(key);
      }}>
        <p class="dialog-note" role="alert">{message}</p>
        <div class="field wide">
          <label for="asked-key">Key</label>
          <input ref={input} id="asked-key" type="password" autocomplete="off" required aria-describedby="asked-help" />
          <p id="asked-help">Kept until this tab is closed.</p>
        </div>
        <div class="editor-buttons"><button type="submit" class="strong">Use this key</button></div>
      </form>
    </Modal>
  );
}
