#!/usr/bin/env python3
"""Puts a server under load and looks for what must not happen: answers that belong to another, places that stay taken,
statuses other than 200, 429 and 503, a /health that waits, requests that are taken and begin late, and a second turn
that is read as a whole.

  serve_load.py --upg build/release/upg --model models/demo [canaries disconnects idle overload turns slow]
  serve_load.py ... --requests 20000 --clients 64 --disconnects 10000 --connections 1000

Needs nothing but Python, and slowhttptest for the last. Prints a line a check and exits 1 if one fails. Not part of ./dev test: it takes minutes.
"""
import argparse
import asyncio
import collections
import json
import math
import pathlib
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time


class Server:
    def __init__(self, upg, model, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([upg, "serve", model, "--port", str(self.port), *options],
                                        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    async def ready(self):
        for _ in range(300):
            try:
                if (await self.request("GET", "/health"))[0] == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.1)
        raise SystemExit("the server does not answer")

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=60)

    def head(self, method, path, body):
        return (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body

    async def request(self, method, path, payload=None):
        """(status, body, seconds)"""
        body = json.dumps(payload).encode() if payload is not None else b""
        start = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self.head(method, path, body))
            data = await reader.read()
        finally:
            writer.close()
        head, _, text = data.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head else 0, text, time.monotonic() - start

    async def metric(self, name):
        text = (await self.request("GET", "/metrics"))[1].decode()
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                  if line.split("{")[0].split(" ")[0] == name]
        return sum(values)


async def canaries(server, options):
    """Each client asks about a word of its own with echo: nobody may see another's."""
    left = iter(range(options.requests))
    wrong, statuses = [], {}

    async def client(number):
        for i in left:
            word = f"canary{number}x{i}"
            status, text, _ = await server.request("POST", "/v1/completions", {
                "prompt": f"The secret is {word} and", "max_tokens": 2, "echo": True, "temperature": 0})
            statuses[status] = statuses.get(status, 0) + 1
            if status == 200:
                said = json.loads(text)["choices"][0]["text"]
                if set(re.findall(r"canary\d+x\d+", said)) != {word}:  # the model may say "canary" by itself
                    wrong.append((word, said))

    start = time.monotonic()
    await asyncio.gather(*(client(n) for n in range(options.clients)))
    seconds = time.monotonic() - start
    print(f"canaries: {options.requests} requests of {options.clients} clients in {seconds:.0f} s, statuses {statuses}, "
          f"{len(wrong)} with another's words {wrong[:2]}")
    return not wrong and set(statuses) <= {200, 429}


async def disconnects(server, options):
    """Clients go away at random; afterwards nothing runs."""
    rng = random.Random(7)
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me of the river."}], "max_tokens": 400,
                       "stream": True, "temperature": 1}).encode()
    left = iter(range(options.disconnects))

    async def client():
        for _ in left:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            data = server.head("POST", "/v1/chat/completions", body)
            cut = rng.random()
            writer.write(data[: rng.randrange(len(data))] if cut < 0.2 else data)
            if cut > 0.4:
                try:
                    await asyncio.wait_for(reader.read(rng.choice((1, 200, 2000))), rng.choice((0.001, 0.01, 0.1)))
                except (asyncio.TimeoutError, ConnectionError):
                    pass
            if rng.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()

    start = time.monotonic()
    await asyncio.gather(*(client() for _ in range(options.clients)))
    seconds = time.monotonic() - start
    for _ in range(100):
        running, waiting = await server.metric("upg_generations_running"), await server.metric("upg_generations_waiting")
        if running == waiting == 0:
            break
        await asyncio.sleep(0.1)
    status = (await server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}))[0]
    for _ in range(100):  # the answer comes a moment before its place is free
        held, kept = await server.metric("upg_kv_blocks_held"), await server.metric("upg_kv_blocks_kept")
        if held == kept:
            break
        await asyncio.sleep(0.1)
    print(f"disconnects: {options.disconnects} in {seconds:.0f} s; afterwards {running:.0f} run, {waiting:.0f} wait, "
          f"{held - kept:.0f} blocks of keys and values are held by nobody, and a request gets {status}")
    return running == 0 and waiting == 0 and held == kept and status == 200


