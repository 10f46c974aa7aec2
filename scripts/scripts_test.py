#!/usr/bin/env python3
"""Tests of check_layers.py and lint.py (each rule is broken once in a small tree), of fetch_sources.py, and of bench/quality.py
with stub tools."""
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest

import check_layers
import fetch_sources
import lint

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS_CMAKE = "set(UPG_ISA_FLAGS_avx2 -mavx2)\n"


class LayersTest(unittest.TestCase):
    def errors(self, files):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder).resolve()
            for name, text in {"cmake/layers.cmake": LAYERS_CMAKE, "include/upg/error.h": "", **files}.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_layers.Checker(root).run()

    def assert_breach(self, files, *words):
        errors = self.errors(files)
        self.assertEqual(len(errors), 1, errors)
        for word in words:
            self.assertIn(word, errors[0])

    def test_the_project_keeps_its_own_rules_for_kernel_rows(self):
        checker = check_layers.Checker(ROOT)
        checker.check_kernels()
        self.assertEqual(checker.errors, [])

    def test_lower_layers_are_allowed(self):
        self.assertEqual(self.errors({"src/base/a.h": "", "src/ops/b.cc": '#include "base/a.h"\n'}), [])

    def test_a_higher_layer_is_refused_with_file_and_line(self):
        self.assert_breach({"src/ops/a.h": "", "src/base/b.cc": '#include <vector>\n#include "ops/a.h"\n'},
                           "src/base/b.cc:2:", "may not include ops/a.h")

    def test_an_equal_layer_is_refused_except_in_tests(self):
        files = {"src/format/a.h": "", "src/codec/b.cc": '#include "format/a.h"\n'}
        self.assert_breach(files, "src/codec/b.cc:1:")
        self.assertEqual(self.errors({"src/format/a.h": "", "src/codec/b_test.cc": '#include "format/a.h"\n'}), [])

    def test_compress_does_not_see_the_engine(self):
        self.assert_breach({"src/engine/a.h": "", "src/compress/b.cc": '#include "engine/a.h"\n'}, "engine/a.h")

    def test_a_layout_includes_only_the_standard_library(self):
        self.assert_breach({"src/base/a.h": "", "src/codec/layout/b.h": '#include "base/a.h"\n'}, "layout")
        self.assert_breach({"src/codec/layout/b.h": "#include <fmt/format.h>\n"}, "layout")
        self.assertEqual(self.errors({"src/codec/layout/b.h": "#include <stdint.h>\n"}), [])

    def test_a_fast_kernel_does_not_see_codecs_but_the_reference_does(self):
        codec = {"src/codec/codec.h": ""}
        self.assert_breach({**codec, "src/kernels/k.cc": '#include "codec/codec.h"\n'}, "kernels see only")
        self.assertEqual(self.errors({**codec, "src/kernels/ref/k.cc": '#include "codec/codec.h"\n'}), [])

    def test_a_source_for_one_instruction_set_includes_nothing_that_defines_functions(self):
        self.assert_breach({"src/kernels/cpu/k__avx2.cc": "#include <cstring>\n"}, "one instruction set", "cstring")
        self.assert_breach({"src/base/f.h": "", "src/kernels/cpu/k-inl.h": '#include "base/f.h"\n'}, "base/f.h")
        self.assertEqual(self.errors({"src/kernels/cpu/k__avx2.cc": "#include <immintrin.h>\n"}), [])

    def test_a_missing_header_and_an_unknown_layer_are_named(self):
        self.assert_breach({"src/base/a.cc": '#include "base/gone.h"\n'}, "base/gone.h does not exist")
        self.assert_breach({"src/new/a.cc": ""}, "layer new has no number")

    def test_apps_see_only_public_headers(self):
        self.assert_breach({"src/base/a.h": "", "apps/cli/m.cc": '#include "base/a.h"\n'}, "apps/cli/m.cc:1:")
        files = {"apps/cli/m.h": "", "apps/cli/m.cc": '#include "upg/error.h"\n#include "m.h"\n'}
        self.assertEqual(self.errors(files), [])

    def test_low_layers_see_only_errors_of_the_public_headers(self):
        files = {"include/upg/engine.h": "", "src/ops/a.cc": '#include "upg/engine.h"\n'}
        self.assert_breach(files, "upg/engine.h")

    def test_public_headers_are_free_of_third_parties(self):
        self.assert_breach({"include/upg/a.h": "#include <nlohmann/json.hpp>\n"}, "public header")

    KERNEL = "void gemv_x__avx2(const GemvArgs& args) noexcept { run(args); }\n"

    def test_a_row_without_a_kernel_and_a_kernel_without_a_row_are_named(self):
        row = "UPG_KERNEL(gemv, x, avx2, 4)\n"
        self.assertEqual(self.errors({"src/kernels/kernels.inc": row, "src/kernels/cpu/k__avx2.cc": self.KERNEL}), [])
        self.assert_breach({"src/kernels/kernels.inc": row}, "kernels.inc:1:", "no source", "gemv_x__avx2")
        self.assert_breach({"src/kernels/kernels.inc": "", "src/kernels/cpu/k__avx2.cc": self.KERNEL}, "has no row")

    def test_kernels_made_by_a_macro_count(self):
        macro = ("#define UPG_X_KERNELS(isa)  \\\n  namespace upg {  \\\n"
                 "  void gemv_x__##isa(const GemvArgs& args) noexcept { run(args); } \\\n  }\n")
        files = {"src/kernels/kernels.inc": "UPG_KERNEL(gemv, x, avx2, 4)\n", "src/kernels/cpu/x-inl.h": macro,
                 "src/kernels/cpu/x__avx2.cc": "UPG_X_KERNELS(avx2)\n"}
        self.assertEqual(self.errors(files), [])

    def test_a_kernel_in_a_source_for_another_instruction_set_is_named(self):
        files = {"src/kernels/kernels.inc": "UPG_KERNEL(gemv, x, avx2, 4)\n", "src/kernels/cpu/k.cc": self.KERNEL}
        self.assert_breach(files, "gemv_x__avx2", "compiled for k")

    def test_an_instruction_set_without_flags_is_named(self):
        self.assert_breach({"src/kernels/kernels.inc": "", "src/kernels/cpu/k__sse9.cc": ""}, "UPG_ISA_FLAGS_sse9")


