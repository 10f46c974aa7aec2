// @vitest-environment jsdom
import { expect, test } from "vitest";
import { renderMarkdown } from "./markdown";

function html(markdown: string): string {
  const box = document.createElement("div");
  box.append(renderMarkdown(markdown));
  return box.innerHTML;
}

test("hostile HTML loses what could act", () => {
  for (const text of ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))", "<iframe src='//example.com'></iframe>", "<svg onload=alert(1)>"]) {
    const out = html(text).toLowerCase();
    for (const bad of ["onerror", "<script", "javascript:", "<iframe", "onload"]) expect(out, text).not.toContain(bad);
  }
});

test("links open apart from the page", () => {
  expect(html("[there](https://example.com)")).toContain("noopener");
});

test("code keeps what looks like markup", () => {
  expect(html("```\n<b>&amp;</b>\n```")).toContain("&lt;b&gt;");
});
