#!/usr/bin/env python3
"""Compares our tokenizer with the PyPI package `tokenizers` on generated strings: ids, plain ids and decoded text.

    conformance_tokenizer.py --driver BUILD/tokenizer_driver [--count N] [--vectors DIR] [TOKENIZER_JSON ...]

Without paths it runs on the tokenizers in the repository (those whose merges are stored apart are put together first).
--vectors names a folder of ggml-vocab-*.gguf.inp and .out files, checked against tokenizers whose name or folder has
the family in it (gpt-2, falcon, llama-bpe, qwen2, llama-spm, phi-3).
"""
import argparse
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data/tokenizers"
SEED = 20240607
# File name of a vector set, and what the names of the tokenizers to check against it contain.
VECTOR_FAMILIES = {"gpt-2": "gpt-?2", "falcon": "falcon", "llama-bpe": "llama-?(3|bpe)", "qwen2": "qwen",
                   "llama-spm": "llama-?2(?!-like)", "phi-3": "phi-?3"}  # fmt: skip

WORDS = """the of and Hello world it's I'LL we've DON'T they'd naïve façade Straße groß İstanbul ſtrange 'ſ 'S 'Re K'ell
    1234567890 3.14159 1,000,000 $5.00 C++ x=y+1; foo_bar() https://example.com/a?b=c&d=e <html> {"a":[1,2]} ... --- ***
    Привет мир Ελλάδα שלום مرحبا नमस्ते สวัสดี 你好世界 こんにちは カタカナ 한국어 안녕 ٣٤٥ ⅷ ½ ² ẞ ﬁ ǆ 𝔘𝔫𝔦 𝟘𝟙 𐍈 🦙 👩‍👩‍👧 🇩🇪 é e\u0301
    a\u0328\u0301 o\u0302\u0323 \u1100\u1161\u11a8 \u212b \u0958 \ufb1d""".split()
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\u00a0", "\u0085", "\u180e", "\u2003", "\u2028", "\u3000",
          "\u200b", "\ufeff", "\v", "\f", "\x1c", "\x1f", "\u200d"]
BLOCKS = [(0x20, 0x7E), (0, 0x1F), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF),
          (0xE00, 0x11FF), (0x1680, 0x1CFF), (0x1E00, 0x20FF), (0x2100, 0x2BFF), (0x2E80, 0x30FF), (0x3400, 0x9FFF),
          (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xF900, 0xFFFD), (0x10000, 0x1FFFF), (0x20000, 0x323AF), (0xE0000, 0x10FFFF)]


def random_character(rng):
    while True:
        low, high = rng.choice(BLOCKS) if rng.random() < 0.9 else (0, 0x10FFFF)
        code = rng.randint(low, high)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def random_string(rng, specials):
    parts = []
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13))):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
        elif kind < 0.55:
            parts.append(rng.choice(SPACES) * rng.choice((1, 1, 1, 2, 7)))
        elif kind < 0.65:
            parts.append("".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9))))
        elif kind < 0.72 and specials:
            parts.append(rng.choice(specials))
        elif kind < 0.77:
            parts.append(rng.choice(WORDS).swapcase()[: rng.randint(1, 6)])
        elif kind < 0.80:
            parts.append("".join(rng.choice("!?.,;:'\"()[]{}<>|\\/@#$%^&*-_=+~`") for _ in range(rng.randint(1, 6))))
        elif kind < 0.82:
            parts.append(rng.choice("ab é漢🦙-") * rng.randint(20, 60))
        else:
            low, high = rng.choice(BLOCKS)
            for _ in range(rng.randint(1, 8)):
                code = rng.randint(low, high)
                parts.append(random_character(rng) if 0xD800 <= code < 0xE000 else chr(code))
        if rng.random() < 0.4:
            parts.append(" ")
    return "".join(parts)


