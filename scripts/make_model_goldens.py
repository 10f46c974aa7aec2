#!/usr/bin/env python3
"""Makes the small random checkpoints of tests/data/models with the logits that transformers computes for them.

  make_model_goldens.py [OUT]      OUT: tests/data/models of this repository unless given

Needs torch and transformers. Every folder holds a checkpoint and golden.safetensors: "input_ids" I32 [n], "logits" F32
[n, vocab_size] of all positions, "greedy" I32 [m], the likeliest continuation. All is computed in float32 on the CPU
from the weights as stored. Existing folders are left alone: goldens are added, never rewritten.

The Phi-3 models of this file came first and keep their way of being made; all others are rows of scripts/goldens.
"""
import functools
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import Phi3Config, Phi3ForCausalLM

from goldens import deepseek, gemma, grok1, llama, moe, phi3, row as published

FAMILIES = [llama, gemma, phi3, moe, deepseek, grok1]

GREEDY_TOKENS = 12
LEAST_MARGIN = 0.01  # between the two likeliest tokens of a greedy step: rounding must not decide

# name: (seed, prompt length, dtype, largest shard, configuration)
MODELS = {
    "one_kv_head_bf16": (1, 9, torch.bfloat16, None, dict(
        vocab_size=101, hidden_size=36, intermediate_size=52, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, rms_norm_eps=1e-6)),
    "tied_f16": (2, 8, torch.float16, None, dict(
        vocab_size=97, hidden_size=40, intermediate_size=33, num_hidden_layers=3, num_attention_heads=5,
        num_key_value_heads=5, tie_word_embeddings=True)),
    "wide_heads_f32": (3, 11, torch.float32, None, dict(
        vocab_size=67, hidden_size=24, intermediate_size=31, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10)),
    "window_bf16": (4, 23, torch.bfloat16, None, dict(
        vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=7)),
    "partial_rotary_f32": (5, 13, torch.float32, None, dict(
        vocab_size=59, hidden_size=36, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=3, rope_parameters=dict(rope_type="default", rope_theta=500.0,
                                                    partial_rotary_factor=0.5))),
    "sharded_old_config_bf16": (6, 10, torch.bfloat16, "16KB", dict(
        vocab_size=60, hidden_size=48, intermediate_size=44, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, rope_parameters=dict(rope_type="default", rope_theta=250000.0,
                                                    partial_rotary_factor=0.75))),
}


def random_model(config, generator):
    """Matrices keep the size of what they multiply, so that logits have a standard deviation near 1."""
    model = Phi3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.copy_(1 + 0.3 * torch.randn(weight.shape, generator=generator))
                continue
            embedding = "embed_tokens" in name and not config.tie_word_embeddings
            scale = 1.0 if embedding else weight.shape[1] ** -0.5
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model.eval()


def to_old_config(folder):
    """The form of transformers before 5: rotary options at the top, "torch_dtype"."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config.update(rope_theta=rope["rope_theta"], partial_rotary_factor=rope["partial_rotary_factor"],
                  rope_scaling=None, torch_dtype=config.pop("dtype"))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def run(model, prompt):
    """(logits of all prompt positions, greedy continuation, least margin of its steps)"""
    with torch.no_grad():
        logits = model(prompt[None]).logits[0]
        ids, margin = prompt, float("inf")
        for _ in range(GREEDY_TOKENS):
            top = model(ids[None], use_cache=False).logits[0, -1].topk(2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            ids = torch.cat([ids, top.indices[:1]])
    return logits, ids[len(prompt):], margin


def make(folder, seed, prompt_length, dtype, largest_shard, options):
    generator = torch.Generator().manual_seed(seed)
    config = Phi3Config(max_position_embeddings=64, original_max_position_embeddings=64, bos_token_id=None,
                        eos_token_id=None, pad_token_id=None, **options)
    model = random_model(config, generator).to(dtype)
    model.save_pretrained(folder, **({"max_shard_size": largest_shard} if largest_shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if largest_shard:
        to_old_config(folder)
    model = Phi3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for _ in range(100):
        prompt = torch.randint(config.vocab_size, (prompt_length,), generator=generator)
        logits, greedy, margin = run(model, prompt)
        if margin >= LEAST_MARGIN and len(set(greedy.tolist())) > 2:
            break
    else:
        raise SystemExit(f"{folder.name}: every greedy continuation has a near tie or stands still")
    save_file({"input_ids": prompt.to(torch.int32), "logits": logits.contiguous(), "greedy": greedy.to(torch.int32)},
              folder / "golden.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(f"{folder.name}: {size} bytes, logits std {logits.std():.2f}, largest {logits.abs().max():.2f}, "
          f"least margin {margin:.3f}")


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "tests/data/models"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    makers = {name: functools.partial(make, seed=seed, prompt_length=prompt_length, dtype=dtype,
                                      largest_shard=largest_shard, options=options)
              for name, (seed, prompt_length, dtype, largest_shard, options) in MODELS.items()}
    for family in FAMILIES:
        make_row = getattr(family, "make", published.make)
        makers |= {name: functools.partial(make_row, row=row) for name, row in family.ROWS.items()}
    for name, maker in makers.items():
        folder = out / name
        if folder.exists():
            print(f"{name}: is there")
            continue
        try:
            maker(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


if __name__ == "__main__":
    main()
