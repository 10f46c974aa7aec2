#!/usr/bin/env python3
"""Builds tokenizer.json files of the SentencePiece families from trained SentencePiece models.

    tokenizer_families.py train TEXT FOLDER     trains small models on TEXT: FOLDER/{bpe,unigram,rules}.model
    tokenizer_families.py FAMILY MODEL OUT      writes the tokenizer.json of a family: gemma, llama2, t5, xlm-r

What is around the vocabulary (normalizer, pre-tokenizer, decoder, post-processor) is what the published files of the
family have.
"""
import base64
import json
import pathlib
import struct
import sys

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"


def fields(data):
    """(number, value) of each field of a protobuf message; numbers for varints, bytes for the rest."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield key >> 3, data[at : at + size]
        at += size


class Model:
    """What a SentencePiece file says: pieces as (text, score, type), and the character map."""

    def __init__(self, path):
        self.pieces, self.charsmap = [], b""
        for number, value in fields(pathlib.Path(path).read_bytes()):
            if number == 1:
                piece = dict(fields(value))
                score = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0]
                self.pieces.append((piece[1].decode(), score, piece.get(3, NORMAL)))
            elif number == 3:
                self.charsmap = dict(fields(value)).get(2, b"")

    def special(self):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        kinds = (UNKNOWN, CONTROL, USER_DEFINED)
        return [{"id": i, "content": text, **flags, "special": kind != USER_DEFINED}
                for i, (text, _, kind) in enumerate(self.pieces) if kind in kinds]  # fmt: skip

    def bpe(self):
        """Every split of every piece into two pieces, by the score of the whole, then by the ids of the parts."""
        ids = {text: i for i, (text, _, _) in enumerate(self.pieces)}
        merges = []
        for text, score, kind in self.pieces:
            splits = [(text[:i], text[i:]) for i in range(1, len(text))]
            splits = [s for s in splits if s[0] in ids and s[1] in ids]
            splits.sort(key=lambda split: (ids[split[0]], ids[split[1]]))
            merges += [(score, split) for split in splits]
        merges.sort(key=lambda merge: -merge[0])
        return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": ids,
                "merges": [list(split) for _, split in merges]}  # fmt: skip

    def unigram(self, byte_fallback=False):
        unknown = next(i for i, piece in enumerate(self.pieces) if piece[2] == UNKNOWN)
        return {"type": "Unigram", "unk_id": unknown, "vocab": [[text, score] for text, score, _ in self.pieces],
                "byte_fallback": byte_fallback}  # fmt: skip

    def precompiled(self):
        return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(self.charsmap).decode()}

    def id(self, text):
        return next(i for i, piece in enumerate(self.pieces) if piece[0] == text)


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def replace(old, new):
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def template(model, *order):
    """`order`: names of special tokens, and None for the text."""
    single = [{"SpecialToken": {"id": name, "type_id": 0}} if name else {"Sequence": {"id": "A", "type_id": 0}}
              for name in order]  # fmt: skip
    names = {n: {"id": n, "ids": [model.id(n)], "tokens": [n]} for n in order if n}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": names}


def metaspace(**options):
    return {"type": "Metaspace", "replacement": SPACE, "add_prefix_space": True, **options}


STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
FUSED = ({"type": "ByteFallback"}, {"type": "Fuse"})
PREPEND = {"type": "Prepend", "prepend": SPACE}


def family(name, model):
    parts = {
        "gemma": lambda: {
            "normalizer": replace(" ", SPACE),
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                              "invert": False},
            "post_processor": template(model, "<s>", None),
            "decoder": sequence("decoders", replace(SPACE, " "), *FUSED),
            "model": model.bpe(),
        },
        "llama2": lambda: {
            "normalizer": sequence("normalizers", PREPEND, replace(" ", SPACE)),
            "pre_tokenizer": None,
            "post_processor": template(model, "<s>", None),
            "decoder": sequence("decoders", replace(SPACE, " "), *FUSED, STRIP),
            "model": model.bpe(),
        },
        "t5": lambda: {
            "normalizer": model.precompiled(),
            "pre_tokenizer": metaspace(prepend_scheme="always"),
            "post_processor": template(model, None, "</s>"),
            "decoder": metaspace(prepend_scheme="always"),
            "model": model.unigram(),
        },
        "xlm-r": lambda: {
            "normalizer": sequence("normalizers", model.precompiled(),
                                   {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
            "pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, metaspace()),
            "post_processor": template(model, "<s>", None, "</s>"),
            "decoder": metaspace(),
            "model": model.unigram(),
        },
    }[name]()  # fmt: skip
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": model.special(), **parts}


def train(text, folder):
    import sentencepiece

    common = {"input": text, "vocab_size": 1000, "input_sentence_size": 4000, "max_sentence_length": 20000,
              "character_coverage": 0.999, "minloglevel": 2, "num_threads": 1}  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        model_prefix=f"{folder}/bpe", model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        user_defined_symbols=["<|user|>", "\n\n"], **common)  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        model_prefix=f"{folder}/unigram", model_type="unigram", normalization_rule_name="nmt_nfkc",
        user_defined_symbols=["<extra_1>", "<extra_0>"], **common)  # fmt: skip
    rules = pathlib.Path(folder) / "rules.tsv"  # a character map of a few lines
    rules.write_text("".join(f"{old}\t{new}\n" for old, new in RULES))
    sentencepiece.SentencePieceTrainer.train(
        model_prefix=f"{folder}/rules", model_type="unigram", normalization_rule_tsv=str(rules), byte_fallback=True,
        **{**common, "vocab_size": 700})  # fmt: skip


RULES = [("1E9E", "73 73"), ("AD", ""), ("A0", "20"), ("3000", "20"), ("FB01", "66 69"), ("2026", "2E 2E 2E"),
         ("65 301", "E9"), ("FF21", "41"), ("9", "20"), ("A", "20")]  # fmt: skip


def main(arguments):
    if len(arguments) != 3:
        sys.exit(__doc__)
    if arguments[0] == "train":
        train(*arguments[1:])
        return
    tokenizer = family(arguments[0], Model(arguments[1]))
    with open(arguments[2], "w", encoding="utf-8") as out:
        json.dump(tokenizer, out, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main(sys.argv[1:])