def run_driver(driver, path, strings, plain=False, model_type=""):
    data = b"".join(struct.pack("<I", len(s)) + s for s in (text.encode() for text in strings))
    command = [driver, str(path), "--plain" if plain else "--special", model_type]
    out = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    at, results = 0, []
    for _ in strings:
        (count,) = struct.unpack_from("<I", out, at)
        ids = list(struct.unpack_from(f"<{count}i", out, at + 4))
        at += 4 + 4 * count
        (size,) = struct.unpack_from("<I", out, at)
        results.append((ids, out[at + 4 : at + 4 + size].decode()))
        at += 4 + size
    assert at == len(out)
    return results


def load(path):
    """The package cannot read merges "left right" of tokens that have spaces in them; it can as arrays."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(text)
    except Exception:
        root = json.loads(text)
        vocab, merges = root["model"]["vocab"], root["model"]["merges"]
        for i, merge in enumerate(merges):
            cuts = [(merge[:at], merge[at + 1 :]) for at, c in enumerate(merge) if c == " "]
            (merges[i],) = [[a, b] for a, b in cuts if a in vocab and b in vocab and a + b in vocab]
        return Tokenizer.from_str(json.dumps(root))


def compare(driver, path, count):
    theirs = load(path)
    theirs.no_truncation()
    specials = [token.content for token in theirs.get_added_tokens_decoder().values()]
    rng = random.Random(SEED)
    strings = [random_string(rng, specials) for _ in range(count)]
    bad = 0
    for plain in (False, True):
        theirs.encode_special_tokens = plain
        for begin in range(0, count, 10000):
            batch = strings[begin : begin + 10000]
            expected = [e.ids for e in theirs.encode_batch(batch, add_special_tokens=not plain)]
            decoded = theirs.decode_batch(expected, skip_special_tokens=False)
            for text, ids, back, ours in zip(batch, expected, decoded, run_driver(driver, path, batch, plain)):
                if ours != (ids, back):
                    bad += 1
                    if bad <= 5:
                        print(f"  differs (plain={plain}): {text!r}\n    expected {ids} {back!r}\n    got      {ours}")
    print(f"{path}: {count} strings, encoded twice, {bad} differences")
    return bad


def check_vectors(driver, folder, paths):
    bad = 0
    for name, pattern in VECTOR_FAMILIES.items():
        texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
        lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()
        for path in paths:
            if not re.search(pattern, f"{path.parent.name}/{path.name}"):
                continue
            results = run_driver(driver, path, texts, plain=True)
            wrong = [t for t, line, (ids, _) in zip(texts, lines, results) if ids != [int(i) for i in line.split()]]
            bad += len(wrong)
            print(f"{path}: {len(texts)} vectors of {name}, {len(wrong)} wrong {wrong[:3]}")
    return bad


def repository_tokenizers(folder):
    """models/demo's, and those of tests/data put together from their merges (see the README there)."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from tokenizer_from_ranks import ALPHABET

    yield ROOT / "models/demo/tokenizer.json"
    yield from sorted(DATA.glob("*-like.tokenizer.json"))
    for merges in sorted(DATA.glob("*.merges.txt")):
        name = merges.name.removesuffix(".merges.txt")
        tokenizer = json.loads((DATA / f"{name}.tokenizer.json").read_text(encoding="utf-8"))
        lines = [line for line in merges.read_text(encoding="utf-8").split("\n") if line]
        tokens = sorted(ALPHABET.values()) + [line.replace(" ", "") for line in lines]
        tokenizer["model"]["vocab"].update({token: i for i, token in enumerate(tokens)})
        tokenizer["model"]["merges"] = lines
        path = folder / f"{name}.json"
        path.write_text(json.dumps(tokenizer), encoding="utf-8")
        yield path


PATTERNS = [
    r"\w+|[^\w\s]+", r"\d", r"\W+", r"[\w]+", r"[\d\W]+", r"[^\S\r\n]+", r"[\S]+\s", r"[^\P{L}\p{Lu}]+", r"[\P{N}x]+", r"\p{^L}+", r"[\s-]+|[\w\-.]+",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?", r"[\p{P}\p{S}]+", r"\p{Han}+|\p{Hiragana}",
    r"[\u4e00-\u9fa5]+", r"\h+", r"(?<=\d)(?=\w)", r"x*", r"^.|.$", r"(?i)[k-s]+", r"\p{Mn}|\p{Zs}|\p{Cyrillic}|\p{Latin}{2,3}",
    r"\p{L}?+\p{N}++", r"[a\^\]\-\\]+", r"\x{1F999}|\x41|\v|\t", "", "(a|b)+|()", r"\.{1,3}",
]  # fmt: skip
BEHAVIORS = ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]


