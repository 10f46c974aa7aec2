#!/usr/bin/env python3
"""Exports models to GGUF and reads the files with the gguf package, where it is installed: what is in them is what
`upg decompress` writes, under the names that the package knows.

  test_export.py [TEST...]      the program is $UPG, or build/release/upg of this repository

llama.cpp itself is not asked here: docs/export.md has what was measured with it.
"""
import json
import pathlib
import re
import unittest

from cli import DEMO, ROOT, SMALL, CliTest, main

MODELS = ROOT / "tests/data/models"
REFUSED = {"deepseek_v2_bf16", "qwen3_moe_mixed_bf16", "wide_heads_f32"}

try:
    import gguf
    import numpy
except ImportError as error:
    gguf = None
    if __name__ == "__main__":
        print(f"not run: reading GGUF files with the gguf package ({error})")


def checkpoint(folder):
    """The tensors of a checkpoint directory as float32 arrays, by name; BF16 is nothing that NumPy has."""
    tensors = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        if file.name == "golden.safetensors":
            continue
        data = file.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, tensor in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + offset for offset in tensor["data_offsets"])
            kind = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[tensor["dtype"]]
            values = numpy.frombuffer(data[begin:end], kind)
            if tensor["dtype"] == "BF16":
                values = (values.astype("<u4") << 16).view("<f4")
            tensors[name] = values.astype(numpy.float32).reshape(tensor["shape"])
    return tensors


class Command(CliTest):
    def test_the_report_says_what_was_written(self):
        out = self.tmp / "demo.gguf"
        report = json.loads(self.ok("export", self.demo, "--to", "gguf", "-o", out, "--json").stdout)
        self.assertEqual(report["file_bytes"], out.stat().st_size)
        self.assertEqual((report["format"], report["type"], report["architecture"]), ("gguf", "f16", "phi3"))
        self.assertEqual(out.read_bytes()[:4], b"GGUF")
        self.assertIn("phi3", self.ok("export", DEMO, "--to", "gguf", "-o", self.tmp / "dir.gguf").stdout)

    def test_a_file_that_is_there_is_replaced_only_with_force(self):
        out = self.tmp / "there.gguf"
        out.write_text("mine")
        self.refused("export", SMALL, "--to", "gguf", "-o", out, says="is there already")
        self.assertEqual(out.read_text(), "mine")
        self.ok("export", SMALL, "--to", "gguf", "-o", out, "--force")
        self.assertNotEqual(out.read_bytes(), b"mine")

    def test_mistakes_are_named(self):
        out = self.tmp / "mistake.gguf"
        self.refused("export", SMALL, "--to", "gguf", status=2)
        self.refused("export", SMALL, "-o", out, status=2)
        self.refused("export", SMALL, "--to", "onnx", "-o", out, status=2)
        self.refused("export", SMALL, "--to", "gguf", "--type", "q4_0", "-o", out, status=2)
        self.refused("export", self.tmp / "missing", "--to", "gguf", "-o", out, says="missing")
        self.refused("export", SMALL, "--to", "gguf", "-o", self.tmp / "no/where.gguf", says="where.gguf")
        for name in REFUSED:
            self.refused("export", MODELS / name, "--to", "gguf", "-o", out, says="does not have")
        self.assertFalse(out.exists())

    def test_the_same_model_gives_the_same_file(self):
        for out, threads in ((self.tmp / "one.gguf", 1), (self.tmp / "three.gguf", 3)):
            self.ok("export", self.demo, "--to", "gguf", "--type", "q8_0", "-o", out, "--threads", threads)
        self.assertEqual((self.tmp / "one.gguf").read_bytes(), (self.tmp / "three.gguf").read_bytes())


