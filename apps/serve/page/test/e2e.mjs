// The page in a real browser. Without arguments against the stand-in of fake_server.mjs; with --url against a server,
// then without the tests that need chosen answers.
//   npm run e2e -- [--url URL] [--key KEY] [--shots FOLDER] [--only WORDS]
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { parseArgs } from "node:util";
import puppeteer from "puppeteer-core";
import { startFakeServer } from "./fake_server.mjs";
import { FAKE_TESTS, TESTS } from "./e2e_tests.mjs";

const { values: options } = parseArgs({ options: {
  url: { type: "string" },
  key: { type: "string", default: "" },
  shots: { type: "string", default: "" },
  only: { type: "string", default: "" },
} });

const CHROMES = [process.env.CHROME, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
const executablePath = CHROMES.find((path) => path && existsSync(path));
if (!executablePath) throw new Error("no Chromium found: say where it is by CHROME=PATH");
if (options.shots !== "") mkdirSync(options.shots, { recursive: true });

const fake = options.url ? null : await startFakeServer();
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const wanted = (options.url ? TESTS : [...TESTS, ...FAKE_TESTS]).filter(([name]) => name.includes(options.only));
let failed = 0;
for (const [name, test] of wanted) {
  // A context of its own: nothing stored is left from the test before.
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(`error on the page: ${error.message}`));
  page.on("console", (message) => {
    // A status that a test provokes is logged by the browser itself.
    // So are handlers in the text of an answer, while the sanitiser takes it apart in a document of its own.
    const provoked = /status of 40[01]|^Executing inline event handler violates/.test(message.text());
    if (message.type() === "error" && !provoked) trouble.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(options.url ?? fake.url) && !/^(data|blob|chrome|about):/.test(to)) trouble.push(`request to ${to}`);
  });
  try {
    const start = performance.now();
    await page.setViewport({ width: 1280, height: 800 });
    if (fake) Object.assign(fake.state, { key: "", requests: [], cut: 0 });
    if (options.key) await page.evaluateOnNewDocument((key) => sessionStorage.setItem("upg.key", key), options.key);
    const shot = async (file) => {
      if (options.shots !== "") await page.screenshot({ path: `${options.shots}/${file}.png` });
    };
    await page.goto(options.url ?? fake.url);
    await page.waitForSelector("#input");
    await test({ page, context, server: fake?.state, url: options.url ?? fake.url, shot });
    assert.deepEqual(trouble, []);
    console.log(`ok      ${name}, ${Math.round(performance.now() - start)} ms`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}\n        ${String(error.stack).replaceAll("\n", "\n        ")}`);
    for (const line of trouble) console.log(`        ${line}`);
  }
  await context.close();
}
await browser.close();
fake?.close();
console.log(`${wanted.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
