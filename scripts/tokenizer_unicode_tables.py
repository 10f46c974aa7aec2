#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cc: where Hugging Face `tokenizers` and our Unicode libraries see code points differently.

The tables are measured from the PyPI package itself, over all code points, so that they hold whatever Unicode version
each of its parts was built with. Needs Python 3.11 (its unicodedata is Unicode 14, the version of PCRE2 10.42).
"""
import itertools
import pathlib
import struct
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


def wrapped(items):
    return textwrap.wrap(", ".join(items), 116, initial_indent="    ", subsequent_indent="    ")


def packed(points):
    return wrapped(f"{{0x{a:x},0x{b:x}}}" for a, b in ranges(points))


def grapheme_counter():
    """A normalizer that shows how the Precompiled normalizer cuts a text into grapheme clusters.

    Its trie has every byte, with "X" for what it stands for: a cluster of less than 6 bytes becomes one X, of a longer
    one each character does.
    """
    units = [0] * 1024
    units[0] = 256 << 10
    for byte in range(1, 256):
        units[256 ^ byte] = (256 ^ byte ^ 512) << 10 | 1 << 8 | byte
    trie = struct.pack("<1024I", *units)
    counter = normalizers.Precompiled(struct.pack("<I", len(trie)) + trie + b"X\0")
    return lambda *characters: len(counter.normalize_str("".join(characters)))


def grapheme_bits(marks):
    """What each code point does to the boundaries next to it, as far as they matter in clusters of less than 6 bytes.

    Marks that decompositions or short clusters cannot tell apart are left out: no boundary depends on them.
    """
    count = grapheme_counter()
    acute, joiner, copyright, ka, virama = "\u0301", "\u200d", "\u00a9", "\u0915", "\u094d"
    bits = {}
    for point in CODE_POINTS:
        c = chr(point)
        size = len(c.encode())
        joins = count("x", c) == 1
        emoji_extend = joins and point != 0x200D and count(copyright, c, joiner, copyright, acute) == 5
        linker = joins and count(ka, c, ka, acute) == 4
        flags = {
            "Joins": joins,
            "Prepend": not joins and count(c, "x") == 1,
            "Control": not joins and count(c, acute, acute) == 2,
            "Pictographic": not joins and count(copyright, joiner, c) == 3,
            "Extend": emoji_extend,
            "Consonant": not joins and count(c, virama, ka, acute) == 4,
            "Linker": linker,
            "ConjunctExtend": joins and not linker and count(ka, virama, c, ka, acute) == 5,
            "Vowel": not joins and count(c, "x") == 2 and not 0xAC00 <= point <= 0xD7A3 and not 0x11A8 <= point <= 0x11FF
            and not 0xD7CB <= point <= 0xD7FB and count(c, "\u11a8", acute) == 3,
            "Leading": not joins and size == 3 and not 0xAC00 <= point <= 0xD7A3 and count(c, "x") == 2
            and count(c, "\u1160", acute) == 3 and count("\u1160", c, acute) == 2,
        }  # fmt: skip
        value = sum(1 << i for i, flag in enumerate(flags.values()) if flag)
        if value:
            bits[point] = value
    return bits


def bit_ranges(bits):
    out = []
    for point, value in sorted(bits.items()):
        if out and out[-1][1] == point - 1 and out[-1][2] == value:
            out[-1][1] = point
        else:
            out.append([point, point, value])
    return out


def changed_by(normalizer, **options):
    step = normalizer(**options)
    return [c for c in CODE_POINTS if step.normalize_str(chr(c)) != chr(c)]


def late_lowercase():
    """(first, last, what to add, distance from one to the next) of what Python's Unicode does not change in this way."""
    lower = normalizers.Lowercase()
    late = []
    for point in CODE_POINTS:
        small = lower.normalize_str(chr(point))
        if small != chr(point).lower():
            assert len(small) == 1
            late.append((point, ord(small) - point))
    return [(*ends, delta) for delta, group in itertools.groupby(late, key=lambda pair: pair[1])
            for ends in ranges([point for point, _ in group])]  # fmt: skip


def emit_ranges(name, points, comment):
    lines = [*textwrap.wrap(comment, 116, initial_indent="// ", subsequent_indent="// "),
             f"constexpr CodePointRange {name}Data[] = {{", *packed(points)]  # fmt: skip
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
        ("kDecomposing", changed_by(normalizers.NFD), "What the NFD of the package, that of an old Unicode, takes apart."),
        ("kCompatibility", changed_by(normalizers.NFKD), "What its NFKD takes apart."),
        ("kAccents", changed_by(normalizers.StripAccents), "What StripAccents removes: the marks of an old Unicode."),
    ):
        lines = emit_ranges(name, points, comment)
        bodies += lines[:-2] + [""]
        tails.append(lines[-2])
    bodies += ["// Boundaries of grapheme clusters as the Precompiled normalizer sees them; graphemes.cc has the bits.",
               "constexpr GraphemeRange kGraphemeData[] = {",
               *wrapped(f"{{0x{a:x},0x{b:x},{v}}}" for a, b, v in bit_ranges(grapheme_bits(marks))), "};", ""]  # fmt: skip
    tails.append("const std::span<const GraphemeRange> kGraphemeRanges{kGraphemeData};")
    bodies += ["// Lower case of letters that came after Unicode 14.", "constexpr LateLowercase kLowercaseData[] = {",
               *wrapped(f"{{0x{a:x},0x{b:x},{d}}}" for a, b, d in late_lowercase()), "};", ""]  # fmt: skip
    tails.append("const std::span<const LateLowercase> kLateLowercase{kLowercaseData};")
    out += bodies + ["}  // namespace", "", "const std::span<const LateCodePoints> kLateCodePoints{kLateData};", *tails, ""]
    out += ["}  // namespace upg", ""]
    path = pathlib.Path(__file__).resolve().parent.parent / "src/text/unicode_tables.cc"
    path.write_text("\n".join(out))


if __name__ == "__main__":
    main()
