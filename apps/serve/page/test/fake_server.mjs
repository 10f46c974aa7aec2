// A stand-in for upg serve that needs no model: it serves the built page with the server's headers and speaks the same
// events. The last message chooses what it answers; see ANSWERS. Run it by `npm run fake`, or start it from a test.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const PAGE = fileURLToPath(new URL("../dist/index.html", import.meta.url));
const POLICY = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; " +
  "img-src 'self' data:";

const SAMPLE = `A prime is a whole number above one with no divisor but one and itself. The **sieve of Eratosthenes** \
finds all of them up to a bound.

## How it goes

1. Write down the numbers from 2 to *n*.
2. Take the first that is not crossed out; it is prime.
3. Cross out its multiples, from its square on, as \`p * p\` is the first that no smaller prime has met.

\`\`\`python
def primes(n: int) -> list[int]:
    """Primes up to n."""
    is_prime = [True] * (n + 1)
    for p in range(2, int(n ** 0.5) + 1):
        if is_prime[p]:
            for multiple in range(p * p, n + 1, p):
                is_prime[multiple] = False  # has a smaller divisor
    return [p for p in range(2, n + 1) if is_prime[p]]
\`\`\`

| Bound | Primes | Share |
|------:|-------:|------:|
| 100 | 25 | 25.0 % |
| 10 000 | 1 229 | 12.3 % |
| 1 000 000 | 78 498 | 7.8 % |

> The share falls as \\(1 / \\ln n\\).

More in [the encyclopedia](https://en.wikipedia.org/wiki/Sieve_of_Eratosthenes).`;

const HOSTILE = `<img src=x onerror="window.broken=1"> <script>window.broken=2</script>
<a href="javascript:window.broken=3" id="js-link">one</a> [two](javascript:window.broken=4)
[three](https://example.org/) ![four](https://example.org/x.png) <iframe srcdoc="<script>parent.broken=5</script>"></iframe>
<svg onload="window.broken=6"><style>body{display:none}</style></svg> <form action="/"><input name="a"></form>
<button onclick="window.broken=7">press</button> <p style="position:fixed" class="sheet" id="input">styled</p>`;

const ANSWERS = [
  [/slow/i, () => Array.from({ length: 2000 }, (_, i) => `word${i} `)],
  [/sieve/i, () => SAMPLE.split(/(?<=\s)/)],
  [/hostile/i, () => [HOSTILE]],
  [/think/i, () => ["<thi", "nk>Let me ", "see.</th", "ink>\n\n", "Done ", "thinking."]],
  [/huge/i, () => Array.from({ length: 3000 }, (_, i) => `Paragraph ${i} has *some* words.\n\n`)],
];

function pieces(text, turn, body) {
  for (const [pattern, make] of ANSWERS) if (pattern.test(text)) return make();
  const system = body.messages.find((m) => m.role === "system");
  return ["You ", "said: ", text, ` (question ${turn}`, system ? `, system: ${system.content}` : "", ")."];
}

function json(response, status, value) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}

async function complete(request, response, state) {
  let text = "";
  for await (const chunk of request) text += chunk;
  const body = JSON.parse(text);
  state.requests.push(body);
  const asked = body.messages.at(-1).content;
  if (/refuse/i.test(asked)) {
    return json(response, 400, { error: { message: "messages: the prompt has 9000 tokens, 4096 fit", type: "invalid_request_error" } });
  }
  const turn = body.messages.filter((m) => m.role === "user").length;
  const list = pieces(asked, turn, body);
  const limit = body.max_tokens ?? Infinity;
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  const event = (value) => response.write(`data: ${JSON.stringify({ object: "chat.completion.chunk", model: body.model, ...value })}\n\n`);
  event({ choices: [{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }] });
  let sent = 0;
  for (const piece of list) {
    if (sent >= limit || response.destroyed) break;
    event({ choices: [{ index: 0, delta: { content: piece }, finish_reason: null }] });
    sent++;
    const wait = /slow/i.test(asked) ? 20 : sent % 8 === 0 ? 4 : 0;
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    if (/collapse/i.test(asked)) {
      event({ error: { message: "the model ran out of memory" } });
      return response.end();
    }
  }
  if (response.destroyed) {
    state.cut++;
    return undefined;
  }
  event({ choices: [{ index: 0, delta: {}, finish_reason: sent < list.length ? "length" : "stop" }] });
  if (body.stream_options?.include_usage) {
    event({ choices: [], usage: { prompt_tokens: 40 * turn, completion_tokens: sent, total_tokens: 40 * turn + sent,
      prompt_tokens_details: { cached_tokens: 40 * (turn - 1) } } });
  }
  response.end("data: [DONE]\n\n");
}

/** Starts it; port 0 takes a free one. `key`: asked for when not empty. */
export async function startFakeServer({ port = 0, key = "" } = {}) {
  const state = { key, requests: [], cut: 0 };
  const server = createServer((request, response) => {
    const path = request.url.split("?")[0];
    if (path === "/") {
      response.writeHead(200, { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY });
      return response.end(readFileSync(PAGE));
    }
    if (path === "/health") return json(response, 200, { status: "ok" });
    if (state.key !== "" && request.headers.authorization !== `Bearer ${state.key}`) {
      return json(response, 401, { error: { message: "invalid API key", type: "authentication_error" } });
    }
    if (path === "/v1/models") {
      return json(response, 200, { object: "list", data: [{ id: "phi-4-trellis3", object: "model" }, { id: "qwen3-8b", object: "model" }] });
    }
    if (path === "/v1/chat/completions" && request.method === "POST") return complete(request, response, state);
    return json(response, 404, { error: { message: `there is nothing at ${path}` } });
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, state, close: () => {
    server.closeAllConnections();
    server.close();
  } };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await startFakeServer({ port: Number(process.env.PORT ?? 8080), key: process.env.KEY ?? "" });
  console.log(server.url);
}
