// What the page must do: TESTS with any server, FAKE_TESTS with the stand-in's chosen answers.
import assert from "node:assert/strict";

// Real models on slow machines take their time.
const LONG = 180000;

async function idle(page) {
  await page.waitForSelector('button[aria-label="Send"]', { timeout: LONG });
}

async function ask(page, text) {
  await page.focus("#input");
  await page.keyboard.type(text);
  await page.keyboard.press("Enter");
  await page.waitForSelector('button[aria-label="Stop"]');
}

async function askAndWait(page, text) {
  await page.focus("#input");
  await page.keyboard.type(text);
  const before = await count(page, ".message");
  await page.keyboard.press("Enter");
  await page.waitForFunction((n) => document.querySelectorAll(".message").length >= n + 2, {}, before);
  await idle(page);
}

const count = (page, selector) => page.$$eval(selector, (all) => all.length);
const texts = (page, selector) => page.$$eval(selector, (all) => all.map((e) => e.textContent));

async function click(page, label, within = "body") {
  const found = await page.evaluateHandle((label, within) => [...document.querySelectorAll(`${within} button`)]
    .filter((b) => b.offsetParent !== null && (b.getAttribute("aria-label") ?? b.textContent.trim()) === label).at(-1), label, within);
  const button = found.asElement();
  assert.ok(button, `no button "${label}"`);
  await button.evaluate((b) => b.click());
}

const focused = (page) => page.evaluate(() => {
  const e = document.activeElement;
  return e.getAttribute("aria-label") ?? (e.id || e.textContent.trim());
});

