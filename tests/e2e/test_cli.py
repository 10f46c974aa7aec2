#!/usr/bin/env python3
"""Drives the program as its users do: commands, exit statuses, messages, streams, signals. Standard library only.

  test_cli.py [TEST...]      the program is $UPG, or build/release/upg of this repository

Uses the bundled model. What the library computes is tested beside its sources; here is what a shell sees.
"""
import json
import os
import pathlib
import resource
import re
import shutil
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree

from cli import DEMO, ROOT, SMALL, UPG, CliTest, main

COMMANDS = ["compress", "convert", "inspect", "verify", "decompress", "export", "run", "chat", "eval", "bench", "kernels"]
TEXT = ("The history of the city begins with a small settlement on the river. In the year 1200 it was given the right "
        "to hold a market, and by the end of the century a wall had been built around it.\n") * 3


class Commands(CliTest):
    def test_help_of_every_command_has_an_example(self):
        top = self.ok("--help").stdout
        self.assertIn("Example", top)
        for command in COMMANDS:
            self.assertIn(command, top)
            text = self.ok(command, "--help").stdout
            self.assertRegex(text, r"Example|UPG_FORCE_KERNEL=")
            self.assertIn(f"upg {command}", text)

    def test_version(self):
        self.assertRegex(self.ok("--version").stdout, r"\Aupg \d+\.\d+\.\d+\n\Z")

    def test_mistakes_in_the_command_line_exit_with_2(self):
        for args in ([], ["nonsense"], ["compress"], ["compress", DEMO], ["run", self.demo], ["inspect"],
                     ["inspect", self.demo, "--nonsense"], ["run", self.demo, "-p", "x", "-n", "many"],
                     ["run", self.demo, "-p", "x", "-n", "-1"], ["eval", self.demo],
                     ["eval", self.demo, "--task", "lambada"], ["eval", self.demo, "--text", "a", "--task", "lambada"],
                     ["compress", DEMO, "-o", "x", "--ratio", "5", "--bits", "3"]):
            self.refused(*args, status=2)

    def test_every_report_is_json_on_request(self):
        data = self.tmp / "lambada.jsonl"
        data.write_text('{"text": "The history of the United Kingdom"}\n')
        text = self.tmp / "text.txt"
        text.write_text(TEXT)
        out = self.tmp / "json.upg"
        reports = {
            "compress": ["compress", SMALL, "-o", out, "--codec", "trellis4", "--calibrate", "none"],
            "inspect": ["inspect", self.small],
            "verify": ["verify", self.small],
            "decompress": ["decompress", self.small, "-o", self.tmp / "json_dense"],
            "run": ["run", self.demo, "-p", "The history", "-n", 4],
            "eval": ["eval", self.demo, "--text", text, "--context", 32, "--chunks", 2, "--reference", DEMO],
            "task": ["eval", self.demo, "--task", "lambada", "--data", data],
            "kernels": ["kernels"],
        }
        fields = {
            "compress": ["parameters", "weight_bytes", "file_bytes", "bits_per_weight", "ratio_fp32", "seconds"],
            "inspect": ["parameters", "weight_bytes", "file_bytes", "bits_per_weight", "ratio_fp32", "tensors"],
            "run": ["text", "tokens", "finish_reason", "prompt_tokens"],
            "eval": ["perplexity", "perplexity_se", "perplexity_ratio", "mean_kld", "mean_kld_se", "p99_kld", "same_top1"],
            "task": ["accuracy", "accuracy_se", "perplexity", "items"],
        }
        for name, args in reports.items():
            report = json.loads(self.ok(*args, "--json").stdout)
            for field in fields.get(name, []):
                self.assertIn(field, report, name)

    def test_the_default_ratio_is_met_and_the_loss_is_reported(self):
        out = self.tmp / "default.upg"
        report = json.loads(self.ok("compress", DEMO, "-o", out, "--calibration-tokens", 4096, "--json").stdout)
        self.assertLess(report["ratio_fp32"], 10.01)
        self.assertGreater(report["measured_loss"], 0)
        self.assertLess(report["measured_loss"], 1)
        self.assertAlmostEqual(report["predicted_loss"], sum(t.get("predicted_loss", 0) for t in report["tensors"]), 6)
        self.assertGreaterEqual(report["ratio_fp32"], 10.0)
        self.assertEqual(report["file_bytes"], out.stat().st_size)
        self.assertEqual(4 * report["parameters"] / report["weight_bytes"], report["ratio_fp32"])
        self.assertIn("whole", self.ok("verify", out).stdout)
        self.assertIn("lm_head.weight", self.ok("inspect", out).stdout)

    def test_the_report_is_a_page_that_names_every_tensor(self):
        page = self.tmp / "report.html"
        report = json.loads(self.ok("inspect", self.demo, "--json", "--report", page).stdout)
        text = page.read_text()
        svg = xml.etree.ElementTree.fromstring(text[text.index("<svg"):text.index("</svg>") + 6])
        self.assertGreater(len(svg), 3 * 12)
        for tensor in report["tensors"]:
            self.assertIn(tensor["name"], text)
        self.assertNotIn("src=", text, "nothing comes from elsewhere")

    def test_a_decompressed_model_runs_as_the_file_does(self):
        dense = self.tmp / "dense"
        self.ok("decompress", self.demo, "-o", dense)
        args = ["-p", "The history of the United", "-n", 24, "--temperature", 0]
        of_file = self.ok("run", self.demo, *args, "--float-activations").stdout
        self.assertEqual(self.ok("run", dense, *args).stdout, of_file)
        self.refused("decompress", self.demo, "-o", dense, says="already holds")


