#!/usr/bin/env python3
"""Independent NumPy readings of the codecs, written from the format's text alone: checks and writes golden files.

  golden_decoder.py check FILE...     decode each codec tensor set and compare bit for bit with `expected`
  golden_decoder.py write-mdcsr DIR   write mdcsr_v1.safetensors and mdcsr_manifold_v1.safetensors
  golden_decoder.py write-trellis DIR write trellis2_v2.safetensors, trellis3_... and trellis4_...
  golden_decoder.py write-residual DIR the same with residuals: trellis2_residual_v2.safetensors, ...
  golden_decoder.py write-int8 DIR    write int8_v1.safetensors

A golden file holds weight.<part> tensors and `expected`, F32 [rows, cols]. Committed files are added to, never rewritten.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np

DTYPES = {
    "I8": np.int8,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "F16": np.float16,
    "F32": np.float32,
    "BF16": np.uint16,  # NumPy has no bfloat16: its bits
}


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


def write_safetensors(path, tensors, metadata, bfloat16=()):
    # Widest elements first, so that all are aligned when the body is.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, offset = {"__metadata__": metadata}, 0
    for name in order:
        array = tensors[name]
        dtype = "BF16" if name in bfloat16 else next(key for key, value in DTYPES.items() if array.dtype == value)
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


def bfloat16_to_float(bits):
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def trellis_tables(codebook):
    """T[0] and T[1], int64 [2, 2^k], from the prime indices of T[0]."""
    p = primes(10_000)
    scaled = 127.0 * (2.0 * p[codebook] / p[-1] - 1.0)
    stored = (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)).astype(np.int64)  # halves away from zero
    return np.stack([stored, -stored[::-1]])


def decode_trellis(parts, rows, cols):
    words = parts["codes"]
    panels, blocks, k, _ = words.shape
    nibbles = (words[..., None] >> (4 * np.arange(8, dtype=np.uint32))) & np.uint32(15)  # [panels, blocks, k, 16, 8]
    if k == 2:
        planes = [nibbles[:, :, 0] & 3, nibbles[:, :, 0] >> 2, nibbles[:, :, 1] & 3, nibbles[:, :, 1] >> 2]
    elif k == 3:
        planes = [nibbles[:, :, w] & 7 for w in range(3)] + [sum((nibbles[:, :, w] >> 3) << w for w in range(3))]
    else:
        planes = [nibbles[:, :, w] for w in range(4)]
    chain = np.stack(planes, axis=-1).reshape(panels, blocks, 16, 32).astype(np.int64)  # position 4 n + p
    back = [np.roll(chain, places, axis=-1) & 1 for places in (1, 2, 3)]
    levels = trellis_tables(parts["codebook"])[back[1], chain ^ back[0] ^ back[2]]
    scales = parts["block_scales"]
    index = np.concatenate([scales & 15, scales >> 4], axis=-1)  # [panels, blocks, 16]
    steps = parts["steps"].astype(np.float32)[index]
    row_scales = np.zeros(panels * 16, dtype=np.float32)
    row_scales[:rows] = bfloat16_to_float(parts["row_scales"]) * np.float32(2.0**-15)
    scale = row_scales.reshape(panels, 1, 16) * steps
    weights = levels.astype(np.float32) * scale[..., None]  # [panels, blocks, 16, chain position]
    assert weights.dtype == np.float32
    n, p = np.divmod(np.arange(32), 4)
    dense = np.zeros((panels, 16, blocks, 32), dtype=np.float32)
    dense[..., 8 * p + 4 * (n & 1) + (n >> 1)] = weights.transpose(0, 2, 1, 3)
    dense = dense.reshape(panels * 16, blocks * 32)[:rows, :cols]
    if "residual_values" in parts:
        residual = {name.removeprefix("residual_"): part for name, part in parts.items() if name.startswith("residual_")}
        entry = has_entry(residual, rows, cols)
        dense[entry] += decode_mdcsr(residual, rows, cols)[entry]  # float32 + float32
    return dense


def has_entry(parts, rows, cols):
    mask = np.zeros((rows, cols), dtype=bool)
    for row in range(rows):
        begin, end = int(parts["row_pointers"][row]), int(parts["row_pointers"][row + 1])
        columns = np.cumsum(parts["delta_indices"][begin:end].astype(np.int64))
        mask[row, columns[parts["values"][begin:end] != -128]] = True
    return mask


def decode_int8(parts, rows, cols):
    weights = parts["scales"][:, None] * parts["values"].astype(np.float32)
    assert weights.dtype == np.float32 and weights.shape == (rows, cols)
    return weights


DECODERS = {
    "mdcsr": decode_mdcsr,
    "mdcsr_manifold": decode_mdcsr,
    "trellis2": decode_trellis,
    "trellis3": decode_trellis,
    "trellis4": decode_trellis,
    "int8": decode_int8,
}


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


# Columns of a block in chain order, as docs/format.md lists them.
CHAIN = [0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29, 2, 10, 18, 26, 6, 14, 22, 30, 3, 11, 19, 27, 7, 15, 23, 31]


def pack_trellis_lane(codes, k):
    """32 codes in chain order -> k words."""
    words = [0] * k
    for position, code in enumerate(codes):
        nibble, plane = position // 4, position % 4
        if k == 4:
            words[plane] |= code << (4 * nibble)
        elif k == 2:
            words[plane // 2] |= code << (4 * nibble + 2 * (plane % 2))
        elif plane < 3:
            words[plane] |= code << (4 * nibble)
        else:
            for bit in range(3):
                words[bit] |= (code >> bit & 1) << (4 * nibble + 3)
    return words


def random_trellis(k, rows, cols, random):
    """Random codes, weight by weight: `expected` is computed from them, not from the packed words."""
    panels, blocks = -(-rows // 16), -(-cols // 32)
    parts = {
        "codes": np.zeros((panels, blocks, k, 16), dtype=np.uint32),
        "block_scales": np.zeros((panels, blocks, 8), dtype=np.uint8),
        "row_scales": np.zeros(rows, dtype=np.uint16),
        "steps": random.integers(0, 256, 16).astype(np.uint8),
        "codebook": random.integers(0, 10_000, 2**k).astype(np.uint16),
    }
    parts["steps"][[3, 15]] = [0, 255]
    parts["codebook"][[0, 2**k - 1]] = [0, 9999]
    exponents = random.integers(-20, 4, rows)
    exponents[[1, 2]] = [-100, 99]
    parts["row_scales"][:] = ((exponents + 127) << 7) | random.integers(0, 128, rows)
    parts["row_scales"][[3, 4]] = [0, 0x7180]  # nothing, and 2^100
    table = trellis_tables(parts["codebook"])
    expected = np.zeros((rows, cols), dtype=np.float32)
    for panel in range(panels):
        for block in range(blocks):
            for lane in range(16):
                codes = [int(code) for code in random.integers(0, 2**k, 32)]
                step = int(random.integers(0, 16))
                parts["codes"][panel, block, :, lane] = pack_trellis_lane(codes, k)
                parts["block_scales"][panel, block, lane % 8] |= step << (4 * (lane // 8))
                row = 16 * panel + lane
                if row >= rows:
                    continue
                scale = bfloat16_to_float(parts["row_scales"][row : row + 1])[0]
                for position, column in enumerate(CHAIN):
                    if 32 * block + column >= cols:
                        continue
                    level = table[codes[position - 2] & 1, codes[position] ^ ((codes[position - 1] ^ codes[position - 3]) & 1)]
                    # Exact in float64; the sign of a zero as in a product of floats.
                    weight = np.float64(level) * np.float64(parts["steps"][step]) * np.float64(scale) * 2.0**-15
                    expected[row, 32 * block + column] = weight
    return parts, expected


def write_trellis(folder):
    random = np.random.default_rng(20240608)
    for k in (2, 3, 4):
        parts, expected = random_trellis(k, 37, 75, random)
        tensors = {f"weight.{suffix}": array for suffix, array in parts.items()}
        tensors["expected"] = expected
        metadata = {"codec": f"trellis{k}", "version": "2"}
        write_safetensors(pathlib.Path(folder) / f"trellis{k}_v2.safetensors", tensors, metadata, {"weight.row_scales"})


def write_residual(folder):
    random = np.random.default_rng(20240609)
    rows, cols = 19, 640
    for k in (2, 3, 4):
        parts, _ = random_trellis(k, rows, cols, random)
        parts["steps"][5] = 0  # zeros of both signs, also below entries
        base = decode_trellis(parts, rows, cols)
        present = random.random((rows, cols)) < 0.02
        present[7] = False
        present[8] = False
        present[8, [0, 300, 639]] = True  # bridges
        values = np.where(random.random((rows, cols)) < 0.1, 0, random.integers(-127, 128, (rows, cols)))
        scales = (random.standard_normal(rows) * 0.01).astype(np.float32)
        scales[[2, 3]] = [1e30, 1e-38]
        stored, deltas, pointers = [], [], [0]
        expected = base.copy()
        for row in range(rows):
            column = 0
            for target in np.flatnonzero(present[row]):
                while target - column > 255:
                    stored.append(-128)
                    deltas.append(255)
                    column += 255
                stored.append(int(values[row, target]))
                deltas.append(int(target - column))
                column = target
                expected[row, target] = base[row, target] + scales[row] * np.float32(values[row, target])
            pointers.append(len(stored))
        assert expected.dtype == np.float32
        parts["residual_values"] = np.array(stored, dtype=np.int8)
        parts["residual_delta_indices"] = np.array(deltas, dtype=np.uint8)
        parts["residual_row_pointers"] = np.array(pointers, dtype=np.uint32)
        parts["residual_scales"] = scales
        tensors = {f"weight.{suffix}": array for suffix, array in parts.items()}
        tensors["expected"] = expected
        metadata = {"codec": f"trellis{k}", "version": "2"}
        path = pathlib.Path(folder) / f"trellis{k}_residual_v2.safetensors"
        write_safetensors(path, tensors, metadata, {"weight.row_scales"})


def write_int8(folder):
    random = np.random.default_rng(20240610)
    rows, cols = 19, 45
    values = random.integers(-127, 128, (rows, cols)).astype(np.int8)
    values[2] = 0
    values[3, :2] = [-127, 127]
    scales = (random.standard_normal(rows) * 0.01).astype(np.float32)
    scales[[0, 1, 3, 4]] = [0, 2.0**-149, 2.0**121 - 2.0**97, -1e-40]
    expected = np.array([[np.float32(s) * np.float32(v) for v in row] for s, row in zip(scales, values)], dtype=np.float32)
    tensors = {"weight.values": values, "weight.scales": scales, "expected": expected}
    write_safetensors(pathlib.Path(folder) / "int8_v1.safetensors", tensors, {"codec": "int8", "version": "1"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("files", nargs="+")
    writers = {"write-mdcsr": write_mdcsr, "write-trellis": write_trellis, "write-residual": write_residual,
               "write-int8": write_int8}
    for command in writers:
        commands.add_parser(command).add_argument("folder")
    options = parser.parse_args()
    if options.command in writers:
        writers[options.command](options.folder)
        return
    failed = [path for path in options.files if not check(path)]
    for path in failed:
        print(f"{path}: decoded values differ from `expected`")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
