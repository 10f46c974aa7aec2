"""The goldens of the C++ tests, through Python: what transformers and an independent reader computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import upg
from conftest import DATA
from safetensors import safe_open

pytestmark = pytest.mark.checkout

PROMPTS = json.loads((DATA / "demo/reference.json").read_text()) if DATA.is_dir() else []
MODELS = sorted((DATA / "models").glob("*/golden.safetensors"))
CODECS = sorted((DATA / "codec").glob("*.safetensors"))


@pytest.mark.parametrize("at", range(len(PROMPTS)))
def test_the_demo_model_writes_what_transformers_writes(model: upg.Model, at: int) -> None:
    golden = PROMPTS[at]
    assert (
        model.tokenizer.encode(golden["prompt"]) == golden["ids"][1:]
    )  # the model was trained with an end token first
    done = model.complete(golden["ids"], max_tokens=len(golden["greedy"]), temperature=0, ignore_eos=True)
    assert done.token_ids == golden["greedy"]
    assert done.text == golden["greedy_text"]


@pytest.mark.parametrize("at", range(len(PROMPTS)))
def test_the_demo_model_has_the_logits_of_transformers(model: upg.Model, at: int) -> None:
    with safe_open(DATA / "demo/reference_logits.safetensors", "np") as file:
        expected = file.get_tensor(f"logits.{at}")
    logits = model.logits(PROMPTS[at]["ids"])
    assert logits.shape == expected.shape
    assert logits.dtype == np.float32
    # Keys and values are kept in f16.
    np.testing.assert_allclose(logits, expected, atol=2**-8 * float(np.abs(expected).max()))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.parent.name)
def test_every_architecture_has_the_logits_of_its_golden(path: Path) -> None:
    with safe_open(path, "np") as file:
        ids, expected, greedy = (file.get_tensor(k) for k in ("input_ids", "logits", "greedy"))
    model = upg.load(path.parent, threads=1, kv="f32", context=len(ids) + len(greedy), progress=False)
    logits = model.logits(ids)
    assert np.abs(logits - expected).max() <= 4e-6 * np.abs(expected).max()
    # Each next token of the golden is the likeliest.
    following = model.logits(np.concatenate([ids, greedy]))[len(ids) - 1 : -1]
    assert following.argmax(axis=1).tolist() == greedy.tolist()


@pytest.mark.parametrize("path", CODECS, ids=lambda p: p.stem)
def test_every_codec_decodes_its_golden_bit_by_bit(path: Path) -> None:
    parts, expected, codec = read_golden(path)
    matrix = upg.PackedMatrix.from_parts(codec, expected.shape, parts)
    assert np.array_equal(matrix.to_dense().view(np.uint32), expected.view(np.uint32))
    assert {name: part.shape for name, part in matrix.parts.items()} == {n: p.shape for n, p in parts.items()}


def test_the_demo_tokenizer_agrees_with_its_vectors(model: upg.Model) -> None:
    vectors = json.loads((DATA / "tokenizers/demo.vectors.json").read_text())["vectors"]
    for vector in vectors:
        ids = model.tokenizer.encode(vector["text"], add_special=False)
        assert ids == vector["ids"], vector["text"]
        assert model.tokenizer.decode(ids) == vector["decoded"]


def read_golden(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """The parts of a golden file; bfloat16 as its bits."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    codec = header.pop("__metadata__")["codec"]
    types = {"I8": "i1", "U8": "u1", "U16": "<u2", "U32": "<u4", "F32": "<f4", "BF16": "<u2"}
    arrays = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(bytearray(data[begin:end]), dtype=types[entry["dtype"]])
        arrays[name.removeprefix("weight.")] = flat.reshape(entry["shape"])
    return arrays, arrays.pop("expected"), codec
