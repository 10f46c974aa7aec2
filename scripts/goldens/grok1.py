"""Grok-1 in the layout of hpcai-tech/grok-1, which transformers has no class for: computed here, in float64 with NumPy.

Of its published code: RMS norms hold "scale" and surround both halves of a layer; the embedding, the scores and the
logits have multipliers; scores s become max_attn_value * tanh(s / max_attn_value); the two best experts keep their
probabilities among all experts; GELU is the exact one (that of xAI's own code is the tanh form). Rotary base is 10000,
halves are rotated. The published checkpoint repeats the tied embedding as lm_head.weight.
"""
import json
import math

import numpy
import torch
from safetensors.torch import load_file

from . import row as rows
from .row import Row

ROTARY_BASE = 10000.0
GROK1 = dict(
    architectures=["Grok1ModelForCausalLM"],
    auto_map=dict(AutoConfig="configuration_grok1.Grok1Config", AutoModel="modeling_grok1.Grok1Model",
                  AutoModelForCausalLM="modeling_grok1.Grok1ModelForCausalLM"),
    model_type="grok-1", max_position_embeddings=8192, rms_norm_eps=1e-5, use_cache=True, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, tie_word_embeddings=True, num_experts_per_tok=2, num_experts=8,
    output_router_logits=False, router_aux_loss_coef=0.001, output_multiplier_scale=0.5773502691896257)
GAINS = {r"gate\.weight": 3.0, r"model\.norm": 6.0, r"[qk]_proj\.weight": 1.2}
ROWS = {
    # max_attn_value is 30 in the published file; these bend the scores of so small a model.
    "grok_1_bf16": Row(601, "bf16", GROK1 | dict(
        vocab_size=173, hidden_size=48, intermediate_size=36, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, attn_output_multiplier=0.3, embedding_multiplier_scale=2.5, max_attn_value=2.0),
        gains=GAINS),
    # The output matrix is another one.
    "grok_1_untied_f32": Row(602, "f32", GROK1 | dict(
        vocab_size=101, hidden_size=30, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, num_experts=6, attn_output_multiplier=0.31622776601683794,
        embedding_multiplier_scale=0.7, max_attn_value=3.0, tie_word_embeddings=False), gains=GAINS),
}


def shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    out = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.scale": (hidden,),
           "lm_head.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        out |= {f"{layer}{name}.scale": (hidden,)
                for name in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm")}
        out |= {f"{layer}attn.{name}_proj.weight": (n, hidden)
                for name, n in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden))}
        out[f"{layer}moe_block.gate.weight"] = (config["num_experts"], hidden)
        for e in range(config["num_experts"]):
            expert = f"{layer}moe_block.experts.{e}."
            out |= {f"{expert}linear.weight": (inner, hidden), f"{expert}linear_v.weight": (inner, hidden),
                    f"{expert}linear_1.weight": (hidden, inner)}
    return out


def softmax(x):
    x = numpy.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x):
    return x * 0.5 * (1 + numpy.vectorize(math.erf)(x / math.sqrt(2)))


class Grok1:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = {n: t.double().numpy() for n, t in load_file(folder / "model.safetensors").items()}

    def norm(self, x, name):
        mean = (x * x).mean(-1, keepdims=True)
        return x / numpy.sqrt(mean + self.config["rms_norm_eps"]) * self.weights[name + ".scale"]

    def times(self, x, name):
        return x @ self.weights[name + ".weight"].T

    def rotated(self, x, positions):
        """x: [n, heads, head_dim]"""
        half = x.shape[-1] // 2
        angles = positions[:, None, None] * ROTARY_BASE ** (-numpy.arange(half) / half)
        cos, sin = numpy.cos(angles), numpy.sin(angles)
        return numpy.concatenate([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin],
                                 -1)

    def attention(self, x, layer, positions, cache):
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        n, hidden = x.shape
        q, k, v = (self.times(x, f"{layer}attn.{name}_proj").reshape(n, h, hidden // heads)
                   for name, h in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
        q, k = self.rotated(q, positions), self.rotated(k, positions)
        if layer in cache:
            k, v = (numpy.concatenate(pair) for pair in zip(cache[layer], (k, v)))
        cache[layer] = k, v
        out = numpy.empty_like(q)
        for head in range(heads):
            from_head = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, from_head].T * self.config["attn_output_multiplier"]
            limit = self.config["max_attn_value"]
            scores = limit * numpy.tanh(scores / limit)
            scores[numpy.arange(len(k)) > positions[:, None]] = -numpy.inf
            out[:, head] = softmax(scores) @ v[:, from_head]
        return self.times(out.reshape(n, hidden), f"{layer}attn.o_proj")

    def experts(self, x, layer):
        probabilities = softmax(self.times(x, f"{layer}moe_block.gate"))
        out = numpy.zeros_like(x)
        for t, p in enumerate(probabilities):
            for e in numpy.argsort(-p)[:self.config["num_experts_per_tok"]]:
                expert = f"{layer}moe_block.experts.{e}."
                inner = gelu(self.times(x[t], expert + "linear")) * self.times(x[t], expert + "linear_v")
                out[t] += p[e] * self.times(inner, expert + "linear_1")
        return out

    def run(self, ids, cache, disturb=lambda x: x):
        start = len(next(iter(cache.values()))[0]) if cache else 0
        positions = start + numpy.arange(len(ids))
        x = self.weights["model.embed_tokens.weight"][list(ids)] * self.config["embedding_multiplier_scale"]
        x = disturb(x)
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            y = self.attention(self.norm(x, layer + "pre_attn_norm"), layer, positions, cache)
            x = x + self.norm(y, layer + "post_attn_norm")
            y = self.experts(self.norm(x, layer + "pre_moe_norm"), layer)
            x = disturb(x + self.norm(y, layer + "post_moe_norm"))
        logits = self.times(self.norm(x, "model.norm"), "lm_head") * self.config["output_multiplier_scale"]
        return torch.from_numpy(logits)

    def logits(self, ids):
        return self.run(ids, {})

    def noisy_logits(self, ids, generator):
        return self.run(ids, {}, lambda x: x * (1 + rows.NOISE * torch.randn(x.shape, generator=generator).numpy()))

    def greedy(self, ids, n):
        out, cache = [], {}
        while len(out) < n:
            out.append(int(self.run(ids if not out else out[-1:], cache)[-1].argmax()))
        return out


def make(folder, row):
    generator = torch.Generator().manual_seed(row.seed)
    folder.mkdir(parents=True)
    rows.write_config(folder, row)
    tensors = {name: rows.fill(name, torch.empty(shape), row, generator) for name, shape in shapes(row.config).items()}
    if row.config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    rows.write_checkpoint(folder, tensors, row)
    rows.make_golden(folder, row, Grok1(folder), generator)
