#!/usr/bin/env python3
"""Compress a checkpoint in several ways, measure each against the original, and compare with llama.cpp's quantisations.

  bench/quality.py CHECKPOINT TEXT [--out bench/results/quality.json]
  bench/quality.py CHECKPOINT TEXT --llama-cpp BIN --gguf MODEL.gguf [--calibration TEXT2]
  bench/quality.py CHECKPOINT TEXT --only "ratio 10$" --keep --task lambada=lambada_test.jsonl

Writes FILE.json and the same as a table in FILE.md, after each row. With --llama-cpp (the folder of llama-quantize,
llama-imatrix and llama-perplexity) and --gguf (the checkpoint, converted to F16 by llama.cpp's own script), the peers'
files are made with an importance matrix from the calibration text that UPG uses, all of it (UPG takes a sample), and
measured on the same text in the same run. Context 512, the second half of each chunk scored, as llama-perplexity does.
Tasks are scored for the original and UPG's files, not for the peers.
"""
import argparse
import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import shlex
import struct
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
COLUMNS = ["recipe", "file bytes", "weight bytes", "bits per weight", "perplexity ratio", "mean KL divergence",
           "99% KL divergence", "same top-1"]
GGUF_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by type; 8 string, 9 array
GGUF_ALIGNMENT = 32
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


def run(command, errors_too=False):
    """What the command prints; with errors_too, what it prints as errors as well."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, errors="replace",
                          stderr=subprocess.STDOUT if errors_too else subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(map(str, command))}\nfailed with {done.returncode}:\n"
                         f"{(done.stdout if errors_too else done.stderr)[-2000:]}")
    return done.stdout


def shown(command):
    """The command as it is recorded: names of files without their folders."""
    parts = [str(part) for part in command]
    return shlex.join(os.path.basename(os.path.normpath(part)) if "/" in part else part for part in parts)


def gguf_weight_bytes(path):
    """Bytes of a GGUF file's tensors: all behind the header, alignment (31 bytes a tensor at most) included."""
    with open(path, "rb") as file:
        def number(code):
            return struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]

        def skip_value(kind):
            if kind == 8:
                file.seek(number("Q"), os.SEEK_CUR)
            elif kind == 9:
                element, count = number("I"), number("Q")
                if element in GGUF_VALUE_BYTES:
                    file.seek(count * GGUF_VALUE_BYTES[element], os.SEEK_CUR)
                else:
                    for _ in range(count):
                        skip_value(element)
            else:
                file.seek(GGUF_VALUE_BYTES[kind], os.SEEK_CUR)

        if file.read(4) != b"GGUF" or number("I") not in (2, 3):
            raise SystemExit(f"{path}: not a GGUF file of version 2 or 3")
        tensors, values = number("Q"), number("Q")
        for _ in range(values):
            skip_value(8)  # its name
            skip_value(number("I"))
        for _ in range(tensors):
            skip_value(8)
            file.seek(8 * number("I") + 12, os.SEEK_CUR)  # shape, type, offset
        data = -(-file.tell() // GGUF_ALIGNMENT) * GGUF_ALIGNMENT
    return os.path.getsize(path) - data


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
        lines.append(f"| {row['name']} | {row['file_bytes']:,} | {row['weight_bytes']:,} "
                     f"| {row['bits_per_weight']:.3f} | {row['perplexity_ratio']:.3f} | {row['mean_kld']:.4f} "
                     f"| {row['p99_kld']:.3f} | {100 * row['same_top1']:.1f}% |")
    return "\n".join(lines) + "\n"


def task_table(original, rows):
    """Accuracies, with their standard errors; empty when no task was scored."""
    rows = [row for row in [{"name": "original", "tasks": original}, *rows] if row.get("tasks")]
    tasks = list(dict.fromkeys(task for row in rows for task in row["tasks"]))
    if not tasks:
        return ""
    lines = ["| " + " | ".join(["recipe", *tasks]) + " |", "|" + "---|" * (1 + len(tasks))]
    for row in rows:
        scores = [row["tasks"].get(task) for task in tasks]
        cells = [f"{100 * s['accuracy']:.1f}% ± {100 * s['accuracy_se']:.1f}" if s else "" for s in scores]
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return "\n" + "\n".join(lines) + "\n"


def score_tasks(options, model):
    scores = {}
    for task, data in (entry.split("=", 1) for entry in options.task):
        score = json.loads(run([options.upg, "eval", model, "--task", task, "--data", data, "--items", options.items,
                                "--json"]))
        scores[task] = {key: score[key] for key in ("items", "accuracy", "accuracy_se")}
    return scores


def measure_upg(options, folder, name, recipe):
    target = folder / "model.upg"
    calibrate = [] if "--calibrate" in recipe else ["--calibrate", options.calibration]
    command = [options.upg, "compress", options.checkpoint, "-o", target, "--json", *recipe, *calibrate]
    report = json.loads(run(command))
    loss = json.loads(run([options.upg, "eval", target, "--text", options.text, "--reference", options.checkpoint,
                           "--chunks", options.chunks, "--json"]))
    row = {"name": name, "command": shown(command), "compress_seconds": report["seconds"]}
    row.update({key: report[key] for key in ("weight_bytes", "file_bytes", "bits_per_weight", "ratio_fp32")})
    row.update({key: report[key] for key in ("predicted_loss", "measured_loss") if key in report})
    row.update({key: value for key, value in loss.items()
                if key.startswith(("perplexity", "mean", "p99", "same", "reference_"))})
    if options.task:
        row["tasks"] = score_tasks(options, target)
    return row


def measure_peers(options, folder, kinds, parameters):
    tools = pathlib.Path(options.llama_cpp)
    text = ["-f", options.text, "-c", "512", "--chunks", options.chunks, "--kl-divergence-base", folder / "base.kld"]
    base = run([tools / "llama-perplexity", "-m", options.gguf, *text], errors_too=True)
    perplexity = re.search(r"Final estimate: PPL = ([\d.]+)", base)
    run([tools / "llama-imatrix", "-m", options.gguf, "-f", options.calibration, "-o", folder / "imatrix", "-c", "512"])
    for kind in kinds:
        target = folder / "peer.gguf"
        command = [tools / "llama-quantize", "--imatrix", folder / "imatrix", options.gguf, target, kind]
        run(command)
        row = {"name": f"llama.cpp {kind}", "command": shown(command), "file_bytes": target.stat().st_size,
               "weight_bytes": gguf_weight_bytes(target)}
        row["bits_per_weight"] = 8 * row["weight_bytes"] / parameters
        if perplexity:
            row["reference_perplexity"] = float(perplexity.group(1))
        measured = run([tools / "llama-perplexity", "-m", target, *text, "--kl-divergence"], errors_too=True)
        row.update(parse_peer(measured))
        yield row


def description(options):
    """What a result says of itself besides its rows."""
    calibration = pathlib.Path(options.calibration).read_bytes()
    result = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "checkpoint": os.path.basename(os.path.normpath(options.checkpoint)),
        "text": os.path.basename(options.text),
        "calibration": {"name": os.path.basename(options.calibration), "bytes": len(calibration),
                        "sha256": hashlib.sha256(calibration).hexdigest()},
        "protocol": f"context 512, second half scored, {options.chunks} chunks",
        "commands": ["upg eval OUT --text TEXT --reference CHECKPOINT --chunks N",
                     "llama-imatrix -m GGUF -f CALIBRATION -o IMATRIX -c 512",
                     "llama-perplexity -m OUT -f TEXT -c 512 --chunks N --kl-divergence-base BASE --kl-divergence"],
        "versions": {"upg": run([options.upg, "--version"]).strip()},
        "rows": [],
    }
    if options.llama_cpp:
        version = run([pathlib.Path(options.llama_cpp) / "llama-perplexity", "--version"], errors_too=True)
        result["versions"]["llama.cpp"] = re.search(r"version: (.*)", version).group(1)
    return result


