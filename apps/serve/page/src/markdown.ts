// Markdown to safe DOM nodes. A text that grows is cut into blocks, so that those which are finished are rendered once.
import DOMPurify from "dompurify";
import { Lexer, Marked, type Links, type RendererThis, type Tokens } from "marked";
import { highlight } from "./highlight";

const MATH = /^(?:\\\((.+?)\\\)|\\\[([\s\S]+?)\\\]|\$\$([\s\S]+?)\$\$)/;

// Formulas stay as they were written: read as markdown, they would lose their backslashes and underscores.
const math = {
  name: "math",
  level: "inline" as const,
  start: (src: string) => {
    const at = src.search(/\\\(|\\\[|\$\$/);
    return at < 0 ? undefined : at;
  },
  tokenizer(src: string) {
    const match = MATH.exec(src);
    return match ? { type: "math", raw: match[0], text: (match[1] ?? match[2] ?? match[3] ?? "").trim() } : undefined;
  },
  renderer: (token: Tokens.Generic) => `<code class="math">${escape(token.text)}</code>`,
};

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c] ?? c);
}

const marked = new Marked({
  gfm: true,
  extensions: [math],
  renderer: {
    // An image would tell its host that the answer was read; a link waits until it is followed.
    image(this: RendererThis, { href, text }: Tokens.Image) {
      return `<a href="${escape(href)}">${escape(text || href)}</a>`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => (checked ? "☑ " : "☐ "),
  },
});

export interface Block {
  raw: string;
  /** More text will not change it. */
  done: boolean;
}

/** Cuts a growing markdown text into its top-level blocks. */
export class BlockSplitter {
  private done: Block[] = [];
  private doneLength = 0;
  links: Links = Object.create(null);
  /** Counts the link definitions found: a new one can change blocks that were finished before. */
  revision = 0;

  /** `text` begins with what earlier calls were given. `last`: it will not grow any more. */
  update(text: string, last: boolean): Block[] {
    const source = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
    const lexer = new Lexer(marked.defaults);
    const tokens = lexer.blockTokens(source.slice(this.doneLength));
    for (const [name, link] of Object.entries(lexer.tokens.links)) {
      if (this.links[name]) continue;
      this.links[name] = link;
      this.revision++;
    }
    // What comes next can still join the last block, and the one before it while the last is a mere beginning: "-"
    // after a list is a paragraph until the space that makes it an item.
    let open = tokens.length;
    for (let unsettled = last ? 0 : 2; open > 0 && unsettled > 0; open--) {
      if (tokens[open - 1]!.type !== "space") unsettled--;
    }
    for (const token of tokens.slice(0, open)) {
      this.doneLength += token.raw.length;
      if (isShown(token.type)) this.done.push({ raw: token.raw, done: true });
    }
    const growing = tokens.slice(open).filter((token) => isShown(token.type));
    return [...this.done, ...growing.map(({ raw }) => ({ raw, done: false }))];
  }
}

function isShown(type: string): boolean {
  return type !== "space" && type !== "def";
}

const TAGS = ["a", "abbr", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt", "em",
  "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "small",
  "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var"];
const CLASS = /^(?:language-[\w+#.-]+|math)$/;

const purify = DOMPurify(window);
purify.addHook("uponSanitizeAttribute", (_, data) => {
  if (data.attrName === "class" && !CLASS.test(data.attrValue)) data.keepAttr = false;
});
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  if (!node.hasAttribute("href")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Nodes that hold no script, no style, no form and nothing that is loaded from anywhere. */
export function sanitize(html: string): DocumentFragment {
  return purify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ["href", "title", "class", "start", "align", "colspan", "rowspan", "open"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
    RETURN_DOM_FRAGMENT: true,
  });
}

/** Above this a code block that still grows stays plain: colouring it again for each frame would take too long. */
const MAX_OPEN_HIGHLIGHT = 8000;

/** One block of markdown as nodes. */
export function renderMarkdown(raw: string, links: Links = Object.create(null), done = true): DocumentFragment {
  const lexer = new Lexer(marked.defaults);
  Object.assign(lexer.tokens.links, links);
  const fragment = sanitize(marked.parser(lexer.lex(raw)));
  for (const code of fragment.querySelectorAll("pre > code")) frameCode(code, done || raw.length < MAX_OPEN_HIGHLIGHT);
  for (const table of fragment.querySelectorAll("table")) frameTable(table);
  return fragment;
}

function element(tag: string, className: string, text = ""): HTMLElement {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function frameCode(code: Element, colour: boolean): void {
  const pre = code.parentElement!;
  const language = /^language-(\S+)$/.exec(code.className)?.[1] ?? "";
  const figure = element("figure", "code");
  const head = element("figcaption", "code-head");
  const copy = element("button", "copy", "Copy") as HTMLButtonElement;
  copy.type = "button";
  copy.setAttribute("aria-label", language === "" ? "Copy code" : `Copy ${language} code`);
  head.append(element("span", "code-language", language), copy);
  // Long lines scroll sideways, by the keyboard too.
  pre.tabIndex = 0;
  const coloured = colour ? highlight(code.textContent ?? "", language) : null;
  if (coloured !== null) code.innerHTML = coloured;
  pre.replaceWith(figure);
  figure.append(head, pre);
}

function frameTable(table: Element): void {
  const frame = element("div", "table-frame");
  frame.tabIndex = 0;
  table.replaceWith(frame);
  frame.append(table);
}
