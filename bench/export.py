#!/usr/bin/env python3
"""Perplexities of exported models in llama.cpp against `upg eval` on the same text and windows.

  bench/export.py MODEL TEXT --llama-cpp BIN                 F16 and Q8_0, 100 chunks of 512 tokens
  bench/export.py MODEL TEXT --llama-cpp BIN --types f16 --chunks 20 --out out.json

MODEL is a UPG file or a checkpoint directory; BIN the folder with llama-perplexity. Compressed weights are measured with
float activations, as the exported file has them.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stderr[-2000:]}")
    return done


def perplexity_there(program, file, text, context, chunks):
    done = run([program, "-m", file, "-f", text, "-c", context, "--chunks", chunks])
    found = re.search(r"Final estimate: PPL = ([0-9.]+) \+/- ([0-9.]+)", done.stdout + done.stderr)
    if not found:
        sys.exit(f"{program} printed no perplexity:\n{(done.stdout + done.stderr)[-2000:]}")
    return float(found[1]), float(found[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--llama-cpp", required=True, type=pathlib.Path, metavar="BIN")
    parser.add_argument("--types", default="f16,q8_0")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--upg", type=pathlib.Path, default=ROOT / "build/release/upg")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    ours = json.loads(run([args.upg, "eval", args.model, "--text", args.text, "--context", args.context, "--chunks",
                           args.chunks, "--float-activations", "--json"]).stdout)
    rows = []
    with tempfile.TemporaryDirectory(prefix="upg_export_") as folder:
        for kind in args.types.split(","):
            file = pathlib.Path(folder) / f"{kind}.gguf"
            report = json.loads(run([args.upg, "export", args.model, "--to", "gguf", "--type", kind, "-o", file,
                                     "--json"]).stdout)
            there, error = perplexity_there(args.llama_cpp / "llama-perplexity", file, args.text, args.context,
                                            args.chunks)
            rows.append({"type": kind, "file_bytes": report["file_bytes"], "llama_cpp": there, "llama_cpp_se": error,
                         "upg": ours["perplexity"], "ratio": there / ours["perplexity"]})
            print(f"{kind:<6} llama.cpp {there:.4f}, upg {ours['perplexity']:.4f}, ratio {rows[-1]['ratio']:.6f}", flush=True)
            file.unlink()
    if args.out:
        args.out.write_text(json.dumps({"model": args.model, "context": args.context, "chunks": args.chunks, "rows": rows},
                                       indent=1) + "\n")


if __name__ == "__main__":
    main()
