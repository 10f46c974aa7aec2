#!/usr/bin/env python3
"""Writes tests/data/tokenizers: expected ids from Hugging Face `tokenizers`, and vocabularies in a compact form.

    tokenizer_test_data.py vectors TOKENIZER_JSON NAME COUNT [TEXTS_JSON]   writes NAME.vectors.json
    tokenizer_test_data.py compact TOKENIZER_JSON NAME                      writes NAME.tokenizer.json, NAME.merges.txt

TEXTS_JSON holds {"vectors": [{"text", "ids"}]}: texts to put first, whose ids must come out as given.
The compact form serves vocabularies of 256 bytes followed by the merges' results; tests/data/tokenizers/README.md has it.
"""
import json
import pathlib
import random
import sys

from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data/tokenizers"
sys.path.insert(0, str(ROOT / "tests"))

import conformance_tokenizer as conformance  # noqa: E402
from tokenizer_from_ranks import ALPHABET  # noqa: E402


def write_vectors(path, name, count, texts_path=None):
    tokenizer = Tokenizer.from_file(path)
    given = json.loads(pathlib.Path(texts_path).read_text())["vectors"] if texts_path else []
    rng = random.Random(conformance.SEED)
    specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = [vector["text"] for vector in given] + ["", " ", "\n", *conformance.WORDS]
    texts += [space * n + "x" for space in conformance.SPACES for n in (1, 3)]
    texts += [a + space for a in ("x", "1") for space in conformance.SPACES]
    while len(texts) < count:
        texts.append(conformance.random_string(rng, specials))
    lines = []
    for i, text in enumerate(texts[:count]):
        ids = tokenizer.encode(text).ids
        assert i >= len(given) or ids == given[i]["ids"], text
        lines.append(json.dumps({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}))
    (DATA / f"{name}.vectors.json").write_text('{"vectors": [\n' + ",\n".join(lines) + "\n]}\n")


def write_compact(path, name):
    tokenizer = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    model = tokenizer["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    tokens = sorted(ALPHABET.values()) + [merge.replace(" ", "") for merge in merges]
    if any(model["vocab"].get(token) != i for i, token in enumerate(tokens)):
        sys.exit(f"{path}: the vocabulary is not the bytes followed by the merges")
    rest = {token: i for token, i in model["vocab"].items() if i >= len(tokens)}
    model.update(vocab=rest, merges=[])
    (DATA / f"{name}.tokenizer.json").write_text(json.dumps(tokenizer, separators=(",", ":")) + "\n")
    (DATA / f"{name}.merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")


def main(arguments):
    if len(arguments) in (4, 5) and arguments[0] == "vectors":
        write_vectors(arguments[1], arguments[2], int(arguments[3]), *arguments[4:])
    elif len(arguments) == 3 and arguments[0] == "compact":
        write_compact(*arguments[1:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