def kept_rows(out, result):
    """The rows of an earlier run of the same measurement."""
    before = json.loads(out.read_text(encoding="utf-8"))
    for key in ("checkpoint", "text", "calibration", "protocol"):
        if before.get(key) != result[key]:
            raise SystemExit(f"{out}: --keep, but its {key} is {before.get(key)}, not {result[key]}; try another --out")
    return before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text")
    parser.add_argument("--chunks", default="100")
    parser.add_argument("--calibration", default=str(ROOT / "data/calibration.txt"),
                        help="text to calibrate on, for UPG and peers; default: what UPG brings")
    parser.add_argument("--llama-cpp", help="folder of llama.cpp's programs")
    parser.add_argument("--gguf", help="the checkpoint as F16 GGUF")
    parser.add_argument("--only", default="", help="regular expression: recipes and peers whose names match")
    parser.add_argument("--keep", action="store_true", help="keep the rows of FILE that are not made again")
    parser.add_argument("--task", action="append", default=[], metavar="TASK=FILE",
                        help="hellaswag or lambada, scored too")
    parser.add_argument("--items", default="400", help="records of a task; 0: all")
    parser.add_argument("--upg", default="build/release/upg")
    parser.add_argument("--out", default="bench/results/quality.json", metavar="FILE")
    options = parser.parse_args()
    if bool(options.llama_cpp) != bool(options.gguf):
        parser.error("--llama-cpp and --gguf need each other")
    if not all("=" in entry for entry in options.task):
        parser.error("--task is TASK=FILE")
    recipes = [recipe for recipe in RECIPES if re.search(options.only, recipe[0])]
    kinds = [kind for kind in PEERS if options.llama_cpp and re.search(options.only, f"llama.cpp {kind}")]
    out = pathlib.Path(options.out)
    result = description(options)
    if options.keep and out.exists():
        before = kept_rows(out, result)
        result["rows"] = before["rows"]
        result["versions"] = {**before["versions"], **result["versions"]}
        if "original_tasks" in before:
            result["original_tasks"] = before["original_tasks"]

    def save():
        rows = sorted(result["rows"], key=lambda row: row["weight_bytes"])
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**result, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        tables = table(rows) + task_table(result.get("original_tasks"), rows)
        out.with_suffix(".md").write_text(tables, encoding="utf-8")

    def add(row):
        row["date"] = datetime.date.today().isoformat()
        result["rows"] = [other for other in result["rows"] if other["name"] != row["name"]] + [row]
        print(table([row]).splitlines()[2], flush=True)
        save()

    print(table([]), end="", flush=True)
    if options.task:
        result["original_tasks"] = {**result.get("original_tasks", {}), **score_tasks(options, options.checkpoint)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for recipe, arguments in recipes:
            add(measure_upg(options, folder, recipe, arguments))
        if kinds:
            parameters = json.loads(run([options.upg, "inspect", options.checkpoint, "--json"]))["parameters"]
            for row in measure_peers(options, folder, kinds, parameters):
                add(row)
    print(task_table(result.get("original_tasks"), result["rows"]), end="")


if __name__ == "__main__":
    main()
