#!/usr/bin/env python3
"""Write a GGUF file of Phi-4's shapes with random codes, for the speed of llama.cpp and ik_llama.cpp (bench/peers.py).

  bench/make_gguf.py --type iq3_xxs phi-4-iq3_xxs.gguf

Needs the PyPI packages gguf and numpy. Tensor types follow llama.cpp's mixtures of the same name, so that file sizes are
theirs (5.84 GB for iq3_xxs, 6.50 GB for q3_k_s). The vocabulary is made up: it generates ids, not text.
"""
import argparse

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCABULARY = 5120, 17920, 40, 40, 10, 100352
HEAD_DIM = HIDDEN // HEADS
# file type, embedding, output, attention output, all other matrices
MIXTURES = {
    "iq3_xxs": (gguf.LlamaFileType.MOSTLY_IQ3_XXS, Type.IQ3_S, Type.Q5_K, Type.IQ3_S, Type.IQ3_XXS),
    "q3_k_s": (gguf.LlamaFileType.MOSTLY_Q3_K_S, Type.Q3_K, Type.Q6_K, Type.Q3_K, Type.Q3_K),
}
# Where a block has its float16 scales, as slices of its bytes.
SCALES = {Type.IQ3_XXS: [slice(0, 2)], Type.IQ3_S: [slice(0, 2)], Type.Q3_K: [slice(-2, None)],
          Type.Q6_K: [slice(-2, None)], Type.Q5_K: [slice(0, 2), slice(2, 4)]}
DRAWN_ROWS = 64  # repeated: speed does not depend on the codes


def matrix(generator, rows, cols, kind):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    codes = generator.integers(0, 256, (DRAWN_ROWS * cols // block, size), dtype=np.uint8)
    for where in SCALES[kind]:
        codes[:, where] = np.frombuffer(np.float16(0.0005).tobytes(), dtype=np.uint8)
    return np.tile(codes.reshape(DRAWN_ROWS, cols // block * size), (rows // DRAWN_ROWS, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--type", choices=MIXTURES, default="iq3_xxs")
    options = parser.parse_args()
    file_type, embedding, output, attention_output, rest = MIXTURES[options.type]
    generator = np.random.default_rng(1)
    out = gguf.GGUFWriter(options.out, "phi3")
    out.add_file_type(file_type)
    out.add_context_length(16384)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(INTERMEDIATE)
    out.add_block_count(LAYERS)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(250000.0)
    out.add_rope_dimension_count(HEAD_DIM)
    out.add_sliding_window(131072)  # ik_llama.cpp wants one; longer than the context, it does nothing
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list([f"t{i}" for i in range(VOCABULARY)])
    out.add_token_types([1] * VOCABULARY)
    out.add_token_merges(["t 0"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)

    def add(name, rows, cols, kind):
        out.add_tensor(name, matrix(generator, rows, cols, kind), raw_dtype=kind)

    def ones(name):
        out.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))

    add("token_embd.weight", VOCABULARY, HIDDEN, embedding)
    ones("output_norm.weight")
    add("output.weight", VOCABULARY, HIDDEN, output)
    for i in range(LAYERS):
        ones(f"blk.{i}.attn_norm.weight")
        add(f"blk.{i}.attn_qkv.weight", (HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN, rest)
        add(f"blk.{i}.attn_output.weight", HIDDEN, HIDDEN, attention_output)
        ones(f"blk.{i}.ffn_norm.weight")
        add(f"blk.{i}.ffn_up.weight", 2 * INTERMEDIATE, HIDDEN, rest)
        add(f"blk.{i}.ffn_down.weight", HIDDEN, INTERMEDIATE, rest)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file(progress=False)
    out.close()


if __name__ == "__main__":
    main()
