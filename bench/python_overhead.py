#!/usr/bin/env python3
"""What a token costs in Python beyond what it costs the command: both on the same prompt, in turn.

  python_overhead.py [--model MODEL] [--tokens N] [--rounds R] [--threads T] [--json FILE]

Run it with the interpreter that has the package (PYTHONPATH=build/release/python). Each round starts the command, then
Python with Model.complete, then Python with Model.stream and a loop over its text, each in a process of its own, and
each once with few and once with many tokens: the difference, over the number of tokens between, is what a token costs
without loading, reading the prompt and starting. What else runs on the machine only adds to a time, so the ratio is of
the smallest times of all rounds; that of the medians is there too. And Model.complete compares its own clock with the
engine's: what is between them is Python's, whatever else runs. On a machine that is not idle processor time counts.
"""
import argparse
import datetime
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import upg

PROMPT = "The history of the city"
FEW = 16
PROGRAM = """
import sys, time, upg
model, tokens, threads, way = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
loaded = upg.load(model, threads=threads, progress=False)
options = dict(max_tokens=tokens, temperature=0, ignore_eos=True)
if way == "stream":
    text = "".join(loaded.stream(sys.argv[5], **options))
else:
    start = time.perf_counter()
    done = loaded.complete(sys.argv[5], **options)
    outside = time.perf_counter() - start - done.prompt_seconds - done.generate_seconds
    print(outside / tokens, file=sys.stderr)
    text = done.text
print(text)
"""


def command(way, args, tokens):
    if way == "command":
        return [args.upg, "run", args.model, "-p", PROMPT, "-n", str(tokens), "--temperature", "0", "--ignore-eos",
                "--threads", str(args.threads)]
    return [sys.executable, "-c", PROGRAM, args.model, str(tokens), str(args.threads), way, PROMPT]


def run(way, args, tokens):
    """Seconds of wall clock and of processor time that a process takes, and what it prints."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command(way, args, tokens), capture_output=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout, done.stderr


def cost(few, many, tokens, pick):
    """Microseconds a token, wall clock and processor, from runs [(wall, processor)] with few and many tokens."""
    return [1e6 * (pick(r[i] for r in many) - pick(r[i] for r in few)) / tokens for i in (0, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=upg.demo())
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--upg", default=str(pathlib.Path(upg.__file__).parent / "bin/upg"))
    parser.add_argument("--json")
    args = parser.parse_args()
    ways = ("command", "complete", "stream")
    runs = {way: ([], []) for way in ways}
    outside = []
    for number in range(args.rounds):
        texts = set()
        for way in ways:
            for kept, tokens in zip(runs[way], (FEW, args.tokens)):
                wall, processor, text, said = run(way, args, tokens)
                kept.append((wall, processor))
                if way == "complete" and tokens == args.tokens:
                    outside.append(1e6 * float(said))
            texts.add(text)
        if len(texts) != 1:
            sys.exit("the command and Python do not say the same")
        print(f"round {number + 1} of {args.rounds}: " + ", ".join(
            f"{way} {runs[way][1][-1][0]:.2f} s ({runs[way][1][-1][1]:.2f} s of processor)" for way in ways),
            file=sys.stderr, flush=True)
    tokens = args.tokens - FEW
    result = {
        "date": datetime.date.today().isoformat(),
        "model": pathlib.Path(args.model).name,
        "prompt": PROMPT,
        "tokens": tokens,
        "rounds": args.rounds,
        "threads": args.threads,
        "load": [round(x, 1) for x in os.getloadavg()],
    }
    for name, pick in (("smallest", min), ("median", statistics.median)):
        costs = {way: cost(*runs[way], tokens, pick) for way in ways}
        result[name] = {
            "microseconds_per_token": {way: dict(zip(("wall", "processor"), costs[way])) for way in ways},
            "overhead_percent": {way: {kind: 100 * (costs[way][i] / costs["command"][i] - 1)
                                       for i, kind in enumerate(("wall", "processor"))} for way in ways[1:]},
        }
    # Of a call of Model.complete, that the engine's own clock does not see.
    result["outside_the_engine_microseconds_per_token"] = {"smallest": min(outside), "median": statistics.median(outside)}
    result["seconds"] = {way: {"few": runs[way][0], "many": runs[way][1]} for way in ways}
    text = json.dumps(result, indent=1) + "\n"
    if args.json:
        pathlib.Path(args.json).write_text(text)
    for way in ways[1:]:
        over = result["smallest"]["overhead_percent"][way]
        print(f"{way}: {over['wall']:+.2f}% wall clock, {over['processor']:+.2f}% processor time against the command")
    print(f"outside the engine {min(outside):.2f} us a token of "
          f"{result['smallest']['microseconds_per_token']['command']['wall']:.0f} us")


if __name__ == "__main__":
    main()
