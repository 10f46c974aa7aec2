#!/usr/bin/env python3
"""Writes UPG 1.0 files, as the prototype pickled them: test data for `upg convert`.

  make_legacy_models.py MODEL.upg OUT --form FORM     the weights of a 2.0 file (MdCSR codecs) in a form of 1.0
  make_legacy_models.py MODEL.upg --fixtures DIR      every form that the installed packages can write
  make_legacy_models.py tiny --fixtures DIR           the same of a few made-up weights: seeds for fuzz/pickle_fuzz.cc

Needs NumPy; forms with SciPy or torch in their name need those. docs/migration.md describes the layout.
The committed ones (tests/data/legacy) come from a model of tests/data/models:

  upg compress tests/data/models/one_kv_head_bf16 -o tests/data/legacy/model.upg --codec mdcsr_manifold --density 0.1 \\
      --calibrate none
  scripts/make_legacy_models.py tests/data/legacy/model.upg --fixtures tests/data/legacy
"""
import argparse
import importlib.util
import io
import json
import pathlib
import pickle
import struct
import sys
import zipfile

import numpy as np

DTYPES = {"I8": np.int8, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "F32": np.float32, "F16": np.float16}


class UPGModel:  # the prototype's classes: bags of attributes
    pass


class UPGLayer:
    pass


def read_safetensors(path):
    """(metadata, name -> array); BF16 becomes float32, which holds it exactly."""
    data = pathlib.Path(path).read_bytes()
    size, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    arrays = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in info["data_offsets"])
        raw = data[begin:end]
        if info["dtype"] == "BF16":
            array = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            array = np.frombuffer(raw, DTYPES[info["dtype"]])
        arrays[name] = array.reshape(info["shape"]).copy()
    return header["__metadata__"], arrays


def plain_csr(arrays, name, shape):
    """An MdCSR matrix as 1.0 has it: plain columns, no bridges."""
    part = {suffix: arrays.get(f"{name}.{suffix}") for suffix in
            ("values", "delta_indices", "row_pointers", "scales", "prime_indices")}
    pointers = part["row_pointers"].astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(part["delta_indices"].astype(np.int64))])
    columns = sums[1:] - np.repeat(sums[pointers[:-1]], np.diff(pointers))
    kept = part["values"] != -128
    layer = {
        "shape": tuple(shape),
        "values": part["values"][kept],
        "indices": columns[kept].astype(np.int32),
        "indptr": np.concatenate([[0], np.cumsum(kept)])[pointers].astype(np.int32),
        "scales": part["scales"],
    }
    if part["prime_indices"] is not None:
        layer["prime_indices"] = part["prime_indices"][kept]
    return layer


def legacy(path):
    metadata, arrays = read_safetensors(path)
    layers = {}
    for name, info in json.loads(metadata["upg.tensors"]).items():
        layers[name] = plain_csr(arrays, name, info["shape"]) if f"{name}.values" in arrays else arrays[name]
    model = {"config": json.loads(metadata["upg.config"])}
    for key in ("generation_config", "tokenizer_config"):
        if f"upg.{key}" in metadata:
            model[key] = json.loads(metadata[f"upg.{key}"])
    if "upg.chat_template" in metadata:
        model["chat_template"] = metadata["upg.chat_template"]
    if "upg.tokenizer" in arrays:
        model["tokenizer"] = arrays["upg.tokenizer"].tobytes().decode()
    return {"version": "1.0", "model": model, "layers": layers}


def tiny():
    dense = np.array([[0, 3, 0, -7], [0, 0, 0, 0], [127, 0, 0, 1]], np.int8)
    rows, columns = np.nonzero(dense)
    layer = {"shape": dense.shape, "values": dense[rows, columns], "indices": columns.astype(np.int32),
             "indptr": np.searchsorted(rows, np.arange(4)).astype(np.int32), "scales": np.array([0.5, 0, 2], np.float32)}
    layers = {"a.weight": layer, "b.weight": {**layer, "prime_indices": np.array([1, 9999, 0, 5], np.uint16)},
              "norm.weight": np.array([1, 2.5], np.float32)}
    return {"version": "1.0", "model": {"config": {"architectures": ["Phi3ForCausalLM"], "x": [1, 0.5, None]}}, "layers": layers}


def mapped(model, change):
    """The same with every layer changed."""
    return {**model, "layers": {name: change(layer) for name, layer in model["layers"].items()}}


def pickled(protocol):
    return lambda model: pickle.dumps(model, protocol)


def as_objects(protocol):
    def write(model):
        def bag(cls, fields):
            made = cls()
            made.__dict__.update(fields)
            return made
        layers = {name: bag(UPGLayer, layer) if isinstance(layer, dict) else layer for name, layer in model["layers"].items()}
        return pickle.dumps(bag(UPGModel, {**model, "layers": layers}), protocol)
    return write


def modules(model):
    """Modules' names, as without `.weight`."""
    return pickle.dumps({**model, "layers": {name.removesuffix(".weight"): layer for name, layer in
                                             model["layers"].items()}}, 4)


