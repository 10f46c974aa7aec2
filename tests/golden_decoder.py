#!/usr/bin/env python3
"""Independent NumPy readings of the codecs, written from the format's text alone: checks and writes golden files.

  golden_decoder.py check FILE...     decode each codec tensor set and compare bit for bit with `expected`
  golden_decoder.py write-mdcsr DIR   write mdcsr_v1.safetensors and mdcsr_manifold_v1.safetensors

A golden file holds weight.<part> tensors and `expected`, F32 [rows, cols]. Committed files are added to, never rewritten.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np

DTYPES = {"I8": np.int8, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "F16": np.float16, "F32": np.float32}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    body = data[8 + size :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(body[begin:end], dtype=np.dtype(DTYPES[entry["dtype"]]).newbyteorder("<"))
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata):
    # Widest elements first, so that all are aligned when the body is.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, offset = {"__metadata__": metadata}, 0
    for name in order:
        array = tensors[name]
        dtype = next(key for key, value in DTYPES.items() if array.dtype == value)
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in order)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def primes(count):
    found = []
    candidate = 2
    while len(found) < count:
        if all(candidate % p for p in found[: int(candidate**0.5) + 1] if p * p <= candidate):
            found.append(candidate)
        candidate += 1
    return np.array(found, dtype=np.float64)


def half_levels():
    """m(i) / 2 in float32, from m(i) = 2 P[i] / P[9999] - 1 in float64."""
    p = primes(10_000)
    return ((2.0 * p / p[-1] - 1.0) / 2.0).astype(np.float32)


def decode_mdcsr(parts, rows, cols):
    values, deltas, pointers = parts["values"], parts["delta_indices"].astype(np.int64), parts["row_pointers"]
    levels = half_levels() if "prime_indices" in parts else None
    dense = np.zeros((rows, cols), dtype=np.float32)
    for row in range(rows):
        begin, end = int(pointers[row]), int(pointers[row + 1])
        columns = np.cumsum(deltas[begin:end])
        v = values[begin:end].astype(np.float32)
        if levels is not None:
            v = v + levels[parts["prime_indices"][begin:end]]  # float32 + float32
        weights = parts["scales"][row] * v  # float32 * float32
        assert weights.dtype == np.float32
        real = values[begin:end] != -128
        dense[row, columns[real]] = weights[real]
    return dense


DECODERS = {"mdcsr": decode_mdcsr, "mdcsr_manifold": decode_mdcsr}


def check(path):
    tensors, metadata = read_safetensors(path)
    expected = tensors["expected"]
    parts = {name.removeprefix("weight."): array for name, array in tensors.items() if name.startswith("weight.")}
    decoded = DECODERS[metadata["codec"]](parts, *expected.shape)
    return np.array_equal(decoded.view(np.uint32), expected.view(np.uint32))


def encode_mdcsr(dense, manifold):
    """Stores every nonzero of `dense`: slow and plain. `expected` comes from decode_mdcsr, not from here."""
    values, deltas, prime_indices, pointers, scales = [], [], [], [0], []
    levels = half_levels().astype(np.float64)
    for row in dense.astype(np.float64):
        scale = np.float32(np.abs(row).max() / 127)
        scales.append(scale)
        column = 0
        for target_column in np.flatnonzero(row):
            while target_column - column > 255:
                values.append(-128)
                deltas.append(255)
                prime_indices.append(0)
                column += 255
            target = row[target_column] / np.float64(scale)
            value = int(np.clip(np.round(target), -127, 127))
            values.append(value)
            deltas.append(int(target_column - column))
            prime_indices.append(int(np.abs(levels - (target - value)).argmin()))
            column = target_column
        pointers.append(len(values))
    parts = {
        "values": np.array(values, dtype=np.int8),
        "delta_indices": np.array(deltas, dtype=np.uint8),
        "row_pointers": np.array(pointers, dtype=np.uint32),
        "scales": np.array(scales, dtype=np.float32),
    }
    if manifold:
        parts["prime_indices"] = np.array(prime_indices, dtype=np.uint16)
    return parts


def write_mdcsr(folder):
    random = np.random.default_rng(20240607)
    rows, cols = 12, 1301
    dense = random.standard_normal((rows, cols)).astype(np.float32) * (random.random((rows, cols)) < 0.06)
    dense[3] = 0  # an empty row
    dense[4] = 0
    dense[4, [0, 5, 12, 15]] = [1, -2, 3, -4]
    dense[5] = 0
    dense[5, [255, 511, 1021, 1300]] = [0.5, -0.25, 1e-3, 127]  # gaps 255, 256, 510
    dense[6] = 0
    dense[6, [511, 1300]] = [-1, 1]  # gaps 511, 789
    dense[7] *= np.float32(1e-30)
    dense[8] *= np.float32(1e30)
    dense[9] = random.standard_normal(cols)  # a full row
    for name, manifold in (("mdcsr", False), ("mdcsr_manifold", True)):
        parts = encode_mdcsr(dense, manifold)
        tensors = {f"weight.{suffix}": array for suffix, array in parts.items()}
        tensors["expected"] = decode_mdcsr(parts, rows, cols)
        write_safetensors(pathlib.Path(folder) / f"{name}_v1.safetensors", tensors, {"codec": name, "version": "1"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("files", nargs="+")
    commands.add_parser("write-mdcsr").add_argument("folder")
    options = parser.parse_args()
    if options.command == "write-mdcsr":
        write_mdcsr(options.folder)
        return
    failed = [path for path in options.files if not check(path)]
    for path in failed:
        print(f"{path}: decoded values differ from `expected`")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
