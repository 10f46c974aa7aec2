#!/usr/bin/env python3
"""Writes what transformers makes of the chat templates in tests/data/chat_templates, for src/text/chat_template_test.cc.

  make_chat_goldens.py [DIR]      needs transformers, tokenizers and jinja2 from PyPI

DIR/*.jinja are the templates. DIR/conversations.json gets the conversations of tests/chat_cases.py, as requests;
DIR/TEMPLATE.golden.json the results in the same order: a text, or {"refused": MESSAGE}, whose message is empty where it
is not the template's own.
"""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import chat_cases  # noqa: E402


def golden(result):
    if not isinstance(result, Exception):
        return result
    return {"refused": str(result) if type(result).__name__ == "TemplateError" else ""}


def write(path, value):
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in value)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/data/chat_templates"
    chat_cases.fixed_clock()
    all_cases = list(chat_cases.cases())
    requests = []
    for name, *case in all_cases:
        request = chat_cases.request([], *case)
        del request["tokenizer_config"], request["now"]
        requests.append({"name": f"{name}, {'with' if case[-1] else 'without'} prompt", **request})
    write(folder / "conversations.json", requests)
    for path in sorted(folder.glob("*.jinja")):
        tokenizer = chat_cases.make_tokenizer(path.read_text(encoding="utf-8"))
        results = [golden(chat_cases.expected(tokenizer, *case[1:])) for case in all_cases]
        write(path.with_suffix(".golden.json"), results)
        print(f"{path.name}: {len(results)} renderings, {sum(isinstance(r, dict) for r in results)} refused")


if __name__ == "__main__":
    main()