async def idle(server, options):
    """Many connections that say little: /health answers."""
    held = []
    for i in range(options.connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " if i % 2 else b"")
        held.append(writer)
    slowest = 0
    for _ in range(20):
        status, _, seconds = await server.request("GET", "/health")
        slowest = max(slowest, seconds if status == 200 else 99)
        await asyncio.sleep(0.05)
    for writer in held:
        writer.transport.abort()
    print(f"idle: {len(held)} slow connections; the slowest of 20 /health took {slowest:.3f} s")
    return slowest < 1


async def slow(server, options):
    """slowhttptest: headers, bodies and readers that take their time, a thousand at once; /health answers."""
    if not shutil.which("slowhttptest"):
        print("slow: slowhttptest is not installed (apt-get install slowhttptest)")
        return False
    url = f"http://127.0.0.1:{server.port}"
    modes = {"headers": ["-H", "-u", url + "/health"],
             "bodies": ["-B", "-u", url + "/v1/completions", "-t", "POST", "-f", "application/json", "-s", "8192"],
             "readers": ["-X", "-u", url + "/openapi.json", "-w", "1", "-y", "10", "-n", "5", "-z", "32", "-k", "3"]}
    worst = 0
    for name, flags in modes.items():
        process = await asyncio.create_subprocess_exec(
            "slowhttptest", *flags, "-c", str(options.connections), "-r", "500", "-i", "5", "-l", "25", "-p", "3",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds, failed = [], []
        while process.returncode is None:
            status, _, taken = await server.request("GET", "/health")
            seconds.append(taken if status == 200 else 99)
            failed += [status] if status != 200 else []
            await asyncio.sleep(0.1)
        worst = max(worst, *seconds)
        print(f"slow: {name}, {options.connections} connections: {len(seconds)} times /health, median "
              f"{statistics.median(seconds):.4f} s, slowest {max(seconds):.3f} s, {len(failed)} in vain {failed[:5]}")
    return worst < 1


WORDS = "river stone night field water house road king letter winter market table number green silent early".split()


def unlike_prompt(rng, words):
    """A prompt that shares nothing with others."""
    return " ".join([str(rng.randrange(10**9)), *rng.choices(WORDS, k=words)])


async def first_token(server, prompt, max_tokens):
    """(status, seconds to the first token or None)"""
    body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}).encode()
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(server.head("POST", "/v1/completions", body))
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        first = None
        while piece := await reader.read(65536):
            if first is None and b"data:" in piece:
                first = time.monotonic() - start
        return status, first
    finally:
        writer.close()


def percentile(values, part):
    return sorted(values)[math.ceil(part * len(values)) - 1] if values else float("nan")


