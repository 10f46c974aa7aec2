#!/usr/bin/env python3
"""Compress a checkpoint in several ways, measure each against the original, write one JSON file and print a table.

  bench/quality.py CHECKPOINT TEXT [--chunks 100] [--upg build/release/upg] [--out bench/results/quality.json]
"""
import argparse
import datetime
import json
import os
import platform
import subprocess
import tempfile

# THE list of what is compared: name and options of `upg compress`.
RECIPES = [
    ("trellis mix, 10 to 1", ["--ratio", "10"]),
    ("trellis 2 bits", ["--codec", "trellis2"]),
    ("trellis 3 bits", ["--codec", "trellis3"]),
    ("trellis 4 bits", ["--codec", "trellis4"]),
    ("MdCSR, 10% kept", ["--codec", "mdcsr", "--density", "0.1"]),
    ("MdCSR with manifold, 10% kept", ["--codec", "mdcsr_manifold", "--density", "0.1"]),
    ("MdCSR, 20% kept", ["--codec", "mdcsr", "--density", "0.2"]),
]


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def run(command):
    return json.loads(subprocess.run(command + ["--json"], check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text")
    parser.add_argument("--chunks", default="100")
    parser.add_argument("--upg", default="build/release/upg")
    parser.add_argument("--out", default="bench/results/quality.json")
    options = parser.parse_args()

    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "checkpoint": os.path.basename(os.path.normpath(options.checkpoint)),
        "text": os.path.basename(options.text),
        "protocol": f"context 512, second half scored, {options.chunks} chunks",
        "commands": ["upg compress CHECKPOINT -o OUT OPTIONS", "upg eval OUT --text TEXT --reference CHECKPOINT --chunks N"],
        "rows": [],
    }
    print("| recipe | bits per weight | ratio to float32 | perplexity ratio | mean KL divergence | same top-1 |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in RECIPES:
            target = os.path.join(folder, "model.upg")
            report = run([options.upg, "compress", options.checkpoint, "-o", target] + recipe)
            loss = run([options.upg, "eval", target, "--text", options.text, "--reference", options.checkpoint,
                        "--chunks", options.chunks])
            row = {"name": name, "options": recipe}
            row.update({key: report[key] for key in ("weight_bytes", "file_bytes", "bits_per_weight", "ratio_fp32")})
            row["compress_seconds"] = report["seconds"]
            row.update({key: value for key, value in loss.items() if key.startswith(("perplexity", "mean", "p99", "same", "ref"))
                        and key != "reference"})
            result["rows"].append(row)
            print(f"| {name} | {row['bits_per_weight']:.3f} | {row['ratio_fp32']:.2f} | {row['perplexity_ratio']:.3f} "
                  f"| {row['mean_kld']:.3f} | {100 * row['same_top1']:.1f}% |", flush=True)
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    with open(options.out, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