def odd_layouts(model):
    """Big-endian arrays, 64-bit indices, unsorted columns, and the first matrix dense in Fortran order."""
    def dense(layer):
        weights = np.zeros(layer["shape"], np.float32)
        rows = np.repeat(np.arange(layer["shape"][0]), np.diff(layer["indptr"]))
        values = layer["values"].astype(np.float32)
        if "prime_indices" in layer:
            sieve = np.ones(104730, bool)
            sieve[:2] = False
            for i in range(2, 324):
                sieve[i * i::i] &= not sieve[i]
            primes = np.flatnonzero(sieve)
            values = values + ((2 * primes / primes[9999] - 1) / 2)[layer["prime_indices"]].astype(np.float32)
        weights[rows, layer["indices"]] = layer["scales"][rows] * values
        return np.asfortranarray(weights.astype(">f4"))

    def turned(layer):
        if not isinstance(layer, dict):
            return layer.astype(">f8")
        order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(layer["indptr"], layer["indptr"][1:])] or [[]])
        turn = {key: layer[key][order.astype(int)] for key in ("values", "indices", "prime_indices") if key in layer}
        return {**layer, **turn, "indices": turn["indices"].astype(">i8"), "indptr": layer["indptr"].astype(">u8"),
                "scales": layer["scales"].astype(">f4"), "shape": [np.int64(size) for size in layer["shape"]]}

    layers = {name: turned(layer) for name, layer in model["layers"].items()}
    first = next(name for name, layer in model["layers"].items() if isinstance(layer, dict))
    layers[first] = dense(model["layers"][first])
    return pickle.dumps({**model, "layers": layers}, 2)


def zipped(model):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.pkl", pickle.dumps(model, 4))
    return out.getvalue()


def with_scipy(model):
    from scipy.sparse import csr_matrix

    def change(layer):
        if not isinstance(layer, dict):
            return layer
        rest = {key: layer[key] for key in ("scales", "prime_indices") if key in layer}
        return {"csr": csr_matrix((layer["values"], layer["indices"], layer["indptr"]), shape=layer["shape"]), **rest}
    return pickle.dumps(mapped(model, change), 4)


def tensors(model, csr=False):
    import torch

    def change(layer):
        if not isinstance(layer, dict):
            return torch.nn.Parameter(torch.from_numpy(layer).to(torch.bfloat16))
        made = {key: value if key == "shape" else torch.from_numpy(value) for key, value in layer.items()}
        made["shape"] = torch.Size(layer["shape"])
        if csr:
            made["csr"] = torch.sparse_csr_tensor(made.pop("indptr").long(), made.pop("indices").long(), made.pop("values"),
                                                  size=made.pop("shape"))
        return made
    return mapped(model, change)


def torch_saved(new, csr=False):
    def write(model):
        import torch
        out = io.BytesIO()
        made = tensors(model, csr)
        if not new:  # uint16 came later than that form
            for layer in made["layers"].values():
                if isinstance(layer, dict) and "prime_indices" in layer:
                    layer["prime_indices"] = layer["prime_indices"].to(torch.int32)
        torch.save(made, out, _use_new_zipfile_serialization=new)
        return out.getvalue()
    return write


def torch_pickled(model):
    import torch
    made = tensors(model)
    for layer in made["layers"].values():
        if isinstance(layer, dict) and "prime_indices" in layer:
            layer["prime_indices"] = layer["prime_indices"].to(torch.int32)
    return pickle.dumps(made, 4)


# Name -> (needs, bytes of the file).
FORMS = {
    **{f"protocol{n}": ("numpy", pickled(n)) for n in range(6)},
    **{f"objects{n}": ("numpy", as_objects(n)) for n in (0, 2, 5)},
    "modules": ("numpy", modules),
    "odd_layouts": ("numpy", odd_layouts),
    "zip": ("numpy", zipped),
    "scipy": ("scipy", with_scipy),
    "torch_zip": ("torch", torch_saved(True)),
    "torch_csr": ("torch", torch_saved(True, csr=True)),
    "torch_sequence": ("torch", torch_saved(False)),
    "torch_pickled": ("torch", torch_pickled),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="UPG file of format 2.0, or the word tiny")
    parser.add_argument("out", nargs="?", help="file to write")
    parser.add_argument("--form", choices=FORMS, default="protocol4")
    parser.add_argument("--fixtures", help="folder for one file of each form")
    args = parser.parse_args()
    if (args.out is None) == (args.fixtures is None):
        parser.error("give OUT or --fixtures DIR")
    model = tiny() if args.model == "tiny" else legacy(args.model)
    if args.out:
        pathlib.Path(args.out).write_bytes(FORMS[args.form][1](model))
        return
    tag = f"numpy{np.__version__.split('.')[0]}"
    for name, (needs, write) in FORMS.items():
        if importlib.util.find_spec(needs) is None:
            print(f"{name}: not written, {needs} is not installed", file=sys.stderr)
            continue
        (pathlib.Path(args.fixtures) / f"{name}_{tag}.upg1").write_bytes(write(model))


if __name__ == "__main__":
    main()
