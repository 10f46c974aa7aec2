"""Variants of the SentencePiece-like tokenizers that between them use every part and option of these families."""
import json

from conformance_tokenizer import DATA

SPACE = "\u2581"


def replace(old, new, kind="String"):
    return {"type": "Replace", "pattern": {kind: old}, "content": new}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def metaspace(**options):
    return {"type": "Metaspace", "replacement": SPACE, **options}


def normalizers(charsmap):
    strip = {"type": "Strip", "strip_left": True, "strip_right": False}
    right = {"type": "Strip", "strip_left": False, "strip_right": True}
    yield from ({"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"))
    yield from (strip, right, {**strip, "strip_right": True}, replace("e", ""), replace("\\s+", " ", "Regex"))
    yield sequence("normalizers", {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"})
    yield sequence("normalizers", {"type": "Nmt"}, {"type": "NFKC"}, replace(" {2,}", " ", "Regex"))
    yield sequence("normalizers", charsmap, {**strip, "strip_right": True}, replace(" {2,}", SPACE, "Regex"))
    yield sequence("normalizers", strip, {"type": "Prepend", "prepend": "a" + SPACE}, replace(" ", SPACE))


def pretokenizers():
    white, words = {"type": "WhitespaceSplit"}, {"type": "Whitespace"}
    yield from (metaspace(prepend_scheme=scheme, split=split)
                for scheme in ("always", "first", "never") for split in (True, False))  # fmt: skip
    yield metaspace(add_prefix_space=True, str_rep=SPACE)
    yield metaspace(add_prefix_space=False, prepend_scheme="never")
    yield from (white, words, None)
    yield from (sequence("pretokenizers", first, metaspace(prepend_scheme=scheme))
                for first in (white, words, {"type": "Digits", "individual_digits": True}, {"type": "Punctuation"})
                for scheme in ("always", "first"))  # fmt: skip


def decoders():
    yield metaspace(prepend_scheme="never")
    yield metaspace(prepend_scheme="first")
    yield sequence("decoders", replace(SPACE, " "), {"type": "Fuse"})
    yield sequence("decoders", replace(SPACE, " "), {"type": "Strip", "content": "e", "start": 1, "stop": 0})
    yield sequence("decoders", metaspace(), {"type": "Strip", "content": " ", "start": 2, "stop": 0})
    yield sequence("decoders", replace("[ae]+", "<0x41>", "Regex"), {"type": "Fuse"},
                   {"type": "Strip", "content": "t", "start": 3, "stop": 0})  # fmt: skip
    yield {"type": "ByteFallback"}


def models(bpe, unigram):
    rare = {token: i for token, i in bpe["vocab"].items() if token not in ("<0xC3>", "<0xE2>")}
    for fuse in (True, False):
        yield {**bpe, "fuse_unk": fuse, "vocab": rare}
        yield {**bpe, "fuse_unk": fuse, "byte_fallback": False}
    yield {**bpe, "unk_token": None, "vocab": rare}
    yield {**bpe, "ignore_merges": True}
    first = [[f"<0x{byte:02X}>", -20.0] for byte in range(256) if byte not in (0xE3, 0xF0)]
    yield {**unigram, "byte_fallback": True, "vocab": unigram["vocab"] + first}
    yield {**unigram, "vocab": [[token, score * (1 + i % 7) / 3.3] for i, (token, score) in enumerate(unigram["vocab"])]}
    yield {**unigram, "vocab": [[token, -round(-score)] for token, score in unigram["vocab"]]}


def added_tokens(size):
    contents = ["the", "'", " ", "Hello", "\u00e9", "12", "<", "<|im", "a\u0328\u0301"]  # whose normalized forms differ: of equal ones the package takes any
    for flags in range(0, 32, 3):
        keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {key: bool(flags >> bit & 1) for bit, key in enumerate(keys)}
        extra = [{"id": size + i, "content": c, **options} for i, c in enumerate(contents)]
        for token in extra[::3]:
            token["normalized"] = not token["normalized"]
        yield extra


def sentencepiece_variants(folder):
    bpe, unigram = (json.loads((DATA / f"{name}.tokenizer.json").read_text(encoding="utf-8"))
                    for name in ("llama-2-like", "t5-like"))  # fmt: skip
    variants = []
    for base in (bpe, unigram):
        variants += [{**base, "normalizer": part} for part in normalizers(unigram["normalizer"])]
        variants += [{**base, "pre_tokenizer": part} for part in pretokenizers()]
        variants += [{**base, "pre_tokenizer": part, "normalizer": None} for part in pretokenizers()]
        variants += [{**base, "decoder": part} for part in decoders()]
        known = {token["content"] for token in base["added_tokens"]}
        vocabulary = base["model"]["vocab"]
        ids = vocabulary if isinstance(vocabulary, dict) else {token: i for i, (token, _) in enumerate(vocabulary)}
        for tokens in added_tokens(len(ids)):
            fresh = iter(range(len(ids), len(ids) + len(tokens)))
            tokens = [{**t, "id": ids[t["content"]] if t["content"] in ids else next(fresh)} for t in tokens]
            tokens = base["added_tokens"] + [t for t in tokens if t["content"] not in known]
            variants.append({**base, "added_tokens": tokens})
            variants.append({**base, "added_tokens": tokens, "normalizer": {"type": "Lowercase"}})
    for model in models(bpe["model"], unigram["model"]):
        base = bpe if model["type"] == "BPE" else unigram
        variants.append({**base, "model": model})
    pair = {"sep": ["</s>", 2], "cls": ["<s>", 1]}
    variants.append({**bpe, "post_processor": {"type": "BertProcessing", **pair}})
    roberta = {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": True, **pair}
    variants.append({**bpe, "post_processor": roberta})
    for i, variant in enumerate(variants):
        path = folder / f"sentencepiece-variant-{i}.json"
        path.write_text(json.dumps(variant), encoding="utf-8")
        yield path