def variant_tokenizers(folder):
    """Variants of the demo tokenizer that between them use every supported part and option."""
    demo = json.loads((ROOT / "models/demo/tokenizer.json").read_text(encoding="utf-8"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    variants = []

    def add(pre=(), **changes):
        steps = {"type": "Sequence", "pretokenizers": [*pre, byte_level]}
        variants.append({**demo, "pre_tokenizer": steps, **changes})

    for i, pattern in enumerate(PATTERNS):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": BEHAVIORS[i % 5], "invert": i % 2 == 1}
        add([split])
    for i in range(10):
        add([{"type": "Split", "pattern": {"String": "a."[i // 5]}, "behavior": BEHAVIORS[i % 5], "invert": i >= 5}])
        add([{"type": "Punctuation", "behavior": BEHAVIORS[i % 5]}, {"type": "Digits", "individual_digits": i >= 5}])
    for i in range(4):
        add(pre_tokenizer={**byte_level, "add_prefix_space": i % 2 == 1, "use_regex": i >= 2})
    after = {**byte_level, "add_prefix_space": True}
    add([{"type": "Digits", "individual_digits": True}], pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Punctuation", "behavior": "Isolated"}, after, {"type": "Digits", "individual_digits": False}]})  # fmt: skip
    add(normalizer={"type": "NFC"})
    add(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]})
    add(model={**demo["model"], "ignore_merges": True})
    add(model={**demo["model"], "unk_token": "<|im_sep|>"}, pre_tokenizer=None)
    add(model={**demo["model"], "unk_token": "<|im_sep|>", "fuse_unk": True}, pre_tokenizer=None)
    add(model={**demo["model"], "merges": [" ".join(merge) for merge in demo["model"]["merges"]]})
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    first, last = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("<|endoftext|>", "two"))
    names = {"<|endoftext|>": [0], "two": [3, 2]}
    template = {"type": "TemplateProcessing", "single": [first, piece, last], "pair": [piece],
                "special_tokens": {n: {"id": n, "ids": ids, "tokens": [n] * len(ids)} for n, ids in names.items()}}  # fmt: skip
    add(post_processor=template)
    add(post_processor={"type": "Sequence", "processors": [byte_level, template]})
    size = len(demo["model"]["vocab"])
    contents = ["the", "'", " ", "Hello", "\u00e9", "12", "<", "<|im", "\U0001f999", "\n", "a\u0328\u0301"]
    for flags in range(32):
        keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {key: bool(flags >> bit & 1) for bit, key in enumerate(keys)}
        ids = {content: demo["model"]["vocab"].get(content) for content in contents}
        fresh = iter(range(size, size + len(contents)))
        extra = [{"id": next(fresh) if i is None else i, "content": c, **options} for c, i in ids.items()]
        for token in extra[::3]:
            token["normalized"] = not token["normalized"]
        add(added_tokens=demo["added_tokens"] + extra, normalizer={"type": "NFC"} if flags % 3 == 0 else None)
    for i, variant in enumerate(variants):
        path = folder / f"variant-{i}.json"
        path.write_text(json.dumps(variant), encoding="utf-8")
        yield path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--vectors", type=pathlib.Path)
    parser.add_argument("--variants", type=int, default=2000, help="strings for each variant of the demo tokenizer")
    parser.add_argument("tokenizers", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.tokenizers or list(repository_tokenizers(pathlib.Path(folder)))
        bad = sum(compare(arguments.driver, path, arguments.count) for path in paths)
        if arguments.variants:
            from tokenizer_variants import sentencepiece_variants

            variants = [*variant_tokenizers(pathlib.Path(folder)), *sentencepiece_variants(pathlib.Path(folder))]
            bad += sum(compare(arguments.driver, path, arguments.variants) for path in variants)
        if arguments.vectors:
            bad += check_vectors(arguments.driver, arguments.vectors, paths)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
