#!/usr/bin/env python3
"""Write a checkpoint of a model's shapes with normally distributed weights, to measure speed and memory without a model.

  bench/make_checkpoint.py --shape phi-4 [--layers 2] OUT_DIR
  /usr/bin/time -v build/release/upg compress OUT_DIR -o /tmp/out.upg --calibrate none

Needs NumPy. Weights are BF16, one shard a layer. There is no tokenizer: --calibrate none.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

# hidden, intermediate, layers, heads, kv_heads, vocabulary
SHAPES = {"phi-4": (5120, 17920, 40, 40, 10, 100352), "phi-3-mini": (3072, 8192, 32, 32, 32, 32064)}
BLOCK = 1 << 24  # weights drawn once and written again and again, rotated: drawing 15 billion takes longer than needed


def write_shard(path, tensors, random):
    header, offset = {}, 0
    for name, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            left = int(np.prod(shape))
            if len(shape) == 1:
                out.write(np.full(left, 0x3F80, dtype="<u2").tobytes())  # norms of 1
                continue
            while left > 0:
                values = np.roll(random.block, int(random.generator.integers(BLOCK)))[:left]
                out.write(values.tobytes())
                left -= len(values)


class Random:
    def __init__(self):
        self.generator = np.random.default_rng(1)
        values = self.generator.standard_normal(BLOCK, dtype=np.float32) * np.float32(0.02)
        self.block = (values.view(np.uint32) >> 16).astype("<u2")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--shape", choices=SHAPES, default="phi-4")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    options = parser.parse_args()
    hidden, intermediate, layers, heads, kv_heads, vocabulary = SHAPES[options.shape]
    layers = options.layers or layers
    folder = pathlib.Path(options.out)
    folder.mkdir(parents=True)
    head_dim = hidden // heads
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5, "rope_theta": 250000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": False}))
    shards = [[("model.embed_tokens.weight", (vocabulary, hidden))],
              [("model.norm.weight", (hidden,)), ("lm_head.weight", (vocabulary, hidden))]]
    for i in range(layers):
        prefix = f"model.layers.{i}."
        shards.insert(-1, [
            (prefix + "input_layernorm.weight", (hidden,)), (prefix + "post_attention_layernorm.weight", (hidden,)),
            (prefix + "self_attn.qkv_proj.weight", ((heads + 2 * kv_heads) * head_dim, hidden)),
            (prefix + "self_attn.o_proj.weight", (hidden, heads * head_dim)),
            (prefix + "mlp.gate_up_proj.weight", (2 * intermediate, hidden)),
            (prefix + "mlp.down_proj.weight", (hidden, intermediate))])
    random, index, total = Random(), {}, 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / name, tensors, random)
        index.update({tensor: name for tensor, _ in tensors})
        total += sum(2 * int(np.prod(shape)) for _, shape in tensors)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    print(f"{folder}: {total // 2:,} parameters, {total:,} bytes")


if __name__ == "__main__":
    main()
