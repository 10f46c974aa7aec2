#!/usr/bin/env python3
"""Race upg against llama.cpp and ik_llama.cpp on this machine, in alternation, and print ratios.

  bench/peers.py --model phi-4.upg \\
      --peer "ik_llama.cpp IQ3_XXS" "IK/llama-bench -m phi-4-iq3_xxs.gguf -rtr 1" \\
      --peer "llama.cpp IQ3_XXS" "LLAMA/llama-bench -m phi-4-iq3_xxs.gguf" --out result.json

Every round runs each program once; figures are medians over rounds, ratios medians of each round's ratio. A peer is a
name and a command that takes llama-bench's options; this script adds -p, -n, -t and -o json. Models of Phi-4's shapes
without a checkpoint: `upg bench --shape phi-4 --keep phi-4.upg` and bench/make_gguf.py. All files together should fit
the page cache, or the disk is measured.
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


def run(command):
    print("+", shlex.join(command), file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def run_upg(options):
    report = json.loads(run([options.upg, "bench", options.model, "--prompt", str(options.prompt), "--context",
                             str(options.context), "--tokens", str(options.tokens), "--rounds", "1", "--threads",
                             str(options.threads), "--json"]))
    return {"prompt": report["prompts"][0]["tokens_per_second"],
            "generation": report["generation"][0]["tokens_per_second"],
            "fraction": report["generation"][0]["fraction"], "read_bandwidth": report["read_bandwidth"]}


def run_peer(command, options):
    text = run(shlex.split(command) + ["-p", str(options.prompt), "-n", str(options.tokens), "-t",
                                       str(options.threads), "-r", "1", "-o", "json"])
    speeds = {}
    for row in json.loads(text[text.index("["):]):
        speeds["prompt" if row["n_prompt"] else "generation"] = row["avg_ts"]
    return speeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upg", default=str(HERE.parent / "build/release/upg"))
    parser.add_argument("--model", required=True, help="UPG file")
    parser.add_argument("--peer", nargs=2, action="append", required=True, metavar=("NAME", "COMMAND"))
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt [512]")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to generate [16]")
    parser.add_argument("--context", type=int, default=1, help="positions before ours; llama-bench starts at none [1]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", help="also write JSON")
    options = parser.parse_args()
    runs = {"upg": [], **{name: [] for name, _ in options.peer}}
    for _ in range(options.rounds):
        runs["upg"].append(run_upg(options))
        for name, command in options.peer:
            runs[name].append(run_peer(command, options))
    result = {"date": time.strftime("%Y-%m-%d"), "threads": options.threads, "rounds": options.rounds,
              "prompt_tokens": options.prompt, "generated_tokens": options.tokens,
              "read_bandwidth": statistics.median(r["read_bandwidth"] for r in runs["upg"]), "rows": []}
    print(f"{'':<28}{'prompt':>10}{'upg is':>9}{'generation':>12}{'upg is':>9}")
    for name, rows in runs.items():
        row = {"name": name}
        for what in ("prompt", "generation"):
            row[what] = statistics.median(r[what] for r in rows)
            row[what + "_ratio"] = statistics.median(u[what] / r[what] for u, r in zip(runs["upg"], rows))
        row["runs"] = rows
        result["rows"].append(row)
        print(f"{name:<28}{row['prompt']:>10.2f}{row['prompt_ratio']:>8.2f}x{row['generation']:>12.2f}"
              f"{row['generation_ratio']:>8.2f}x")
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