async def overload(server, options):
    """Ten times as many requests as can be answered, sent whether or not earlier ones have returned: only 200, 429 and
    503, and those that are taken begin about as soon as on an idle server. Idle and loaded in turns."""
    rng = random.Random(11)

    async def ask():
        return await first_token(server, unlike_prompt(rng, options.words), options.tokens)

    async def one_after_another(seconds, into):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            into.append(await ask())

    answered = []
    await asyncio.gather(*(one_after_another(5, answered) for _ in range(options.parallel)))
    capacity = sum(status == 200 for status, _ in answered) / 5
    ratios, lines = [], []
    for _ in range(options.rounds):
        idle = []
        for _ in range(100):
            idle.append((await ask())[1])
            await asyncio.sleep(0.01)
        results, tasks = [], []

        async def arrive(since):
            results.append((since, *await ask()))

        start = due = time.monotonic()
        while due - start < options.settle + options.seconds:
            await asyncio.sleep(max(0, due - time.monotonic()))
            tasks.append(asyncio.create_task(arrive(due - start)))
            due += rng.expovariate(10 * capacity)
        await asyncio.gather(*tasks)
        statuses = collections.Counter(status for _, status, _ in results)
        loaded = [first for since, status, first in results if status == 200 and since >= options.settle]
        ratios.append(percentile(loaded, 0.99) / percentile(idle, 0.99))
        lines.append({"statuses": dict(statuses), "idle_p50": percentile(idle, 0.5), "idle_p99": percentile(idle, 0.99),
                      "admitted": len(loaded), "admitted_p50": percentile(loaded, 0.5),
                      "admitted_p99": percentile(loaded, 0.99), "ratio_p99": ratios[-1]})
        print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in lines[-1].items()}))
        await asyncio.sleep(3)  # the overload has to be forgotten
    ratio = statistics.median(ratios)
    seen = set().union(*(line["statuses"] for line in lines))
    print(f"overload: {capacity:.1f} requests a second can be answered, ten times as many came; statuses {sorted(seen)}; "
          f"time to the first token, p99 of those taken against p99 alone: {ratio:.2f} times (median of {len(ratios)})")
    return seen <= {200, 429, 503} and ratio <= 2


async def turns(server, options):
    """The second turn of a conversation of 700 tokens begins in 15 % of the time that the first took."""
    rng = random.Random(5)

    async def said(text):
        """(seconds to the first token, the answer, tokens of the prompt, of those not read again)"""
        body = json.dumps({"prompt": text, "max_tokens": 32, "ignore_eos": True, "stream": True, "temperature": 0,
                           "stream_options": {"include_usage": True}}).encode()
        start = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(server.head("POST", "/v1/completions", body))
        first, answer, usage = None, "", {}
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - start
                event = json.loads(line[6:])
                answer += "".join(choice["text"] for choice in event["choices"])
                usage = event.get("usage") or usage
        writer.close()
        return first, answer, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    per_word = (await said(unlike_prompt(rng, 100)))[2] / 100
    ratios, firsts, seconds = [], [], []
    for _ in range(25):
        text = unlike_prompt(rng, round(700 / per_word))
        first, answer, tokens, _ = await said(text)
        second, _, more, cached = await said(text + answer + " What happened then, and who was there to see it?")
        ratios.append(second / first)
        firsts.append(first)
        seconds.append(second)
    ratio = statistics.median(ratios)
    print(f"turns: {tokens} tokens begin in {statistics.median(firsts):.4f} s, the next turn ({more} tokens, {cached} of "
          f"them known) in {statistics.median(seconds):.4f} s: {100 * ratio:.1f} % (median of 25; worst "
          f"{100 * max(ratios):.1f} %)")
    return ratio <= 0.15


CHECKS = {"canaries": (canaries, ["--queue", "200"]), "disconnects": (disconnects, ["--queue", "200"]),
          "idle": (idle, []), "overload": (overload, []),
          "turns": (turns, []), "slow": (slow, [])}


async def run(options):
    failed = []
    for name in options.checks or CHECKS:
        check, flags = CHECKS[name]
        server = Server(options.upg, options.model, "--parallel", str(options.parallel), "--context", "1024", *flags,
                        *options.flags.split())
        try:
            await server.ready()
            if not await check(server, options):
                failed.append(name)
        finally:
            code = server.stop()
        if code != 0:
            print(f"{name}: the server ended with {code}")
            failed.append(name)
    if failed:
        print("failed: " + ", ".join(failed))
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []])
    parser.add_argument("--upg", type=pathlib.Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of overload, each an idle and a loaded time")
    parser.add_argument("--seconds", type=float, default=10, help="of a loaded time that are measured")
    parser.add_argument("--settle", type=float, default=5, help="before them: until the queue has overflowed and emptied")
    parser.add_argument("--words", type=int, default=200, help="of a prompt in overload")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer in overload")
    parser.add_argument("--flags", default="", help="of the server besides, as one word")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
