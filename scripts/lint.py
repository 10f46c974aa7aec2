#!/usr/bin/env python3
"""House rules that no other tool checks: file length, opening comments, machine paths, switches outside the lists.

  lint.py [ROOT]      prints FILE:LINE: message for each breach; exits 1 if there is one
"""
import pathlib
import re
import subprocess
import sys

MAX_LINES = 600
CODE = {".cc", ".h", ".cu", ".cuh", ".py", ".sh", ".cmake"}
DATA = ("models/", "tests/data/", "fuzz/corpus/", "bench/results/")
# Written by scripts/generate_primes.py and scripts/tokenizer_unicode_tables.py.
GENERATED = {"src/codec/primes.inc", "src/text/unicode_tables.cc"}

MACHINE_FOLDER = r"/(?:work|farm|root|home/\w+)/"
MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.])" + MACHINE_FOLDER)
# Whatever stands before: in a binary file that may be the path's length, which can look like a letter.
MACHINE_PATH_IN_DATA = re.compile(MACHINE_FOLDER.encode())
AXIS = r"\b\w*(?:codec|architecture|arch|model_type)\w*"
SWITCH = re.compile(r"\bswitch\s*\([^)]*" + AXIS, re.IGNORECASE)
COMPARISON = re.compile(AXIS + r"(?:\(\))?(?:(?:\.|->)(?:id|name)(?:\(\))?)?\s*[!=]=\s*\"", re.IGNORECASE)
PLATFORM_IF = re.compile(r"^\s*#\s*(?:el)?if.*\bUPG_(?:X86_SIMD|ARM_SIMD|CUDA)\b")


def tracked(root):
    """Files that git tracks or would: ignored ones are nobody's business."""
    out = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         check=True, capture_output=True).stdout
    return sorted({name for name in out.decode().split("\0") if name and (root / name).is_file()})


def check_text(name, text):
    """Yields (line, message). `name` is relative to the root."""
    path = pathlib.PurePosixPath(name)
    lines = text.splitlines()
    generated = name in GENERATED
    code = path.suffix in CODE or path.name in ("dev", "run", "CMakeLists.txt")
    if code and not generated and len(lines) > MAX_LINES:
        yield len(lines), f"has {len(lines)} lines, {MAX_LINES} are the limit: does it still do one thing?"
    source = path.suffix in (".cc", ".h") and name.startswith(("src/", "include/", "apps/"))
    if path.suffix == ".h" and source and lines and not lines[0].startswith("//"):
        yield 1, "a header opens with a comment that says what it does"
    for number, line in enumerate(lines, 1):
        if MACHINE_PATH.search(line):
            yield number, "names a path of one machine"
        if not source or name.endswith("_test.cc"):
            continue
        if SWITCH.search(line) and not line.lstrip().startswith("//"):
            yield number, "switches over a codec or architecture: make it a field of its row in the list"
        if COMPARISON.search(line) and not line.lstrip().startswith("//"):
            yield number, "compares a codec or architecture with a name: make it a field of its row in the list"
        if PLATFORM_IF.search(line) and not name.startswith(("src/kernels/", "src/codec/layout/")):
            yield number, "platform conditionals belong in src/kernels"


def check_data(data):
    """Yields (line, message) for the bytes of a data file; its lines are what newlines end, in binary files too."""
    for found in MACHINE_PATH_IN_DATA.finditer(data):
        yield data.count(b"\n", 0, found.start()) + 1, "names a path of one machine"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent).resolve()
    errors = []
    names = tracked(root)
    for name in names:
        data = (root / name).read_bytes()
        if name.startswith(DATA):
            breaches = check_data(data)
        elif b"\0" in data:
            breaches = [(1, "is binary; data lives in models/, tests/data/ and fuzz/corpus/")]
        else:
            breaches = check_text(name, data.decode("utf-8"))
        errors += [f"{name}:{line}: {message}" for line, message in breaches]
    for error in errors:
        print(error, file=sys.stderr)
    print(f"lint: {len(errors)} problems" if errors else f"lint: {len(names)} files are in order")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
