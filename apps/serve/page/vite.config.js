import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

const BUNDLED = ["preact", "marked", "dompurify", "highlight.js"];

// What is shipped inside the page brings its licence along.
function licences() {
  const text = BUNDLED.map((name) => {
    const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
    if (name === "dompurify") return `${name} ${version}: Apache-2.0, (c) Cure53 and other contributors`;
    return `${name} ${version}:\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}`;
  }).join("\n\n----\n\n");
  return `<!--\nThis page contains:\n\n${text.replaceAll("--", "==")}\n-->\n`;
}

// The page carries its own policy. It is tighter than the one that the server sends: only the script that was built in
// may run, known by its hash, so that a hole in the sanitiser would still run nothing.
function finish() {
  return {
    name: "finish-page",
    enforce: "post",
    apply: "build",
    generateBundle: { order: "post", handler(_, bundle) {
      const page = bundle["index.html"];
      let html = String(page.source);
      const scripts = [...html.matchAll(/<script[^>]*>([\s\S]*?)<\/script>/g)];
      if (scripts.length !== 1) this.error(`the page has ${scripts.length} scripts, expected one`);
      const hash = createHash("sha256").update(scripts[0][1]).digest("base64");
      const policy = `default-src 'none'; script-src 'sha256-${hash}'; style-src 'unsafe-inline'; ` +
        "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'";
      const meta = `<meta http-equiv="Content-Security-Policy" content="${policy}">`;
      page.source = html.replace('<meta charset="utf-8">', (charset) => `${charset}\n    ${meta}`) + licences();
    } },
  };
}

export default defineConfig({
  plugins: [viteSingleFile({ removeViteModuleLoader: true }), finish()],
  build: { target: "es2022", reportCompressedSize: false },
  server: { proxy: { "/v1": process.env.UPG_SERVER ?? "http://127.0.0.1:8080" } },
  test: { environment: "jsdom", include: ["src/**/*.test.ts"] },
});
