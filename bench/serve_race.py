#!/usr/bin/env python3
"""Parallel streams through two HTTP servers: `upg serve` and llama.cpp's llama-server, asked by the same client with the
same texts, in turns within one run.

  bench/serve_race.py --upg build/release/upg --model model.upg --llama-server llama.cpp/build/bin/llama-server \\
      --gguf model.gguf [--streams 16] [--tokens 128] [--rounds 7] [--threads 2] [-o bench/results/serve_race.json]

Each round sends as many requests at once as there are streams, to one server and then to the other, and takes the tokens
of all answers over the time from the first request to the last answer: reading the prompts, HTTP and JSON are in it.
Every prompt is new. Answers run to their full length (`ignore_eos`), greedily. Needs nothing but Python.
"""
import argparse
import asyncio
import datetime
import json
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

WORDS = "river stone night field water house road king letter winter market table number green silent early".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """Runs a command and waits until it answers."""

    def __init__(self, name, command, port):
        self.name, self.command, self.port = name, command, port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit(f"{name} ended with {self.process.returncode}: {' '.join(command)}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"{name} does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)

    async def ask(self, prompt, tokens, stream):
        """(tokens of the answer, seconds to the first piece)"""
        body = json.dumps({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": stream,
                           **({"stream_options": {"include_usage": True}} if stream else {})}).encode()
        start, first, data = time.monotonic(), None, b""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write((f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
                          f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                          ).encode() + body)
            while piece := await reader.read(65536):
                if first is None and (b"data:" in piece or not stream):
                    first = time.monotonic() - start
                data += piece
        finally:
            writer.close()
        said = data.rsplit(b'"completion_tokens":', 1)
        if not data.startswith(b"HTTP/1.1 200") or len(said) != 2:
            raise SystemExit(f"{self.name} answered {data[:500]!r}")
        return int(said[1].lstrip().split(b",")[0].split(b"}")[0]), first


async def round_of(server, options, rng, stream):
    prompts = [" ".join([str(rng.randrange(10**6)), *rng.choices(WORDS, k=options.words)]) for _ in range(options.streams)]
    start = time.monotonic()
    answers = await asyncio.gather(*(server.ask(p, options.tokens, stream) for p in prompts))
    seconds = time.monotonic() - start
    made = sum(tokens for tokens, _ in answers)
    if made != options.streams * options.tokens:
        raise SystemExit(f"{server.name} made {made} tokens, not {options.streams * options.tokens}: lengths differ")
    return made / seconds, statistics.median(first for _, first in answers)


async def race(servers, options):
    rng = random.Random(3)
    modes = []
    for stream in (False, True):
        speeds = {server.name: [] for server in servers}
        firsts = {server.name: [] for server in servers}
        for turn in range(options.rounds + 1):
            for server in servers if turn % 2 else reversed(servers):
                speed, first = await round_of(server, options, rng, stream)
                if turn:  # the first round warms up
                    speeds[server.name].append(round(speed, 1))
                    firsts[server.name].append(round(first, 4))
        ratios = [a / b for a, b in zip(*(speeds[server.name] for server in servers))]
        modes.append({"mode": "event streams" if stream else "whole answers",
                      "tokens_per_second": {name: statistics.median(values) for name, values in speeds.items()},
                      "first_piece_seconds": {name: statistics.median(values) for name, values in firsts.items()},
                      "ratio": round(statistics.median(ratios), 3), "ratios": [round(r, 3) for r in ratios],
                      "all_tokens_per_second": speeds})
        print(json.dumps({k: v for k, v in modes[-1].items() if not k.startswith("all")}), file=sys.stderr)
    return modes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--upg", required=True)
    parser.add_argument("--model", required=True, help="for upg serve")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--gguf", required=True, help="the same model for llama-server")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--words", type=int, default=32, help="of each prompt")
    parser.add_argument("--context", type=int, default=512, help="positions of each stream")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--note", default="", help="what else there is to say about this run")
    parser.add_argument("-o", "--output", help="a JSON file; otherwise the standard output")
    options = parser.parse_args()
    ports = free_port(), free_port()
    servers = []
    try:
        servers.append(Server("upg", [options.upg, "serve", options.model, "--port", str(ports[0]), "--parallel",
                                      str(options.streams), "--context", str(options.context), "--threads",
                                      str(options.threads)], ports[0]))
        servers.append(Server("llama-server", [options.llama_server, "-m", options.gguf, "--port", str(ports[1]),
                                               "--parallel", str(options.streams), "-c",
                                               str(options.streams * options.context), "-t", str(options.threads), "-tb",
                                               str(options.threads)], ports[1]))
        modes = asyncio.run(race(servers, options))
    finally:
        for server in servers:
            server.stop()
    report = {"date": datetime.date.today().isoformat(), "machine": platform.processor() or platform.machine(),
              "note": options.note, "streams": options.streams, "answer_tokens": options.tokens,
              "prompt_words": options.words, "threads": options.threads, "modes": modes}
    text = json.dumps(report, indent=1) + "\n"
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
