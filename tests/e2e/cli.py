"""What the end-to-end tests share: the program, two small compressed models, and checks of how a command ends."""
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
SMALL = ROOT / "tests/data/models/one_kv_head_bf16"


def upg(*args, env=None, binary=False, typed=None):
    """`typed` goes to its stdin."""
    stdin = {"stdin": subprocess.DEVNULL} if typed is None else {"input": typed}
    return subprocess.run([UPG, *map(str, args)], capture_output=True, text=not binary, timeout=600,
                          env={**os.environ, **(env or {})}, **stdin)


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_cli_"))
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.demo = cls.tmp / "demo.upg"
        cls.small = cls.tmp / "small.upg"
        for model, target, args in ((DEMO, cls.demo, ["--codec", "trellis3"]), (SMALL, cls.small, ["--codec", "trellis2"])):
            done = upg("compress", model, "-o", target, "--calibrate", "none", *args)
            if done.returncode != 0:
                raise AssertionError(done.stderr)

    def ok(self, *args, **kwargs):
        done = upg(*args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, *args, status=1, says="", **kwargs):
        """The command fails with one clean line on stderr that has `says`, and prints nothing to stdout."""
        done = upg(*args, **kwargs)
        self.assertEqual(done.returncode, status, f"{args}: {done.stdout}{done.stderr}")
        self.assertIn(says, done.stderr)
        self.assertEqual(done.stdout, "")
        if status == 1:
            self.assertRegex(done.stderr, r"\Aupg: [^\n]+\n\Z")
        return done.stderr


def main():
    if not UPG.is_file():
        sys.exit(f"{UPG} is not there: build it, or name the program in UPG")
    unittest.main()
