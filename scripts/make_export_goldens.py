#!/usr/bin/env python3
"""Makes tests/data/export/gguf_q8_0.safetensors: blocks of numbers and what the gguf package makes of them.

  make_export_goldens.py      needs gguf, numpy and safetensors from PyPI

"values" F32 [n, 32] holds rows of every magnitude that F16 steps have, halves that round either way, and zeros;
"blocks" U8 [n, 34] the blocks of gguf.quants. Goldens are added, never rewritten: delete the file to make it anew.
"""
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/export/gguf_q8_0.safetensors"


def main():
    if OUT.exists():
        sys.exit(f"{OUT} is there already")
    random = np.random.default_rng(8)
    rows = [random.standard_normal(32) * 2.0**exponent for exponent in range(-26, 20, 2)]
    rows += [np.round(random.standard_normal(32) * 40) + 0.5 for _ in range(8)]  # halves, where the largest is 127
    for row in rows[-8:]:
        row[0] = 127
    rows += [np.zeros(32), np.full(32, -0.0), np.full(32, -3.25), np.eye(1, 32)[0] * 1e-30]
    values = np.stack(rows).astype(np.float32)
    blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file({"values": values, "blocks": blocks.reshape(len(rows), 34)}, OUT)


if __name__ == "__main__":
    main()
