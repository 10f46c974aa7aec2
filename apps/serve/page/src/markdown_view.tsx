import type { Links } from "marked";
import { useLayoutEffect, useRef } from "preact/hooks";
import { announce } from "./announce";
import { copyText } from "./clipboard";
import { BlockSplitter, renderMarkdown } from "./markdown";
import { memo } from "./memo";

/** Markdown that may still grow. `text` must begin with what it was before; give another `key` otherwise. */
export function MarkdownView({ text, growing, aloud }: { text: string; growing: boolean; aloud: boolean }) {
  const splitter = useRef<BlockSplitter | null>(null);
  splitter.current ??= new BlockSplitter();
  const { links, revision } = splitter.current;
  const blocks = splitter.current.update(text, !growing);
  return (
    <div class="prose" onClick={onClick}>
      {blocks.map((block, i) => (
        <BlockView key={i} raw={block.raw} done={block.done} links={links} revision={revision} aloud={aloud} />
      ))}
    </div>
  );
}

interface BlockProps {
  raw: string;
  done: boolean;
  links: Links;
  revision: number;
  aloud: boolean;
}

const BlockView = memo(function BlockView({ raw, done, links, revision, aloud }: BlockProps) {
  const element = useRef<HTMLDivElement>(null);
  const said = useRef(false);
  useLayoutEffect(() => {
    element.current!.replaceChildren(renderMarkdown(raw, links, done));
    if (!done || !aloud || said.current) return;
    said.current = true;
    announce(element.current!.textContent ?? "");
  }, [raw, done, revision]);
  return <div class="block" ref={element} />;
});

function onClick(event: MouseEvent): void {
  const button = (event.target as Element).closest<HTMLButtonElement>("button.copy");
  const code = button?.closest("figure")?.querySelector("pre");
  if (!button || !code) return;
  void copyText(code.textContent ?? "").then((copied) => {
    button.textContent = copied ? "Copied" : "Copying failed";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