class LintTest(unittest.TestCase):
    def messages(self, name, text):
        return [message for _, message in lint.check_text(name, text)]

    def test_a_long_file_is_named_and_generated_data_is_not(self):
        self.assertEqual(len(self.messages("src/a.cc", "\n" * 601)), 1)
        self.assertEqual(self.messages("src/text/unicode_tables.cc", "\n" * 601), [])

    def test_machine_paths_are_named(self):
        for folder in ("work", "farm", "root", "home/someone"):
            self.assertEqual(len(self.messages("README.md", f"see /{folder}/x\n")), 1, folder)
        self.assertEqual(self.messages("README.md", "in framework/x and a/work/x\n"), [])

    def test_machine_paths_in_data_are_named_whatever_stands_before_them(self):
        for folder in (b"work", b"farm", b"root", b"home/someone"):
            for before in (b"", b"\x00\n!", b"\n\xffA"):  # of a string in a protocol buffer, its length comes before it
                data = before + b"/" + folder + b"/x\x80"
                self.assertEqual(list(lint.check_data(data)),
                                 [(1 + before.count(b"\n"), "names a path of one machine")], data)
        self.assertEqual(list(lint.check_data(b"\x00network/x /workshop/ /home/")), [])

    def test_the_command_reads_code_and_data(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            subprocess.run(["git", "init", "-q", root], check=True)
            files = {"a.cc": b"\0", "b.cc": b"// /%s/x\n" % b"root", "tests/data/c.model": b"\n\0A/%s/x" % b"work",
                     "tests/data/d.model": b"\0"}
            for name, data in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
            done = subprocess.run([sys.executable, lint.__file__, root], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertEqual([line.split(": ")[0] for line in done.stderr.splitlines()],
                             ["a.cc:1", "b.cc:1", "tests/data/c.model:2"])

    def test_switches_over_codec_or_architecture_are_named(self):
        self.assertEqual(len(self.messages("src/ops/a.cc", "switch (matrix.codec->kind) {\n")), 1)
        self.assertEqual(len(self.messages("src/ops/a.cc", 'if (matrix.codec->id == "trellis3") {\n')), 1)
        self.assertEqual(len(self.messages("src/ops/a.cc", 'if (config.architecture() == "LlamaForCausalLM") {\n')), 1)
        self.assertEqual(self.messages("src/ops/a.cc", "switch (dtype) {\nif (codec->activation == \"q8\")\n"), [])

    def test_platform_conditionals_outside_kernels_are_named(self):
        self.assertEqual(len(self.messages("src/ops/a.cc", "#if UPG_X86_SIMD\n")), 1)
        self.assertEqual(self.messages("src/kernels/kernels.inc", "#if UPG_X86_SIMD\n"), [])

    def test_a_header_without_an_opening_comment_is_named(self):
        self.assertEqual(len(self.messages("src/ops/a.h", "#pragma once\n")), 1)


class FetchSourcesTest(unittest.TestCase):
    def test_only_wanted_files_within_the_package_are_unpacked(self):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for name in ("p-1/cpp/a.cc", "p-1/cppx/b.cc", "p-1/LICENSE", "p-1/cpp/../../x", "/etc/cpp/x", "q/cpp/c.cc"):
                archive.addfile(tarfile.TarInfo(name))
            link = tarfile.TarInfo("p-1/cpp/link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        data.seek(0)
        with tarfile.open(fileobj=data) as archive:
            members = [inside for _, inside in fetch_sources.safe_members(archive, "p-1", ["cpp", "LICENSE"])]
        self.assertEqual(members, ["cpp/a.cc", "LICENSE"])

    def test_every_source_has_a_version_and_a_hash(self):
        rows = list(fetch_sources.rows(ROOT / "scripts/pypi_sources"))
        self.assertIn("xgrammar", [name for name, *_ in rows])
        for _, version, sha256, wanted in rows:
            self.assertRegex(version, r"^[0-9.]+$")
            self.assertRegex(sha256, r"^[0-9a-f]{64}$")
            self.assertIn("LICENSE", wanted)


class QualityBenchmarkTest(unittest.TestCase):
    """bench/quality.py, with scripts in place of upg and llama.cpp that print what those print."""

    PEER = """#!/bin/sh
for argument; do before=$last; last=$argument; done
case "$0 $*" in
  *--version*) echo 'version: 1.2 (abc)' >&2;;
  *llama-quantize*) head -c 1000 /dev/zero > "$before";;
  *--kl-divergence) echo 'Mean PPL(Q)/PPL(base)         :   1.096996 +- 0.0049'
    echo 'Mean    KLD:   0.160997 +- 0.001'; echo '99.0%   KLD:   0.935424'; echo 'Same top p: 75.388 +- 0.270 %';;
esac
"""
    UPG = """#!/bin/sh
case "$1" in
  eval) echo '{"perplexity_ratio": 1.05, "mean_kld": 0.09, "p99_kld": 0.5, "same_top1": 0.8, "reference_perplexity": 50}';;
  *) echo '{"seconds": 1, "weight_bytes": 400, "file_bytes": 500, "bits_per_weight": 3.2, "ratio_fp32": 10, "parameters": 1000}';;
esac
"""

    def test_rows_of_both_make_one_table(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for tool, text in {"upg": self.UPG, "llama-perplexity": self.PEER, "llama-imatrix": self.PEER,
                               "llama-quantize": self.PEER}.items():
                (folder / tool).write_text(text)
                (folder / tool).chmod(0o755)
            subprocess.run([sys.executable, ROOT / "bench/quality.py", "model", "text", "--upg", folder / "upg",
                            "--llama-cpp", folder, "--gguf", "m.gguf", "--calibration", "c", "--only", "ratio 10|IQ3_XXS",
                            "--out", folder / "out.json"], check=True, capture_output=True)
            result = json.loads((folder / "out.json").read_text())
            self.assertEqual([row["name"] for row in result["rows"]],
                             ["UPG --ratio 10", "UPG --ratio 10, data-free", "llama.cpp IQ3_XXS"])
            self.assertEqual(result["rows"][2]["mean_kld"], 0.160997)
            self.assertAlmostEqual(result["rows"][2]["same_top1"], 0.75388)
            self.assertEqual(result["rows"][2]["bits_per_weight"], 8.0)
            self.assertIn("| llama.cpp IQ3_XXS | 1,000 | 8.000 | 1.097 | 0.1610 | 0.935 | 75.4% |",
                          (folder / "out.md").read_text())


if __name__ == "__main__":
    unittest.main()
