"""UPG files in transformers, against the library's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upg

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", minversion="5.0", reason="transformers is not installed")

PROMPTS = ["The history of the United Kingdom", "Once upon a time, there was a"]


@pytest.fixture(scope="module")
def exported(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    target = tmp_path_factory.mktemp("exported") / "demo"
    upg.transformers.export(packed, target)
    return target


def load(path: Path, **options: bool) -> Any:
    given = {"quantization_config": upg.transformers.UpgConfig(**options)} if options else {}
    return transformers.AutoModelForCausalLM.from_pretrained(path, **given)


def greedy(model: Any, path: Path, prompt: str, n: int) -> list[int]:
    ids = transformers.AutoTokenizer.from_pretrained(path)(prompt, return_tensors="pt").input_ids
    out: list[int] = model.generate(ids, max_new_tokens=n, min_new_tokens=n, do_sample=False)[
        0, ids.shape[1] :
    ].tolist()
    return out


@pytest.mark.parametrize("prompt", PROMPTS)
def test_generation_is_that_of_the_engine(exported: Path, packed: Path, prompt: str) -> None:
    model = load(exported)
    assert isinstance(model.model.layers[0].mlp.down_proj, upg.transformers.UpgLinear)
    assert isinstance(model.model.embed_tokens, upg.transformers.UpgEmbedding)
    engine = upg.load(packed, kv="f32", progress=False)
    ours = engine.complete(prompt, max_tokens=24, temperature=0, ignore_eos=True).token_ids
    ids = engine.tokenizer.encode(prompt)
    top = np.sort(engine.logits([*ids, *ours])[len(ids) - 1 : -1], axis=1)
    near = np.flatnonzero(top[:, -1] - top[:, -2] < 0.05)  # ties, which sums in another order may break otherwise
    n = int(near[0]) if near.size else len(ours)
    assert n > 8
    assert greedy(model, exported, prompt, 24)[:n] == ours[:n]


def test_logits_are_those_of_the_engine_and_of_decoded_weights(exported: Path, packed: Path) -> None:
    ids = upg.load(packed, progress=False).tokenizer.encode(PROMPTS[0])
    tensor = torch.tensor([ids])
    with torch.no_grad():
        exact = load(exported, float_activations=True)(tensor).logits[0].numpy()
        dense_model = load(exported, dequantize=True)
        dense = dense_model(tensor).logits[0].numpy()
    assert type(dense_model.model.layers[0].mlp.down_proj) is torch.nn.Linear
    largest = np.abs(dense).max()
    assert np.abs(exact - dense).max() <= 1e-5 * largest
    engine = upg.load(packed, kv="f32", float_activations=True, progress=False).logits(ids)
    assert np.abs(engine - dense).max() <= 1e-5 * largest


def test_gradients_pass_through_compressed_layers(exported: Path) -> None:
    model = load(exported)
    layer = model.model.layers[0].mlp.down_proj
    x = torch.randn(2, layer.in_features, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad[0], layer.weight.sum(0), atol=1e-5)


def test_an_export_is_whole_or_not_there(packed: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    upg.transformers.export(packed, target, copy=True)
    assert {p.name for p in target.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not (target / "model.safetensors").is_symlink()
    with pytest.raises(FileExistsError, match="not empty"):
        upg.transformers.export(packed, target)
    with pytest.raises(ValueError, match="is a checkpoint directory"):
        upg.transformers.export(upg.demo(), tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("tied", [True, False])
def test_another_family_with_biases_and_tied_embeddings_loads(tmp_path: Path, tied: bool) -> None:
    torch.manual_seed(1)
    config = transformers.Qwen2Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        max_position_embeddings=64,
    )
    with torch.no_grad():
        made = transformers.Qwen2ForCausalLM(config)
        for weight in made.parameters():
            weight.copy_(torch.randn_like(weight) * weight.shape[-1] ** -0.5)
    made.save_pretrained(tmp_path / "dense")
    upg.compress(tmp_path / "dense", tmp_path / "m.upg", codec="trellis4", calibrate=None, progress=False)
    upg.transformers.export(tmp_path / "m.upg", tmp_path / "hf")
    ids = list(range(7, 27))
    model = load(tmp_path / "hf", float_activations=True)
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    ours = upg.load(tmp_path / "m.upg", kv="f32", float_activations=True, progress=False).logits(ids)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()
