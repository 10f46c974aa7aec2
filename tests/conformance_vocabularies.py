#!/usr/bin/env python3
"""Compares what is read of SentencePiece models and rank files with `sentencepiece` and `tiktoken`.

    conformance_vocabularies.py --driver BUILD/tokenizer_driver [--count N] [--allowed N] FILE[:MODEL_TYPE] ...

A rank file is one of llama3's tokenizer.model, qwen.tiktoken, cl100k_base.tiktoken; any other is a SentencePiece model.
SentencePiece looks up character maps by the longest match instead of by grapheme cluster, adds scores as floats, and puts
no prefix behind user-defined pieces. What is read of its models encodes as Hugging Face `tokenizers` does, so that with
such models --allowed says how many texts of a thousand may differ; with rank files none may.
"""
import argparse
import base64
import pathlib
import random
import sys

from tokenizers import normalizers

import conformance_tokenizer as conformance

sys.path.insert(0, str(conformance.ROOT / "scripts"))
import tokenizer_families as families  # noqa: E402
import tokenizer_from_ranks as ranks  # noqa: E402

RANK_FILES = {"tokenizer.model": "llama3", "qwen.tiktoken": "qwen2", "cl100k_base.tiktoken": "cl100k"}


def tiktoken_oracle(path):
    import tiktoken

    rules = ranks.FAMILIES[RANK_FILES[path.name]]
    table = {base64.b64decode(t): int(r) for t, r in (line.split() for line in path.read_bytes().splitlines())}
    encoding = tiktoken.Encoding("t", pat_str=rules["pattern"], mergeable_ranks=table, special_tokens={})
    if rules["normalizer"] is None:
        return encoding.encode_ordinary
    # Not Python's form, which is that of its own Unicode version.
    normalizer = getattr(normalizers, rules["normalizer"]["type"])()
    return lambda text: encoding.encode_ordinary(normalizer.normalize_str(text))


def sentencepiece_oracle(path):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return processor.encode


def compare(driver, name, count, allowed):
    path, _, model_type = str(name).partition(":")
    path = pathlib.Path(path)
    rng = random.Random(conformance.SEED)
    texts = [conformance.random_string(rng, []) for _ in range(count)]
    results = conformance.run_driver(driver, path, texts, plain=True, model_type=model_type)
    is_ranks = path.read_bytes()[:1] != b"\n"
    encode = tiktoken_oracle(path) if is_ranks else sentencepiece_oracle(path)
    bad = []
    for text, (ids, _) in zip(texts, results):
        expected = encode(text)
        if ids != expected:
            bad.append((text, expected, ids))
    for text, expected, ids in bad[:3]:
        print(f"  differs: {text!r}\n    expected {expected}\n    got      {ids}")
    print(f"{path}: {count} strings, {len(bad)} differences")
    return len(bad) > (0 if is_ranks else count * allowed / 1000)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--allowed", type=float, default=0)
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    bad = [compare(arguments.driver, name, arguments.count, arguments.allowed) for name in arguments.files]
    sys.exit(1 if any(bad) else 0)


if __name__ == "__main__":
    main()
