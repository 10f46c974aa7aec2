#!/usr/bin/env python3
"""Checks what may include what, and that kernels.inc and the kernels agree.

  check_layers.py [ROOT]      prints FILE:LINE: message for each breach; exits 1 if there is one

The rules, with their reasons, are in docs/architecture.md.
"""
import pathlib
import re
import sys

# A file includes its own folder and folders of a lower number; equal numbers never see each other.
LEVELS = {"base": 0, "format": 1, "codec": 1, "pickle": 1, "kernels": 3, "ops": 4, "model": 5, "text": 5, "grammar": 5,
          "cuda": 6, "engine": 7, "compress": 7, "convert": 7, "export": 7, "bench": 8, "hub": 8}
PUBLIC_HEADERS_FROM = 5  # layers below this number see only upg/error.h and upg/progress.h of the public headers
LOW_PUBLIC_HEADERS = {"upg/error.h", "upg/progress.h"}

# A matrix by itself and the texts in a file are no part of the public headers; the Python module has them.
PYTHON_HEADERS = {"codec/codec_table.h", "codec/primes.h", "model/weights.h", "ops/linear.h"}

# Inline functions compiled for one instruction set may be linked into code that runs without it: these sources get
# integers and intrinsics, nothing that defines functions.
ISA_HEADERS = {"immintrin.h", "arm_neon.h", "arm_sve.h", "stdint.h", "cstdint", "stddef.h", "cstddef"}
C_HEADERS = {"assert.h", "float.h", "limits.h", "math.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
ROW = re.compile(r"^\s*UPG_KERNEL\(\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*,[^)]*\)")
DEFINITION = re.compile(r"^\s*void\s+(\w+?__)(##)?(\w+)\(const \w+& \w+\) noexcept\s*\{")
MACRO = re.compile(r"^\s*#\s*define\s+(UPG_\w+_KERNELS)\((\w+)\)")
EXPANSION = re.compile(r"^\s*(UPG_\w+_KERNELS)\((\w+)\)")
SOURCES = ("*.h", "*.cc", "*.inc", "*.cuh", "*.cu")


def is_standard(header):
    return "/" not in header and ("." not in header or header in C_HEADERS)


def is_test(path):
    return path.stem.endswith("_test") or path.stem.startswith("test_")


def is_isa_source(path):
    return re.search(r"__[a-z0-9]+$", path.stem) is not None or path.stem.endswith("-inl")


def includes(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def files(folder):
    return sorted(p for pattern in SOURCES for p in folder.rglob(pattern)) if folder.is_dir() else []


class Checker:
    def __init__(self, root):
        self.root = root
        self.errors = []

    def error(self, path, line, message):
        self.errors.append(f"{path.relative_to(self.root)}:{line}: {message}")

    def run(self):
        src = self.root / "src"
        for folder in sorted(p for p in src.iterdir() if p.is_dir()) if src.is_dir() else []:
            if folder.name not in LEVELS:
                self.error(folder, 1, f"layer {folder.name} has no number: add it to LEVELS in scripts/check_layers.py")
                continue
            for path in files(folder):
                self.check_source(path, folder.name)
        for path in files(self.root / "include"):
            self.check_public(path)
        for path in files(self.root / "apps"):
            self.check_app(path)
        for path in files(self.root / "examples"):
            self.check_app(path)
        for path in files(self.root / "python"):
            self.check_app(path, PYTHON_HEADERS)
        self.check_kernels()
        return self.errors

    def check_source(self, path, layer):
        parts = path.relative_to(self.root / "src").parts
        layout = parts[:2] == ("codec", "layout")
        fast_kernel = layer == "kernels" and parts[1] != "ref" and not is_test(path)
        isa = fast_kernel and is_isa_source(path)
        for line, quoted, header in includes(path):
            if layout:
                if quoted or not is_standard(header):
                    self.error(path, line, f"a layout includes only the standard library, not {header}")
                continue
            if isa and not self.isa_may_include(quoted, header):
                self.error(path, line, f"a source for one instruction set includes only intrinsics, integers, "
                                       f"codec/layout/, kernels/args.h and kernels/cpu/*-inl.h, not {header}")
                continue
            if not quoted:
                continue
            self.check_quoted(path, line, header, layer, fast_kernel)

    def isa_may_include(self, quoted, header):
        if not quoted:
            return header in ISA_HEADERS
        return (header == "kernels/args.h" or header.startswith("codec/layout/")
                or (header.startswith("kernels/cpu/") and header.endswith("-inl.h")))

    def check_quoted(self, path, line, header, layer, fast_kernel):
        top = header.split("/")[0]
        if top == "upg":
            if not (self.root / "include" / header).is_file():
                self.error(path, line, f"{header} does not exist in include/")
            elif LEVELS[layer] < PUBLIC_HEADERS_FROM and header not in LOW_PUBLIC_HEADERS and not is_test(path):
                self.error(path, line, f"{layer} may not include {header}: of the public headers, layers below model and "
                                       f"text see only upg/error.h and upg/progress.h")
            return
        if not (self.root / "src" / header).is_file():
            self.error(path, line, f"{header} does not exist in src/ (includes are written from src/ or include/)")
            return
        if top not in LEVELS:
            self.error(path, line, f"{header} is in no layer")
            return
        # Tests may also use their equals: they link every layer.
        below = LEVELS[top] <= LEVELS[layer] if is_test(path) else LEVELS[top] < LEVELS[layer]
        if top != layer and not below:
            self.error(path, line, f"{layer} (level {LEVELS[layer]}) may not include {header} (level {LEVELS[top]})")
        elif fast_kernel and not (top in ("kernels", "base") or header.startswith("codec/layout/")):
            self.error(path, line, f"kernels see only kernels/, base/ and codec/layout/, not {header}; "
                                   f"kernels/ref/ may use codec/")

    def check_public(self, path):
        for line, quoted, header in includes(path):
            if not (header.startswith("upg/") if quoted else is_standard(header)):
                self.error(path, line, f"a public header includes only upg/ and the standard library, not {header}")

    def check_app(self, path, allowed=frozenset()):
        for line, quoted, header in includes(path):
            own = (path.parent / header).is_file() or (self.root / "apps" / header).is_file()
            if header in allowed:
                continue
            internal = header.split("/")[0] in LEVELS and (self.root / "src" / header).is_file()
            if internal or (quoted and not header.startswith("upg/") and not own):
                self.error(path, line, f"apps and examples include only upg/, folders of apps and third-party headers, "
                                       f"not {header}")

    # Rows of kernels.inc against definitions, written out or made by a UPG_..._KERNELS(isa) macro of an -inl.h.
    def check_kernels(self):
        table = self.root / "src/kernels/kernels.inc"
        if not table.is_file():
            return
        rows = {}
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
            match = ROW.match(line)
            if match:
                name = "{}_{}__{}".format(*match.groups())
                if name in rows:
                    self.error(table, number, f"{name} is listed twice, first in line {rows[name]}")
                rows[name] = number
        sources = [p for p in files(self.root / "src/kernels") if not is_test(p)]
        macros = {}
        defined = {}
        for path in sources:
            macro = None
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                start = MACRO.match(line)
                if start:
                    macro = macros.setdefault(start.group(1), [])
                found = DEFINITION.match(line)
                if found:
                    prefix, pasted, isa = found.groups()
                    if pasted and macro is not None:
                        macro.append(prefix)
                    else:
                        defined.setdefault(prefix + isa, (path, number))
                if not line.rstrip().endswith("\\"):
                    macro = None
        for path in sources:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                use = EXPANSION.match(line)
                if use:
                    if use.group(1) not in macros:
                        self.error(path, number, f"{use.group(1)} is defined in no header of src/kernels")
                    for prefix in macros.get(use.group(1), []):
                        defined.setdefault(prefix + use.group(2), (path, number))
        for name, number in rows.items():
            if name not in defined:
                self.error(table, number, f"no source in src/kernels defines {name}")
        for name, (path, number) in defined.items():
            if name not in rows:
                self.error(path, number, f"{name} has no row in src/kernels/kernels.inc")
            isa = name.rsplit("__", 1)[1]
            home = "ref" if path.parent.name == "ref" else path.stem.rsplit("__", 1)[-1]
            if isa != home:
                self.error(path, number, f"{name} is defined in a source that is compiled for {home}")
        self.check_isa_flags(sources)

    def check_isa_flags(self, sources):
        layers = self.root / "cmake/layers.cmake"
        known = set(re.findall(r"UPG_ISA_FLAGS_(\w+)", layers.read_text(encoding="utf-8"))) if layers.is_file() else set()
        for path in sources:
            match = re.search(r"__([a-z0-9]+)$", path.stem)
            if match and path.suffix == ".cc" and match.group(1) not in known:
                self.error(path, 1, f"cmake/layers.cmake has no UPG_ISA_FLAGS_{match.group(1)}")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent).resolve()
    errors = Checker(root).run()
    for error in errors:
        print(error, file=sys.stderr)
    print(f"layers: {len(errors)} problems" if errors else "layers: every include and kernel row is in its place")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
