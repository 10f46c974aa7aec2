#!/usr/bin/env python3
"""Compares with transformers, safetensors and torch where they are installed; says what it skips where they are not.

  test_oracles.py [TEST...]      the program is $UPG, or build/release/upg of this repository

The program prints tokens, not logits, so logits are compared through what it does print: perplexities over a text,
computed here from the logits of transformers by the same protocol, and greedy continuations. C++ tests compare logits
themselves with tests/data/models.
"""
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
UPG = pathlib.Path(os.environ.get("UPG", ROOT / "build/release/upg")).resolve()
DEMO = ROOT / "models/demo"
TEXT = ("The history of the city begins with a small settlement on the river. In the year 1200 it was given the right "
        "to hold a market, and by the end of the century a wall had been built around it.\n") * 4
CONTEXT = 32

missing = []
try:
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM
except ImportError as error:
    torch = None
    missing.append(f"comparisons with transformers ({error})")
try:
    import safetensors
except ImportError as error:
    safetensors = None
    missing.append(f"reading UPG files with safetensors ({error})")
try:
    import jinja2
    import tokenizers
    import transformers
except ImportError as error:
    transformers = None
    missing.append(f"chat templates against transformers ({error})")


def upg(*args):
    done = subprocess.run([UPG, *map(str, args)], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{args}: {done.stderr}")
    return done.stdout


class OracleTest(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_oracles_"))
        self.addCleanup(shutil.rmtree, self.tmp)


@unittest.skipIf(torch is None, "needs torch and transformers")
class Transformers(OracleTest):
    def load(self, folder):
        return Phi3ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def tokens(self, text):
        from tokenizers import Tokenizer
        return Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode(text, add_special_tokens=False).ids

    def perplexity(self, model, ids):
        """The protocol of `upg eval`: chunks apart, predictions from the middle on."""
        total = count = 0
        for at in range(0, len(ids) - CONTEXT + 1, CONTEXT):
            chunk = torch.tensor(ids[at:at + CONTEXT])
            with torch.no_grad():
                scores = torch.log_softmax(model(chunk[None, :-1]).logits[0].double(), -1)
            rows = scores[CONTEXT // 2:].gather(1, chunk[CONTEXT // 2 + 1:, None])
            total, count = total - float(rows.sum()), count + len(rows)
        return math.exp(total / count), count

    def greedy(self, model, ids, n):
        """Tokens up to the first near tie, which a cache in f16 may decide the other way."""
        ids = torch.tensor(ids)
        start = len(ids)
        with torch.no_grad():
            for _ in range(n):
                top = model(ids[None], use_cache=False).logits[0, -1].topk(2)
                if float(top.values[0] - top.values[1]) < 0.05:
                    break
                ids = torch.cat([ids, top.indices[:1]])
        return ids[start:].tolist()

    def compare(self, ours, theirs):
        """`ours`: a path for upg; `theirs`: a folder for transformers with the same weights."""
        model = self.load(theirs)
        text = self.tmp / "text.txt"
        text.write_text(TEXT)
        report = json.loads(upg("eval", ours, "--text", text, "--context", CONTEXT, "--float-activations", "--json"))
        expected, count = self.perplexity(model, self.tokens(TEXT))
        self.assertEqual(report["scored"], count)
        # Keys and values in f16 move single logits by 2^-11; the mean of many moves by much less.
        self.assertLess(abs(report["perplexity"] / expected - 1), 1e-3)
        prompt = "The history of the United Kingdom"
        run = json.loads(upg("run", ours, "-p", prompt, "-n", 16, "--temperature", 0, "--ignore-eos",
                             "--float-activations", "--json"))
        greedy = self.greedy(model, self.tokens(prompt), 16)
        self.assertEqual(run["tokens"][:len(greedy)], greedy)

    def test_the_demo_model(self):
        self.compare(DEMO, DEMO)

    def test_decompressed_files_load_and_agree_with_the_files(self):
        # Decompressing to float32 keeps decoded weights exactly; config.json decides, so it is changed first.
        source = self.tmp / "source"
        shutil.copytree(DEMO, source)
        config = json.loads((source / "config.json").read_text())
        config["torch_dtype"] = "float32"
        (source / "config.json").write_text(json.dumps(config))
        for codec in ("trellis3", "mdcsr"):
            out = self.tmp / f"{codec}.upg"
            upg("compress", source, "-o", out, "--codec", codec, "--density", 0.5, "--calibrate", "none")
            upg("decompress", out, "-o", self.tmp / codec)
            self.compare(out, self.tmp / codec)

    def test_random_checkpoints(self):
        shapes = [dict(hidden_size=60, intermediate_size=77, num_attention_heads=5, num_key_value_heads=1),
                  dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
                       tie_word_embeddings=True),
                  dict(hidden_size=40, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4, head_dim=14,
                       sliding_window=9),
                  dict(hidden_size=72, intermediate_size=50, num_attention_heads=6, num_key_value_heads=3,
                       rope_parameters=dict(rope_type="default", rope_theta=777.0, partial_rotary_factor=0.5))]
        for seed in range(8):
            with self.subTest(seed=seed):
                torch.manual_seed(seed)
                config = Phi3Config(vocab_size=8192, num_hidden_layers=1 + seed % 3, max_position_embeddings=128,
                                    original_max_position_embeddings=128, bos_token_id=None, eos_token_id=None,
                                    pad_token_id=None, **shapes[seed % len(shapes)])
                model = Phi3ForCausalLM(config)
                with torch.no_grad():
                    for weight in model.parameters():
                        weight.copy_(torch.randn_like(weight) * (weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.3)
                                     + (weight.dim() == 1))
                folder = self.tmp / f"random{seed}"
                dtype = (torch.bfloat16, torch.float16, torch.float32)[seed % 3]
                model.to(dtype).save_pretrained(folder, max_shard_size=("1GB", "300KB")[seed // 4])
                shutil.copy(DEMO / "tokenizer.json", folder)
                self.compare(folder, folder)


@unittest.skipIf(safetensors is None, "needs safetensors")
class Safetensors(OracleTest):
    def test_a_upg_file_is_a_safetensors_file(self):
        from safetensors import safe_open
        for codec in ("trellis2", "trellis4", "int8", "mdcsr", "bf16"):
            out = self.tmp / f"{codec}.upg"
            upg("compress", ROOT / "tests/data/models/window_bf16", "-o", out, "--codec", codec, "--calibrate", "none")
            report = json.loads(upg("inspect", out, "--json"))
            with safe_open(out, framework="pt" if torch else "np") as file:
                self.assertEqual(file.metadata()["upg.architecture"], report["architecture"])
                config = json.loads(file.metadata()["upg.config"])
                self.assertEqual(config["hidden_size"], 32)
                names = set(file.keys())
                if torch:
                    stored = sum(t.numel() * t.element_size() for t in map(file.get_tensor, names))
                    self.assertEqual(stored, report["weight_bytes"])
            for tensor in (t["name"] for t in report["tensors"]):
                self.assertTrue(any(n == tensor or n.startswith(tensor + ".") for n in names), tensor)


CHAT_DRIVER = UPG.parent / "tests/chat_driver"


@unittest.skipIf(transformers is None, "needs transformers, tokenizers and jinja2")
@unittest.skipUnless(CHAT_DRIVER.is_file(), "the build has no tests/chat_driver")
class ChatTemplates(OracleTest):
    def test_templates_and_random_ones_render_alike(self):
        done = subprocess.run([sys.executable, ROOT / "tests/conformance_chat.py", "--driver", CHAT_DRIVER, "--fuzz", "2000"],
                              capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    if not UPG.is_file():
        sys.exit(f"{UPG} is not there: build it, or name the program in UPG")
    for what in missing:
        print(f"skipped: {what}")
    unittest.main()
