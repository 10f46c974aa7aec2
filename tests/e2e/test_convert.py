#!/usr/bin/env python3
"""upg convert from outside: a 1.0 pickle of the bundled model, as the prototype wrote it, becomes the 2.0 file that
compress makes, and that a 3.0 file; pickles that would run something are refused and run nothing.

  test_convert.py [TEST...]      the program is $UPG, or build/release/upg of this repository

Tests that write 1.0 files need NumPy; forms of SciPy and torch are tested where those are installed.
"""
import importlib.util
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import unittest
import zipfile

from cli import DEMO, ROOT, SMALL, UPG, CliTest, main

GENERATOR = ROOT / "scripts/make_legacy_models.py"
LEGACY = ROOT / "tests/data/legacy"
needs_numpy = unittest.skipUnless(importlib.util.find_spec("numpy"), "NumPy is not installed")


def stored(path):
    """Metadata, and each stored tensor's type, shape and bytes."""
    data = path.read_bytes()
    size, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__")
    return metadata, {name: (info["dtype"], info["shape"], data[8 + size + info["data_offsets"][0]:8 + size + info["data_offsets"][1]])
                      for name, info in header.items()}


class Convert(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.new = cls.tmp / "demo_2.0.upg"
        done = subprocess.run([UPG, "compress", DEMO, "-o", cls.new, "--codec", "mdcsr", "--density", "0.2", "--calibrate", "none"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(done.stderr)

    def legacy(self, form, source=None):
        path = self.tmp / f"{form}.upg1"
        subprocess.run([sys.executable, "-W", "ignore", GENERATOR, source or self.new, path, "--form", form], check=True)
        return path

    def text(self, model):
        return self.ok("run", model, "-p", "The history of the United", "-n", 24, "--temperature", 0).stdout

    @needs_numpy
    def test_the_bundled_model_survives_from_1_0_to_3_0(self):
        old = self.legacy("protocol4")
        second, third = self.tmp / "second.upg", self.tmp / "third.upg"
        self.assertIn("UPG 1.0, a pickle", self.ok("convert", old, "-o", second).stdout)
        self.assertIn("whole", self.ok("verify", second).stdout)
        metadata, tensors = stored(second)
        expected_metadata, expected = stored(self.new)
        self.assertEqual(tensors.keys(), expected.keys())
        for name in expected:
            if name.split(".")[-1] in ("values", "delta_indices", "row_pointers", "scales"):
                self.assertEqual(tensors[name], expected[name], name)
        self.assertEqual(metadata["upg.version"], "2.0")
        self.assertEqual(json.loads(metadata["upg.config"]), json.loads(expected_metadata["upg.config"]))
        text = self.text(self.new)
        self.assertEqual(self.text(second), text)
        report = json.loads(self.ok("convert", second, "-o", third, "--json").stdout)
        self.assertEqual((report["from"], report["format"], report["notes"]), ("2.0", "UPG 3.0", []))
        self.assertIn("whole", self.ok("verify", third).stdout)
        self.assertEqual(self.text(third), text)
        self.refused("convert", third, "-o", self.tmp / "x.upg", says="nothing to convert")

    @needs_numpy
    def test_every_form_that_can_be_written_here_gives_the_same_file(self):
        sys.path.insert(0, str(ROOT / "scripts"))
        import make_legacy_models
        expected = None
        for form, (needs, _) in make_legacy_models.FORMS.items():
            if importlib.util.find_spec(needs) is None or form == "odd_layouts" or needs == "torch":
                continue
            with self.subTest(form):
                out = self.tmp / "form.upg"
                self.ok("convert", self.legacy(form, LEGACY / "model.upg"), "-o", out)
                expected = expected or out.read_bytes()
                self.assertEqual(out.read_bytes(), expected)

    def test_a_file_that_is_half_full_takes_less_as_3_0_and_decodes_to_the_same(self):
        second, third = self.tmp / "full_2.0.upg", self.tmp / "full_3.0.upg"
        self.ok("compress", SMALL, "-o", second, "--codec", "mdcsr", "--density", "0.8", "--calibrate", "none")
        self.ok("convert", second, "-o", third)
        self.assertLess(third.stat().st_size, second.stat().st_size)
        self.assertIn("int8", self.ok("inspect", third).stdout)
        for name, path in (("a", second), ("b", third)):
            self.ok("decompress", path, "-o", self.tmp / name)
        self.assertEqual((self.tmp / "a/model.safetensors").read_bytes(), (self.tmp / "b/model.safetensors").read_bytes())

    def test_what_a_file_lacks_comes_from_the_checkpoint(self):
        with zipfile.ZipFile(LEGACY / "zip_numpy2.upg1") as archive:
            data = archive.read("model.pkl")
        lacking = self.tmp / "lacking.pkl"
        lacking.write_bytes(data.replace(b"\x8c\x05model\x94", b"\x8c\x05m0del\x94", 1))
        out = self.tmp / "lacking.upg"
        self.refused("convert", lacking, "-o", out, says="--checkpoint")
        self.assertFalse(out.exists())
        self.ok("convert", lacking, "-o", out, "--checkpoint", SMALL)
        self.assertIn("whole", self.ok("verify", out).stdout)


class Refused(CliTest):
    def test_pickles_that_would_run_something_run_nothing(self):
        witness = self.tmp / "witness"

        class Gadget:
            def __init__(self, function, *args):
                self.call = function, args

            def __reduce__(self):
                return self.call

        command = f"touch {witness}"
        gadgets = {"posix.system": Gadget(os.system, command), "builtins.eval": Gadget(eval, f"open({str(witness)!r}, 'w')"),
                   "builtins.exec": Gadget(exec, f"open({str(witness)!r}, 'w')"), "subprocess.Popen": Gadget(subprocess.Popen, command),
                   "builtins.__import__": Gadget(__import__, "os")}
        for name, gadget in gadgets.items():
            for protocol in range(6):
                with self.subTest(name, protocol=protocol):
                    data = pickle.dumps({"version": "1.0", "layers": {"a.weight": gadget}}, protocol)
                    source = self.tmp / "old.upg"
                    source.write_bytes(data)
                    said = self.refused("convert", source, "-o", self.tmp / "new.upg", says="refused: ")
                    # Protocols below 3 have Python 2's names: __builtin__, commands.
                    self.assertIn(name.split(".")[-1] if protocol < 3 else name, said)
                    self.assertRegex(said, r" at byte \d+")
                    archive = io.BytesIO()
                    with zipfile.ZipFile(archive, "w") as z:
                        z.writestr("archive/data.pkl", data)
                    source.write_bytes(archive.getvalue())
                    self.refused("convert", source, "-o", self.tmp / "new.upg", says="archive/data.pkl: refused: ")
        self.assertFalse(witness.exists())
        self.assertFalse((self.tmp / "new.upg").exists())

    def test_mistakes_and_files_of_other_kinds(self):
        self.refused("convert", self.demo, status=2)
        self.refused("convert", self.tmp / "absent", "-o", self.tmp / "x", says="absent")
        self.refused("convert", ROOT / "README.md", "-o", self.tmp / "x", says="not a well-formed pickle")
        self.refused("convert", SMALL / "model.safetensors", "-o", self.tmp / "x", says="not a UPG file")
        self.refused("convert", self.demo, "-o", self.tmp / "x", "--to", "1.0", says="not one to convert to")
        self.refused("convert", LEGACY / "protocol4_numpy2.upg1", "-o", self.tmp / "none/x", says="none")


if __name__ == "__main__":
    main()
