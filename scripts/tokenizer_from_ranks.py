#!/usr/bin/env python3
"""Builds a tokenizer.json from a vocabulary that is published in another form.

    tokenizer_from_ranks.py gpt2 VOCAB_JSON MERGES_TXT OUT
    tokenizer_from_ranks.py llama3|qwen2|cl100k TIKTOKEN_FILE OUT

A tiktoken file lists tokens by rank, not merges. Where every token can be reached by merging, its merge is the last step
of encoding it with lower ranks only. Llama 3 has tokens that cannot, and its published tokenizer.json lists every split
of every token into two tokens.
"""
import base64
import json
import sys

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
FAMILIES = {
    "llama3": {
        "pattern": LETTERS + r"\p{N}{1,3}" + REST,
        "normalizer": None,
        "ignore_merges": True,
        "all_splits": True,
        "specials": ["<|begin_of_text|>", "<|end_of_text|>"]
        + [f"<|reserved_special_token_{i}|>" for i in range(4)]
        + ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
        + [f"<|reserved_special_token_{i}|>" for i in range(5, 251)],
        "bos": "<|begin_of_text|>",
    },
    "qwen2": {
        "pattern": LETTERS + r"\p{N}" + REST,
        "normalizer": {"type": "NFC"},
        "ignore_merges": False,
        "all_splits": False,
        "specials": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "bos": None,
    },
    "cl100k": {
        "pattern": LETTERS + r"\p{N}{1,3}" + REST,
        "normalizer": None,
        "ignore_merges": False,
        "all_splits": False,
        "specials": [],
        "bos": None,
    },
}


def byte_alphabet():
    """The character that stands for each byte."""
    table, extra = {}, 256
    for b in range(256):
        if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE:
            table[b] = chr(b)
        else:
            table[b] = chr(extra)
            extra += 1
    return table


ALPHABET = byte_alphabet()


def spell(token):
    return "".join(ALPHABET[b] for b in token)


def merge_of(token, ranks):
    """The two parts that the last step of encoding `token` joins."""
    parts = [bytes([b]) for b in token]
    limit = ranks[token]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(zip(parts, parts[1:]))]
        rank, i = min(pairs)
        if rank >= limit:
            sys.exit(f"token {limit} cannot be reached by merging")
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def splits_of(token, ranks):
    splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
    return sorted(splits, key=lambda split: (ranks[split[0]], ranks[split[1]]))


def byte_level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, **options}


def added_token(token_id, content):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}


def from_tiktoken(family, path):
    ranks = {}
    with open(path, "rb") as lines:
        for line in lines:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    rules = FAMILIES[family]
    merges = []
    for token in sorted((t for t in ranks if len(t) > 1), key=ranks.get):
        pairs = splits_of(token, ranks) if rules["all_splits"] else [merge_of(token, ranks)]
        merges += [[spell(left), spell(right)] for left, right in pairs]
    base = max(ranks.values()) + 1
    specials = [added_token(base + i, name) for i, name in enumerate(rules["specials"])]
    bos = rules["bos"]
    template = bos and {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [base + rules["specials"].index(bos)], "tokens": [bos]}},
    }
    split = {"type": "Split", "pattern": {"Regex": rules["pattern"]}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": specials,
        "normalizer": rules["normalizer"],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level(use_regex=False)]},
        "post_processor": template,
        "decoder": byte_level(use_regex=False),
        "model": bpe({spell(t): r for t, r in ranks.items()}, merges, rules["ignore_merges"]),
    }


def bpe(vocab, merges, ignore_merges):
    empty = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    return {
        "type": "BPE",
        **empty,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": vocab,
        "merges": merges,
    }


def from_gpt2(vocab_path, merges_path):
    with open(vocab_path, encoding="utf-8") as file:
        vocab = json.load(file)
    with open(merges_path, encoding="utf-8") as file:
        merges = [line for line in file.read().split("\n") if line and not line.startswith("#version")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(vocab["<|endoftext|>"], "<|endoftext|>")],
        "normalizer": None,
        "pre_tokenizer": byte_level(use_regex=True),
        "post_processor": byte_level(use_regex=True),
        "decoder": byte_level(use_regex=True),
        "model": bpe(vocab, merges, False),
    }


def main(arguments):
    if len(arguments) == 4 and arguments[0] == "gpt2":
        tokenizer = from_gpt2(*arguments[1:3])
    elif len(arguments) == 3 and arguments[0] in FAMILIES:
        tokenizer = from_tiktoken(*arguments[:2])
    else:
        sys.exit(__doc__)
    with open(arguments[-1], "w", encoding="utf-8") as out:
        json.dump(tokenizer, out, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main(sys.argv[1:])
