#!/usr/bin/env python3
"""Puts a server under load and looks for what must not happen: answers that belong to another, places that stay taken,
statuses other than 200, 429 and 503, and a /health that waits.

  serve_load.py --upg build/release/upg --model models/demo [canaries disconnects idle overload]
  serve_load.py ... --requests 20000 --clients 64 --disconnects 10000 --connections 1000

Needs nothing but Python. Prints a line a check and exits 1 if one fails. Not part of ./dev test: it takes minutes.
"""
import argparse
import asyncio
import json
import pathlib
import random
import re
import socket
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
    print(f"disconnects: {options.disconnects} in {seconds:.0f} s; afterwards {running:.0f} run, {waiting:.0f} wait, "
          f"and a request gets {status}")
    return running == 0 and waiting == 0 and status == 200


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


async def overload(server, options):
    """Ten times what runs at once: only 200, 429 and 503, and those that are taken begin soon."""
    async def first_token(max_tokens):
        body = json.dumps({"prompt": "The river rose in the night", "max_tokens": max_tokens, "stream": True}).encode()
        start = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(server.head("POST", "/v1/completions", body))
            status = int((await reader.readline()).split(b" ")[1])
            first = None
            while line := await reader.readline():
                if first is None and line.startswith(b"data:"):
                    first = time.monotonic() - start
            return status, first
        finally:
            writer.close()

    alone = sorted([(await first_token(32))[1] for _ in range(20)])[18]
    results = []
    until = time.monotonic() + 20

    async def client():
        while time.monotonic() < until:
            results.append(await first_token(32))
            if results[-1][0] != 200:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(10 * options.parallel)))
    statuses = {}
    for status, _ in results:
        statuses[status] = statuses.get(status, 0) + 1
    admitted = sorted(first for status, first in results if status == 200 and first is not None)
    p99 = admitted[int(0.99 * (len(admitted) - 1))]
    print(f"overload: {len(results)} requests of {10 * options.parallel} clients, statuses {statuses}; time to the first "
          f"token, p99: {p99:.3f} s, alone p95 {alone:.3f} s ({p99 / alone:.1f} times)")
    return set(statuses) <= {200, 429, 503}


CHECKS = {"canaries": (canaries, ["--queue", "200"]), "disconnects": (disconnects, ["--queue", "200"]),
          "idle": (idle, []), "overload": (overload, ["--queue", "1"])}


async def run(options):
    failed = []
    for name in options.checks or CHECKS:
        check, flags = CHECKS[name]
        server = Server(options.upg, options.model, "--parallel", str(options.parallel), "--context", "512", *flags)
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
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
