#!/usr/bin/env python3
"""Compress a checkpoint in several ways, measure each against the original, and compare with llama.cpp's quantisations.

  bench/quality.py CHECKPOINT TEXT [--out bench/results/quality.json]
  bench/quality.py CHECKPOINT TEXT --llama-cpp BIN --gguf MODEL.gguf --calibration TEXT2

Writes FILE.json and the same as a table in FILE.md. With --llama-cpp (the folder of llama-quantize, llama-imatrix and
llama-perplexity) and --gguf (the checkpoint, converted to F16 by llama.cpp's own script), the peers' files are made with
an importance matrix from the calibration text and measured on the same text in the same run. Context 512, the second
half of each chunk scored, as llama-perplexity does.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import tempfile

# THE list of what is compared: name and options of `upg compress`.
RECIPES = [(f"UPG --ratio {ratio}", ["--ratio", ratio]) for ratio in ("5", "6.4", "8", "10", "11.4", "14")] + [
    ("UPG --ratio 10, data-free", ["--ratio", "10", "--calibrate", "none"]),
    ("UPG trellis2", ["--codec", "trellis2"]),
    ("UPG trellis3", ["--codec", "trellis3"]),
    ("UPG trellis4", ["--codec", "trellis4"]),
    ("UPG int8", ["--codec", "int8"]),
    ("UPG MdCSR, 10% kept", ["--codec", "mdcsr", "--density", "0.1"]),
    ("UPG MdCSR with manifold, 10% kept", ["--codec", "mdcsr_manifold", "--density", "0.1"]),
    ("UPG MdCSR, 20% kept", ["--codec", "mdcsr", "--density", "0.2"]),
]
PEERS = ["IQ2_M", "Q2_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "Q3_K_S", "IQ4_XS", "Q4_K_S", "Q8_0"]
COLUMNS = ["recipe", "file bytes", "bits per weight", "perplexity ratio", "mean KL divergence", "99% KL divergence",
           "same top-1"]
PEER_FIELDS = {  # of llama-perplexity --kl-divergence
    "perplexity_ratio": r"Mean PPL\(Q\)/PPL\(base\)\s*:\s*([-\d.]+)",
    "mean_kld": r"Mean\s+KLD:\s*([-\d.]+)",
    "p99_kld": r"99\.0%\s+KLD:\s*([-\d.]+)",
    "same_top1": r"Same top p:\s*([-\d.]+)",
}


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout + "\n" + done.stderr if "llama" in str(command[0]) else done.stdout


def parse_peer(output):
    """What llama-perplexity prints, as fields of a row."""
    fields = {}
    for name, pattern in PEER_FIELDS.items():
        found = re.search(pattern, output)
        if not found:
            raise SystemExit(f"llama-perplexity printed no {name}:\n{output[-2000:]}")
        fields[name] = float(found.group(1))
    fields["same_top1"] /= 100
    return fields


def table(rows):
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        lines.append(f"| {row['name']} | {row['file_bytes']:,} | {row['bits_per_weight']:.3f} | {row['perplexity_ratio']:.3f} "
                     f"| {row['mean_kld']:.4f} | {row['p99_kld']:.3f} | {100 * row['same_top1']:.1f}% |")
    return "\n".join(lines) + "\n"


def measure_upg(options, folder, name, recipe):
    target = folder / "model.upg"
    calibrate = ["--calibrate", options.calibration] if options.calibration and "--calibrate" not in recipe else []
    report = json.loads(run([options.upg, "compress", options.checkpoint, "-o", target, "--json", *recipe, *calibrate]))
    loss = json.loads(run([options.upg, "eval", target, "--text", options.text, "--reference", options.checkpoint,
                           "--chunks", options.chunks, "--json"]))
    row = {"name": name, "options": recipe, "compress_seconds": report["seconds"]}
    row.update({key: report[key] for key in ("weight_bytes", "file_bytes", "bits_per_weight", "ratio_fp32")})
    row.update({key: report[key] for key in ("predicted_loss", "measured_loss") if key in report})
    row.update({key: value for key, value in loss.items()
                if key.startswith(("perplexity", "mean", "p99", "same", "reference_"))})
    return row, report["parameters"]


def measure_peers(options, folder, parameters):
    tool = lambda name: pathlib.Path(options.llama_cpp) / name
    text = ["-f", options.text, "-c", "512", "--chunks", options.chunks, "--kl-divergence-base", folder / "base.kld"]
    run([tool("llama-perplexity"), "-m", options.gguf, *text])
    matrix = []
    if options.calibration:
        matrix = ["--imatrix", folder / "imatrix"]
        run([tool("llama-imatrix"), "-m", options.gguf, "-f", options.calibration, "-o", folder / "imatrix", "-c", "512",
             "--chunks", "128"])
    for kind in PEERS:
        target = folder / "peer.gguf"
        run([tool("llama-quantize"), *matrix, options.gguf, target, kind])
        row = {"name": f"llama.cpp {kind}", "file_bytes": target.stat().st_size}
        row["bits_per_weight"] = 8 * row["file_bytes"] / parameters  # metadata and vocabulary counted, a few hundred KB
        row.update(parse_peer(run([tool("llama-perplexity"), "-m", target, *text, "--kl-divergence"])))
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text")
    parser.add_argument("--chunks", default="100")
    parser.add_argument("--calibration", help="text to calibrate on, for UPG and peers; default: what UPG brings; peers none")
    parser.add_argument("--llama-cpp", help="folder of llama.cpp's programs")
    parser.add_argument("--gguf", help="the checkpoint as F16 GGUF")
    parser.add_argument("--only", default="", help="regular expression: recipes and peers whose names match")
    parser.add_argument("--upg", default="build/release/upg")
    parser.add_argument("--out", default="bench/results/quality.json")
    options = parser.parse_args()
    out = pathlib.Path(options.out)

    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "checkpoint": os.path.basename(os.path.normpath(options.checkpoint)),
        "text": os.path.basename(options.text),
        "calibration": os.path.basename(options.calibration) if options.calibration else "default",
        "protocol": f"context 512, second half scored, {options.chunks} chunks",
        "commands": ["upg compress CHECKPOINT -o OUT OPTIONS", "upg eval OUT --text TEXT --reference CHECKPOINT --chunks N"],
        "rows": [],
    }

    def add(row):
        result["rows"].append(row)
        print(table([row]).splitlines()[2], flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(table(sorted(result["rows"], key=lambda r: r["file_bytes"])), encoding="utf-8")

    print("\n".join(table([]).splitlines()))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        parameters = None
        for recipe, arguments in RECIPES:
            if re.search(options.only, recipe):
                row, parameters = measure_upg(options, folder, recipe, arguments)
                add(row)
        if options.llama_cpp and options.gguf:
            if parameters is None:
                parameters = json.loads(run([options.upg, "inspect", options.checkpoint, "--json"]))["parameters"]
            version = run([pathlib.Path(options.llama_cpp) / "llama-perplexity", "--version"])
            result["llama_cpp"] = re.search(r"version: .*", version).group(0)
            PEERS[:] = [kind for kind in PEERS if re.search(options.only, f"llama.cpp {kind}")]
            for row in measure_peers(options, folder, parameters):
                add(row)


if __name__ == "__main__":
    main()
