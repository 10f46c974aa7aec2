#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cc: where Hugging Face `tokenizers` and our Unicode libraries see code points differently.

The tables are measured from the PyPI package itself, over all code points, so that they hold whatever Unicode version
each of its parts was built with. Needs Python 3.11 (its unicodedata is Unicode 14, the version of PCRE2 10.42).
"""
import pathlib
import sys
import textwrap
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()
SCRIPTS = "Arabic Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana Katakana Latin Thai".split()
# Compose only in Unicode versions after that of the package's NFC: Dives Akuru, Tulu-Tigalari, Kirat Rai.
LATE_COMPOSITIONS = [0x11930, 0x11935, 0x11938, *range(0x11380, 0x113D0), *range(0x16D63, 0x16D6B)]
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(points):
    out = []
    for c in sorted(set(points)):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def regex_set(pattern, points):
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed")
    return [c for c in points if not split.pre_tokenize_str(chr(c))]


def inert_marks(marks):
    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    parts = {p for c in CODE_POINTS for p in nfd.normalize_str(chr(c)) if nfd.normalize_str(chr(c)) != chr(c)}
    def inert(c):
        x = chr(c)
        probes = (x, x + "\u0334", "a\u0345" + x)
        return x not in parts and all(nfc.normalize_str(p) == p for p in probes)
    return [c for c in marks if inert(c)]


def packed(points):
    items = [f"{{0x{a:x},0x{b:x}}}" for a, b in ranges(points)]
    return textwrap.wrap(", ".join(items), 116, initial_indent="    ", subsequent_indent="    ")


def emit_ranges(name, points, comment):
    lines = [f"// {comment}", f"constexpr CodePointRange {name}Data[] = {{", *packed(points)]
    lines += ["};", f"const std::span<const CodePointRange> {name}{{{name}Data}};", ""]
    return lines


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"Python 3.11 (Unicode 14.0.0) is needed, this one has Unicode {unicodedata.unidata_version}")
    unassigned = [c for c in CODE_POINTS if unicodedata.category(chr(c)) == "Cn"]
    late = {cat: regex_set(rf"\p{{{cat}}}", unassigned) for cat in CATEGORIES}
    late.update({script: regex_set(rf"\p{{{script}}}", unassigned) for script in SCRIPTS})
    marks = regex_set(r"\p{M}", CODE_POINTS)
    digits = pre_tokenizers.Digits()
    numeric = [c for c in CODE_POINTS if len(digits.pre_tokenize_str("x" + chr(c))) == 2]
    punct = pre_tokenizers.Punctuation("removed")
    punctuation = [c for c in CODE_POINTS if not punct.pre_tokenize_str(chr(c))]

    out = [
        "// Code points that Hugging Face tokenizers classifies otherwise than our libraries do. Written by",
        f"// scripts/tokenizer_unicode_tables.py from tokenizers {tokenizers.__version__}; do not edit.",
        '#include "text/unicode.h"',
        "",
        "// clang-format off",
        "namespace upg {",
        "namespace {",
        "",
    ]
    index = []
    for name in CATEGORIES + SCRIPTS:
        if late[name]:
            out += [f"constexpr CodePointRange kLate{name}[] = {{"]
            out += [*packed(late[name]), "};"]
            index.append(f'    {{"{name}", kLate{name}}},')
        else:
            index.append(f'    {{"{name}", {{}}}},')
    out += ["", "constexpr LateCodePoints kLateData[] = {", *index, "};", ""]
    bodies, tails = [], []
    for name, points, comment in (
        ("kNumeric", numeric, "Rust's char::is_numeric, which the Digits pre-tokenizer asks."),
        ("kPunctuation", punctuation, "What the Punctuation pre-tokenizer takes: ASCII symbols and an old Unicode's P."),
        ("kNormalizationBarriers", inert_marks(marks) + LATE_COMPOSITIONS,
         "Code points that neither reorder nor compose in the NFC of the package."),
    ):
        lines = emit_ranges(name, points, comment)
        bodies += lines[:-2] + [""]
        tails.append(lines[-2])
    out += bodies + ["}  // namespace", "", "const std::span<const LateCodePoints> kLateCodePoints{kLateData};", *tails, ""]
    out += ["}  // namespace upg", ""]
    path = pathlib.Path(__file__).resolve().parent.parent / "src/text/unicode_tables.cc"
    path.write_text("\n".join(out))


if __name__ == "__main__":
    main()