class Run(CliTest):
    def test_text_goes_to_stdout_and_statistics_to_stderr(self):
        done = self.ok("run", DEMO, "-p", "The history of the United Kingdom", "-n", 8, "--temperature", 0)
        self.assertNotIn("tokens/s", done.stdout)
        self.assertRegex(done.stderr, r"\Aprompt \d+ tokens, .* generated 8 tokens, .* tokens/s; \d+ threads; length\n\Z")

    def test_greedy_text_is_the_references(self):
        for case in json.loads((ROOT / "tests/data/demo/reference.json").read_text()):
            prompt = "<|endoftext|>" + case["prompt"]  # the reference began every prompt with it
            for threads in (1, 3):
                done = self.ok("run", DEMO, "-p", prompt, "-n", len(case["greedy"]), "--temperature", 0, "--ignore-eos",
                               "--threads", threads)
                self.assertEqual(done.stdout, case["greedy_text"] + "\n")

    def test_the_seed_decides(self):
        def text(seed, threads):
            return self.ok("run", self.demo, "-p", "Once", "-n", 24, "--temperature", 1, "--seed", seed,
                           "--threads", threads).stdout
        self.assertEqual(text(5, 1), text(5, 3))
        self.assertNotEqual(text(5, 1), text(6, 1))

    def test_stop_strings_end_the_text(self):
        args = ["run", DEMO, "-p", "The history of the United", "-n", 30, "--temperature", 0]
        whole = self.ok(*args).stdout
        stop = whole[10:14]
        done = self.ok(*args, "--stop", stop)
        self.assertEqual(done.stdout, whole[:whole.index(stop)] + "\n")
        self.assertIn("; stop", done.stderr)

    def test_output_into_a_pipe_that_closes_ends_quietly(self):
        run = subprocess.Popen([UPG, "run", DEMO, "-p", "The", "-n", "200", "--ignore-eos"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        run.stdout.read(1)
        run.stdout.close()
        errors = run.stderr.read()
        run.stderr.close()
        self.assertIn(run.wait(timeout=30), (0, 1, -signal.SIGPIPE))
        self.assertNotIn(b"terminate", errors)

    def test_a_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            for args in (["inspect", self.small], ["inspect", self.small, "--json"]):
                done = subprocess.run([UPG, *args], stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertRegex(done.stderr, r"\Aupg: ")

    def test_a_prompt_may_hold_any_bytes(self):
        for prompt in (b"caf\xc3\xa9 \xe4\xb8\xad\xf0\x9f\x98\x80", b"\xff\xfe broken", b"<|im_start|>user"):
            done = subprocess.run([UPG, "run", self.demo, "-n", "4", "-p", prompt], capture_output=True, timeout=30)
            self.assertEqual(done.returncode, 0, done.stderr)
            done.stdout.decode("utf-8")

    def test_wrong_options_are_refused_by_name(self):
        run = ["run", self.demo, "-n", 2]
        self.refused(*run, "-p", "", says="prompt is empty")
        self.refused(*run, "-p", "x", "--temperature", -1, says="temperature is -1")
        self.refused(*run, "-p", "x", "--top-p", 2, "--temperature", 1, says="top_p is 2")
        self.refused(*run, "-p", "x", "--kv", "f8", says='"f8"')
        self.refused(*run, "-p", "x", "--context", 5000, says="1024")
        self.refused(*run, "-p", "x " * 30, "--context", 8, says="do not fit")
        self.refused(*run, "-p", "x", "--logit-bias", "13", says="ID=BIAS")
        self.refused(*run, "-p", "x", "--logit-bias", "99999=1", says="99999")
        self.refused(*run, "-p", "x", "--stop", "", says="stop string")
        self.refused("run", SMALL, "-p", "x", says="tokenizer.json")


class Kernels(CliTest):
    def test_one_kernel_of_each_variant_is_used(self):
        rows = json.loads(self.ok("kernels", "--json").stdout)
        variants = {(row["op"], row["variant"]) for row in rows}
        for variant in variants:
            used = [row["name"] for row in rows if (row["op"], row["variant"]) == variant and row["selected"]]
            self.assertEqual(len(used), 1, variant)
        for row in rows:
            self.assertTrue(row["selected"] != bool(row["reason"]), row)

    def test_every_instruction_set_gives_the_same_greedy_text(self):
        rows = json.loads(self.ok("kernels", "--json").stdout)
        isas = {row["name"].rsplit("__", 1)[1] for row in rows
                if row["selected"] or row["reason"].endswith("comes first")}
        self.assertIn("ref", isas)
        # The kernels of all instruction sets give the same bits. The reference sums in double, and in int8 a sum's last
        # bit can decide a rounding, and that the next layer's: logits move by some tenths, which a near tie does not
        # survive. In float they move by a thousandth.
        for tokens, options, compared in ((24, ["--float-activations"], isas), (6, [], isas), (64, [], isas - {"ref"})):
            texts = {}
            for isa in compared:
                env = {"UPG_FORCE_KERNEL": isa}
                forced = json.loads(self.ok("kernels", "--json", env=env).stdout)
                self.assertTrue(all(row["selected"] for row in forced if row["name"] == f"matmul_trellis3_q8__{isa}"))
                texts[isa] = self.ok("run", self.demo, "-p", "The history of the United", "-n", tokens,
                                     "--temperature", 0, *options, env=env).stdout
            self.assertLessEqual(len(set(texts.values())), 1, texts)

    def test_an_unknown_kernel_is_refused(self):
        for command in (["kernels"], ["run", self.demo, "-p", "x", "-n", 1]):
            self.refused(*command, env={"UPG_FORCE_KERNEL": "avx9"}, says='"avx9"')


class Bench(CliTest):
    def test_a_made_up_model_is_measured_and_compared_with_an_earlier_run(self):
        kept = self.tmp / "kept.upg"
        args = ["bench", "--shape", "tiny", "--keep", kept, "--prompt", "16,32", "--context", "8,100", "--tokens", 2,
                "--rounds", 1]
        done = self.ok(*args, "--json")
        earlier = json.loads(done.stdout)
        self.assertEqual(done.stderr, "")
        self.assertEqual([row["tokens"] for row in earlier["prompts"]], [16, 32])
        self.assertEqual([row["context"] for row in earlier["generation"]], [8, 100])
        for row in earlier["generation"]:
            self.assertGreater(row["tokens_per_second"], 0)
            self.assertGreater(row["weight_bytes"], 0)
        self.ok("verify", kept)
        record = self.tmp / "earlier.json"
        record.write_text(done.stdout)
        written = kept.stat().st_mtime_ns
        table = self.ok(*args, "--compare", record).stdout
        self.assertEqual(kept.stat().st_mtime_ns, written, "a kept model is used again")
        self.assertEqual(table.count("x earlier"), 4)
        self.assertIn("memory reads", table)

    def test_a_made_up_model_leaves_no_file(self):
        folder = self.tmp / "scratch"
        folder.mkdir()
        self.ok("bench", "--shape", "tiny", "--prompt", 8, "--context", 8, "--tokens", 1, "--rounds", 1,
                env={"TMPDIR": str(folder)})
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_checkpoint_can_be_measured_too(self):
        report = json.loads(self.ok("bench", SMALL, "--prompt", 4, "--tokens", 1, "--rounds", 1, "--json").stdout)
        self.assertEqual(report["generation"][0]["context"], 62, "the model has 64 positions")

    def test_mistakes_are_refused(self):
        self.refused("bench", status=2, says="--shape")
        self.refused("bench", "--shape", "phi-5", says="phi-4")
        self.refused("bench", "--shape", "tiny", "--ratio", 50, says="ratio 50")
        self.refused("bench", self.demo, "--shape", "tiny", status=2)
        self.refused("bench", self.demo, "--rounds", 0, says="rounds")
        self.refused("bench", self.demo, "--prompt", 0, says="prompt of 0")
        self.refused("bench", "--kernels", "--device", "tpu", says="tpu")
        broken = self.tmp / "broken.json"
        broken.write_text("[")
        self.refused("bench", self.demo, "--compare", broken, says=str(broken))


class Devices(CliTest):
    def test_a_device_that_is_not_there_is_refused_before_the_model_is_opened(self):
        absent = self.tmp / "absent.upg"
        self.refused("run", absent, "-p", "x", "--device", "tpu", says="choose one of: cpu, cuda")
        self.refused("run", absent, "-p", "x", "--device", "cuda", "--fusion", "half", says="none, graph, layer, token")
        self.refused("run", absent, "-p", "x", "--fusion", "token", says="cpu device has no fusions")

    def test_layers_on_the_gpu_are_a_number_of_them_and_of_the_cuda_device(self):
        absent = self.tmp / "absent.upg"
        for command in (["run", absent, "-p", "x"], ["bench", absent], ["eval", absent, "--text", absent]):
            self.refused(*command, "--gpu-layers", 3, says="choose --device cuda")
            for nonsense in ("0", "-1", "half", "1.5", "0x10", "", "99999999999999999999"):
                self.refused(*command, "--device", "cuda", "--gpu-layers", nonsense, status=2,
                             says=f'--gpu-layers: "{nonsense}" is no number of layers: give 1 or more, or --device cpu')
        self.refused("bench", "--kernels", "--device", "cuda", "--gpu-layers", 3, status=2, says="--gpu-layers")

    def test_without_cuda_or_a_gpu_the_program_says_so(self):
        done = subprocess.run([UPG, "run", self.demo, "-p", "The history of", "-n", "1", "--device", "cuda"],
                              capture_output=True, text=True)
        if done.returncode == 0:
            self.skipTest("this build has CUDA and this machine a GPU")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "this build has no CUDA|no CUDA device was found")


class BrokenFiles(CliTest):
    def test_paths_that_lead_nowhere_are_named(self):
        absent = self.tmp / "absent"
        for args in (["inspect", absent], ["verify", absent], ["decompress", absent, "-o", self.tmp / "x"],
                     ["run", absent, "-p", "x"], ["compress", absent, "-o", self.tmp / "x"],
                     ["eval", absent, "--text", absent], ["eval", self.demo, "--text", absent],
                     ["eval", self.demo, "--task", "lambada", "--data", absent]):
            self.refused(*args, says=str(absent))
        self.refused("compress", SMALL, "-o", absent / "deeper/out.upg", "--codec", "trellis2", says=str(absent))
        self.refused("compress", DEMO, "-o", self.tmp / "x.upg", "--calibrate", absent, says=str(absent))
        self.refused("compress", SMALL, "-o", self.tmp / "x.upg", "--ratio", 5, says="no tokenizer.json")
        empty = self.tmp / "empty_directory"
        empty.mkdir(exist_ok=True)
        self.refused("inspect", empty, says="config.json")

    def test_other_files_are_refused(self):
        for name, content in (("empty", b""), ("text", b"Hello, this is not a model at all."), ("zeros", bytes(1000)),
                              ("ones", b"\xff" * 1000)):
            path = self.tmp / name
            path.write_bytes(content)
            self.refused("inspect", path, says=name)
        self.refused("inspect", SMALL / "model.safetensors", says="model.safetensors")

    def test_truncation_at_many_lengths(self):
        whole = self.small.read_bytes()
        path = self.tmp / "truncated.upg"
        lengths = [*range(0, 24), *range(24, len(whole), len(whole) // 60), len(whole) - 1]
        for n, length in enumerate(lengths):
            path.write_bytes(whole[:length])
            command = (["inspect", path], ["verify", path], ["run", path, "-p", "x"])[n % 3]
            self.refused(*command, says="truncated.upg")

    def test_flipped_header_bytes(self):
        whole = self.small.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        path = self.tmp / "flipped.upg"
        for at in range(0, header, header // 80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            self.refused("verify", path, says="flipped.upg")

    def test_flipped_data_is_found_by_verify(self):
        whole = self.small.read_bytes()
        path = self.tmp / "data.upg"
        for at in (len(whole) - 1, len(whole) - 1000, len(whole) // 2 + 2000):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
            self.refused("verify", path, says="data.upg")

    def test_wrong_configuration_fields_are_named(self):
        for key, value, says in (("hidden_size", "36", 'hidden_size is "36"'), ("hidden_act", "gelu", "hidden_act"),
                                 ("num_hidden_layers", 3, "model.layers.2."), ("architectures", ["X"], '"X"'),
                                 ("vocab_size", 1 << 40, "vocab_size"), ("rope_scaling", {"a": 1}, "rope_scaling"),
                                 ("num_attention_heads", None, "num_attention_heads")):
            model = self.tmp / "wrong_config"
            shutil.copytree(SMALL, model)
            config = json.loads((model / "config.json").read_text())
            config[key] = value
            (model / "config.json").write_text(json.dumps(config))
            for args in (["run", model, "-p", "x"], ["compress", model, "-o", self.tmp / "x.upg"]):
                self.refused(*args, says=says)
            shutil.rmtree(model)
        self.assertFalse((self.tmp / "x.upg").exists())

    def test_too_many_threads_are_refused(self):
        self.refused("run", self.demo, "-p", "x", "--threads", 10_000_000, says="10000000 threads")


class Interrupts(CliTest):
    def interrupt(self, args, signum, ready):
        process = subprocess.Popen([UPG, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ready(process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def test_compress_leaves_nothing(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            with tempfile.TemporaryDirectory(dir=self.tmp) as folder:
                out = pathlib.Path(folder) / "out.upg"
                status, _, err = self.interrupt(["compress", DEMO, "-o", out, "--threads", 1], signum,
                                                lambda _: time.sleep(0.3))
                self.assertEqual(status, 130, err)
                self.assertIn("interrupted", err)
                self.assertEqual(list(pathlib.Path(folder).iterdir()), [])

    def test_a_killed_compression_goes_on_where_it_was(self):
        args = ["--calibration-tokens", 4096, "--ratio", 9]
        whole, out = self.tmp / "whole.upg", self.tmp / "killed.upg"
        self.ok("compress", DEMO, "-o", whole, *args)
        partial = pathlib.Path(f"{out}.partial")

        def until_a_matrix_is_there(_):
            while not partial.exists() or partial.stat().st_size < 1_500_000:
                time.sleep(0.01)

        status, _, _ = self.interrupt(["compress", DEMO, "-o", out, *args], signal.SIGKILL, until_a_matrix_is_there)
        self.assertEqual(status, -signal.SIGKILL)
        self.assertFalse(out.exists())
        self.refused("verify", partial, says=str(partial))
        before = partial.stat().st_size
        status, _, err = self.interrupt(["compress", DEMO, "-o", out, *args], signal.SIGTERM,
                                        lambda _: time.sleep(0.5))
        self.assertEqual(status, 130, err)
        self.assertGreaterEqual(partial.stat().st_size, before - 1_000_000, "at most the torn record was dropped")
        self.ok("compress", DEMO, "-o", out, *args)
        self.assertEqual(out.read_bytes(), whole.read_bytes())
        self.assertFalse(partial.exists())

    def test_a_full_disk_is_an_error_and_what_was_done_is_kept(self):
        args = ["compress", DEMO, "-o", self.tmp / "full.upg", "--codec", "trellis3", "--calibrate", "none"]

        def files_of_two_megabytes_at_most():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

        done = subprocess.run([UPG, *map(str, args)], capture_output=True, text=True,
                              preexec_fn=files_of_two_megabytes_at_most, timeout=600)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"\Aupg: cannot write [^\n]*full.upg.partial[^\n]*\n\Z")
        self.assertFalse((self.tmp / "full.upg").exists())
        self.assertGreater((self.tmp / "full.upg.partial").stat().st_size, 1_000_000)
        self.ok(*args)
        self.ok("verify", self.tmp / "full.upg")
        self.assertFalse((self.tmp / "full.upg.partial").exists())

    def test_run_stops(self):
        status, _, err = self.interrupt(["run", DEMO, "-p", "The", "-n", 1000, "--ignore-eos"], signal.SIGINT,
                                        lambda process: process.stdout.read(1))
        self.assertEqual(status, 130, err)
        self.assertIn("cancelled", err)


if __name__ == "__main__":
    main()