async function tabTo(page, name, limit = 40) {
  for (let i = 0; i < limit; i++) {
    if ((await focused(page)) === name) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab does not reach "${name}"`);
}

export const TESTS = [
  ["a conversation is answered and measured", async ({ page, shot }) => {
    await shot("welcome");
    await askAndWait(page, "Say a few words about prime numbers.");
    await askAndWait(page, "And about squares?");
    assert.equal(await count(page, ".message"), 4);
    for (const answer of await texts(page, ".assistant .prose")) assert.ok(answer.trim().length > 0);
    assert.match((await texts(page, ".assistant .stats"))[1], /^\d[\d,]* tokens? · .*prompt \d/);
    assert.equal(await count(page, ".failed"), 0);
    assert.ok((await texts(page, "[role=log] p")).length >= 2, "nothing was read aloud");
  }],
  ["an answer is stopped by Escape and by the button", async ({ page, server }) => {
    await ask(page, "Tell a very slow and long story, at least two thousand words.");
    await page.waitForFunction(() => (document.querySelector(".assistant .prose")?.textContent.length ?? 0) > 20, { timeout: LONG });
    await page.keyboard.press("Escape");
    await idle(page);
    const [answer] = await texts(page, ".assistant");
    assert.match(answer, /Stopped\./);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal((await texts(page, ".assistant"))[0], answer);
    if (server) assert.equal(server.cut, 1);
    await ask(page, "Another slow and long story.");
    await page.waitForFunction(() => document.querySelectorAll(".assistant .prose").length === 2, { timeout: LONG });
    await click(page, "Stop");
    await idle(page);
    assert.match((await texts(page, ".assistant"))[1], /Stopped\./);
  }],
  ["a reload keeps the conversation", async ({ page }) => {
    await askAndWait(page, "Name a colour.");
    const before = await texts(page, ".said, .assistant .prose");
    await page.reload();
    await page.waitForSelector(".assistant .prose");
    assert.deepEqual(await texts(page, ".said, .assistant .prose"), before);
    assert.deepEqual(await texts(page, ".chat-open"), ["Name a colour."]);
  }],
  ["a reload in the middle of an answer keeps what was there", async ({ page }) => {
    await ask(page, "Tell a slow and very long story.");
    await page.waitForFunction(() => (document.querySelector(".assistant .prose")?.textContent.length ?? 0) > 20, { timeout: LONG });
    await page.reload();
    await page.waitForSelector(".assistant .prose");
    assert.match((await texts(page, ".assistant"))[0], /Stopped\./);
  }],
  ["regenerating adds an answer, and the first stays", async ({ page }) => {
    await askAndWait(page, "Name a number.");
    await click(page, "Regenerate");
    await page.waitForFunction(() => document.querySelector(".assistant .versions")?.textContent.includes("2/2"));
    await idle(page);
    assert.equal(await count(page, ".assistant"), 1);
    await click(page, "Previous answer");
    await page.waitForFunction(() => document.querySelector(".assistant .versions")?.textContent.includes("1/2"));
  }],
  ["editing a message branches, and the old branch stays", async ({ page }) => {
    await askAndWait(page, "Name a river.");
    await askAndWait(page, "And a lake.");
    await page.$$eval(".user", (all) => [...all[0].querySelectorAll("button")].find((b) => b.textContent === "Edit").click());
    await page.waitForSelector(".editor textarea");
    await page.keyboard.type(" In Asia.");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll(".message").length === 2);
    await idle(page);
    assert.deepEqual(await texts(page, ".said"), ["Name a river. In Asia."]);
    await click(page, "Previous version");
    await page.waitForFunction(() => document.querySelectorAll(".message").length === 4);
    assert.deepEqual(await texts(page, ".said"), ["Name a river.", "And a lake."]);
  }],
  ["deleting a message takes what follows, and is undone", async ({ page }) => {
    await askAndWait(page, "Name a tree.");
    await askAndWait(page, "And a flower.");
    await page.$$eval(".user", (all) => [...all[1].querySelectorAll("button")].find((b) => b.textContent === "Delete").click());
    await page.waitForFunction(() => document.querySelectorAll(".message").length === 2);
    await click(page, "Undo");
    await page.waitForFunction(() => document.querySelectorAll(".message").length === 4);
  }],
  ["the keyboard is enough", async ({ page }) => {
    await askAndWait(page, "First line");
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("/");
    assert.equal(await focused(page), "input");
    await page.keyboard.type("one");
    await page.keyboard.down("Shift");
    await page.keyboard.press("Enter");
    await page.keyboard.up("Shift");
    await page.keyboard.type("two");
    assert.equal(await page.$eval("#input", (e) => e.value), "one\ntwo");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll(".message").length === 4);
    await idle(page);
    assert.deepEqual((await texts(page, ".said"))[1], "one\ntwo");

    await page.evaluate(() => document.activeElement.blur());
    await tabTo(page, "New chat");
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(ring, "solid");
    await tabTo(page, "Rename First line");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".naming");
    await page.keyboard.type("Lines");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(".chat-open")?.textContent === "Lines");
    await page.waitForFunction(() => document.activeElement.getAttribute("aria-label") === "Rename Lines");
    await tabTo(page, "Settings");
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]");
    for (let i = 0; i < 30; i++) await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body ||
      document.activeElement.closest("dialog") !== null), "the focus left the dialog");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector("dialog"));
    assert.equal(await focused(page), "Settings");
    await tabTo(page, "Regenerate");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(".assistant .versions"));
    await idle(page);
  }],
  ["a phone shows it without scrolling sideways", async ({ page, shot }) => {
    await page.setViewport({ width: 360, height: 720, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
    await page.reload();
    await page.waitForSelector("#input");
    await askAndWait(page, "How does the sieve of Eratosthenes find primes? Show it in Python.");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await shot("phone");
    await page.$eval(".scroller", (e) => (e.scrollTop = 0));
    await shot("phone-top");
    assert.equal(await page.$eval("#list", (e) => getComputedStyle(e).visibility), "hidden");
    await click(page, "Conversations");
    await page.waitForFunction(() => getComputedStyle(document.querySelector("#list")).transform === "none");
    await shot("phone-list");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => getComputedStyle(document.querySelector("#list")).visibility === "hidden");
    await page.$eval('button[aria-haspopup="dialog"]', (b) => b.click());
    await page.waitForSelector("dialog[open]");
    await shot("phone-settings");
  }],
  ["conversations are exported, deleted, imported", async ({ page }) => {
    await askAndWait(page, "Name a bird.");
    const json = await page.evaluate(() => {
      const make = URL.createObjectURL;
      return new Promise((resolve) => {
        URL.createObjectURL = (blob) => {
          resolve(blob.text());
          return make.call(URL, blob);
        };
        [...document.querySelectorAll(".sidebar-foot button")].find((b) => b.textContent.includes("Export")).click();
      });
    });
    assert.equal(JSON.parse(json).conversations.length, 1);
    await click(page, "Delete Name a bird.");
    await page.waitForFunction(() => document.querySelectorAll(".chat").length === 0);
    await page.evaluate((json) => {
      const input = document.querySelector("input[type=file]");
      const data = new DataTransfer();
      data.items.add(new File([json], "chats.json"));
      input.files = data.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }, json);
    await page.waitForFunction(() => document.querySelectorAll(".chat").length === 1);
    await click(page, "Name a bird.");
    await page.waitForSelector(".assistant .prose");
  }],
];

export const FAKE_TESTS = [
  ["settings and the system prompt reach the server", async ({ page, server, shot }) => {
    await click(page, "Settings");
    await page.waitForSelector("#system");
    await page.type("#system", "Be brief.");
    await page.type("#temperature", "0.7");
    await page.type("#top_k", "40");
    await page.type("#max_tokens", "3");
    await page.type("#seed", "11");
    await shot("settings");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector("dialog"));
    await page.select(".models", "qwen3-8b");
    await askAndWait(page, "Hello");
    const { messages, stream, stream_options, ...rest } = server.requests[0];
    assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }]);
    assert.deepEqual(rest, { model: "qwen3-8b", temperature: 0.7, top_k: 40, max_tokens: 3, seed: 11 });
    assert.deepEqual([stream, stream_options], [true, { include_usage: true }]);
    assert.match((await texts(page, ".assistant"))[0], /limit of tokens/);
  }],
  ["hostile HTML does nothing", async ({ page, shot }) => {
    await askAndWait(page, "hostile");
    assert.equal(await page.evaluate(() => window.broken), undefined);
    assert.equal(await count(page, ".prose :is(img, script, iframe, svg, style, form, input, button:not(.copy), [style], [id])"), 0);
    assert.equal(await count(page, '.prose a[href^="javascript"]'), 0);
    for (const a of await page.$$eval(".prose a", (all) => all.map((a) => [a.textContent, a.getAttribute("href"), a.rel]))) {
      assert.ok(a[1] === null || (a[1].startsWith("https://") && a[2].includes("noopener")), String(a));
    }
    await shot("hostile");
  }],
  ["markdown, colours and the copy button", async ({ page, context, url, shot }) => {
    await context.overridePermissions(url, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
    await askAndWait(page, "How does the sieve of Eratosthenes find primes? Show it in Python.");
    assert.ok((await count(page, ".code .hljs-keyword")) > 3);
    assert.equal(await count(page, ".prose table"), 1);
    await click(page, "Copy python code");
    await page.waitForFunction(() => document.querySelector(".copy").textContent === "Copied");
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^def primes[\s\S]*\[p\]\]\n?$/);
    await askAndWait(page, "Which of them are even?");
    await page.$eval(".scroller", (e) => (e.scrollTop = 0));
    await shot("light-top");
    await page.$eval(".scroller", (e) => (e.scrollTop = e.scrollHeight));
    await shot("light");
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    await shot("dark");
    await page.$eval(".scroller", (e) => (e.scrollTop = 300));
    await shot("dark-middle");
    await page.$$eval(".user", (all) => [...all.at(-1).querySelectorAll("button")].find((b) => b.textContent === "Edit").click());
    await page.waitForSelector(".editor textarea");
    await shot("edit");
    await page.click(".theme");
    assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme), "light");
  }],
  ["the server's errors are shown in its words", async ({ page, shot }) => {
    await askAndWait(page, "refuse");
    assert.match((await texts(page, ".failed"))[0], /did not accept the request: messages: the prompt has 9000 tokens/);
    await askAndWait(page, "collapse");
    assert.match((await texts(page, ".failed"))[1], /ran out of memory/);
    await shot("errors");
  }],
  ["a server that asks for a key gets it, and the question is not lost", async ({ page, server, shot }) => {
    server.key = "secret";
    await ask(page, "Hello").catch(() => {});
    await page.waitForSelector("#asked-key");
    await shot("key");
    await page.type("#asked-key", "secret");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(".assistant .prose")?.textContent.includes("You said"));
    await idle(page);
    assert.equal(await count(page, ".message"), 2);
    assert.equal(await page.evaluate(() => localStorage.getItem("upg.key")), null);
  }],
  ["thoughts are folded and not sent back", async ({ page, server }) => {
    await askAndWait(page, "think");
    assert.deepEqual(await texts(page, ".thought-text"), ["Let me see."]);
    await askAndWait(page, "next");
    assert.equal(server.requests[1].messages[1].content, "Done thinking.");
  }],
  ["a full storage is said, and the conversation goes on", async ({ page }) => {
    await page.evaluate(() => localStorage.setItem("filler", "x".repeat(5 * 1024 * 1024 - 300)));
    await askAndWait(page, "Hello");
    assert.match((await texts(page, ".notice"))[0], /storage for this page is full/);
    assert.equal(await count(page, ".message"), 2);
  }],
  ["a long answer is drawn once per block", async ({ page }) => {
    await page.evaluate(() => {
      window.changes = 0;
      new MutationObserver((all) => all.forEach((m) => m.target.className === "block" && window.changes++))
        .observe(document.body, { childList: true, subtree: true });
    });
    await askAndWait(page, "huge");
    assert.equal(await count(page, ".block"), 3000);
    const changes = await page.evaluate(() => window.changes);
    assert.ok(changes < 3 * 3000, `${changes} changes`);
  }],
  ["scrolling up while an answer grows is respected", async ({ page }) => {
    await askAndWait(page, "sieve");
    await ask(page, "slow");
    await page.waitForFunction(() => document.querySelectorAll(".assistant .prose").length === 2);
    await page.$eval(".scroller", (e) => (e.scrollTop = 0));
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(await page.$eval(".scroller", (e) => e.scrollTop), 0);
    await click(page, "To the end");
    await page.keyboard.press("Escape");
    await idle(page);
  }],
];