@unittest.skipIf(gguf is None, "needs gguf and numpy")
class Oracle(CliTest):
    def read(self, model, kind):
        """The file's fields and its tensors, as stored."""
        out = self.tmp / f"{pathlib.Path(model).stem}_{kind}.gguf"
        self.ok("export", model, "--to", "gguf", "--type", kind, "-o", out, "--force")
        reader = gguf.GGUFReader(out)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        return fields, {tensor.name: tensor for tensor in reader.tensors}

    @staticmethod
    def values(tensor):
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type)

    def test_a_compressed_model_is_written_as_decompress_writes_it(self):
        dense = self.tmp / "dense"
        self.ok("decompress", self.demo, "-o", dense)
        theirs = checkpoint(dense)
        _, ours = self.read(self.demo, "bf16")
        same = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm",
                "blk.7.attn_qkv": "model.layers.7.self_attn.qkv_proj", "blk.7.ffn_up": "model.layers.7.mlp.gate_up_proj",
                "blk.0.attn_output": "model.layers.0.self_attn.o_proj", "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
                "blk.0.attn_norm": "model.layers.0.input_layernorm"}
        for name, other in same.items():
            numpy.testing.assert_array_equal(self.values(ours[name + ".weight"]), theirs[other + ".weight"])
        self.assertEqual(len(ours), len(theirs))

    def test_types_are_the_packages(self):
        _, exact = self.read(self.demo, "f32")
        _, half = self.read(self.demo, "f16")
        _, blocks = self.read(self.demo, "q8_0")
        self.assertEqual(exact.keys(), blocks.keys())
        for name, tensor in exact.items():
            values = self.values(tensor)
            if values.ndim == 1:
                self.assertEqual(blocks[name].tensor_type, gguf.GGMLQuantizationType.F32)
                continue
            numpy.testing.assert_array_equal(half[name].data, values.astype(numpy.float16))
            numpy.testing.assert_array_equal(
                blocks[name].data, gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0), err_msg=name)

    def test_rows_of_queries_change_places_for_llama_alone(self):
        for name, heads, permuted in (("llama_3_1_bf16", 6, True), ("qwen3_f32", 4, False)):
            theirs = checkpoint(MODELS / name)["model.layers.1.self_attn.q_proj.weight"]
            _, ours = self.read(MODELS / name, "f32")
            want = theirs.reshape(heads, 2, -1, theirs.shape[1]).swapaxes(1, 2).reshape(theirs.shape) if permuted else theirs
            numpy.testing.assert_array_equal(self.values(ours["blk.1.attn_q.weight"]), want)

    def test_every_tensor_has_a_name_that_the_package_knows(self):
        for folder in sorted(MODELS.iterdir()):
            if not folder.is_dir() or folder.name in REFUSED:
                continue
            fields, tensors = self.read(folder, "f16")
            kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == fields["general.architecture"])
            known = {gguf.TENSOR_NAMES[t] for t in gguf.MODEL_TENSORS[kind]}
            for name in tensors:
                stem = re.sub(r"^blk\.\d+\.", "blk.{bid}.", name.rsplit(".", 1)[0])
                self.assertIn(stem, known, f"{folder.name}: {name}")

    def test_metadata_and_tokenizer_are_there(self):
        fields, tensors = self.read(self.demo, "f16")
        config = json.loads((DEMO / "config.json").read_text())
        tokenizer = json.loads((DEMO / "tokenizer.json").read_text())
        for key, field in (("embedding_length", "hidden_size"), ("block_count", "num_hidden_layers"),
                           ("attention.head_count", "num_attention_heads"), ("attention.head_count_kv", "num_key_value_heads"),
                           ("feed_forward_length", "intermediate_size"), ("context_length", "max_position_embeddings"),
                           ("vocab_size", "vocab_size"), ("rope.freq_base", "rope_theta")):
            self.assertEqual(fields["phi3." + key], config[field], key)
        self.assertAlmostEqual(fields["phi3.attention.layer_norm_rms_epsilon"], config["rms_norm_eps"], 9)
        tokens = fields["tokenizer.ggml.tokens"]
        for content, number in tokenizer["model"]["vocab"].items():
            self.assertEqual(tokens[number], content)
        merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
        self.assertEqual(fields["tokenizer.ggml.merges"], merges)
        self.assertEqual(fields["tokenizer.ggml.eos_token_id"], config["eos_token_id"])
        self.assertEqual(fields["general.name"], "demo")
        self.assertEqual(tensors["token_embd.weight"].shape.tolist(), [config["hidden_size"], config["vocab_size"]])


if __name__ == "__main__":
    main()
