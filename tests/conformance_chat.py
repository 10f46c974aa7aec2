#!/usr/bin/env python3
"""Compares our chat templates with transformers (jinja2): every template with every conversation, and random templates.

    conformance_chat.py --driver BUILD/chat_driver [--templates DIR ...] [--fuzz N] [--seed S]

A template is a .jinja file; without --templates those of tests/data/chat_templates are taken. Results must be equal to
the byte; where transformers raises an exception, we must refuse too, and a template's own message must be in ours.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import chat_cases  # noqa: E402
import chat_fuzz  # noqa: E402

warnings.simplefilter("ignore", SyntaxWarning)  # jinja2 makes Python of templates that random ones make odd


def run_driver(driver, requests):
    """(refused, text) for each."""
    texts = [json.dumps(request, ensure_ascii=False).encode() for request in requests]
    data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    out = subprocess.run([driver], input=data, stdout=subprocess.PIPE, check=True, env={"TZ": "UTC"}).stdout
    at, results = 0, []
    while at < len(out):
        (size,) = struct.unpack_from("<I", out, at + 1)
        results.append((out[at] == 1, out[at + 5 : at + 5 + size].decode()))
        at += 5 + size
    assert len(results) == len(requests), "the driver stopped"
    return results


def agrees(theirs, ours):
    refused, text = ours
    if not isinstance(theirs, Exception):
        return not refused and text == theirs
    own = type(theirs).__name__ == "TemplateError"
    return refused and (not own or str(theirs) in text)


def report(title, theirs, ours):
    theirs = repr(theirs) if isinstance(theirs, Exception) else theirs
    print(f"  differs: {title}\n    expected {theirs!r}\n    got      {'refused: ' if ours[0] else ''}{ours[1]!r}")


def compare_templates(driver, folder):
    bad = count = refusals = 0
    paths = sorted(folder.glob("*.jinja"))
    for path in paths:
        template = path.read_text(encoding="utf-8")
        tokenizer = chat_cases.make_tokenizer(template)
        all_cases = list(chat_cases.cases())
        results = run_driver(driver, [chat_cases.request(template, *case[1:]) for case in all_cases])
        for case, ours in zip(all_cases, results):
            theirs = chat_cases.expected(tokenizer, *case[1:])
            count += 1
            refusals += isinstance(theirs, Exception)
            if not agrees(theirs, ours):
                bad += 1
                if bad <= 10:
                    report(f"{path.name}, {case[0]}, prompt {case[4]}", theirs, ours)
    print(f"{folder}: {len(paths)} templates, {count} renderings ({refusals} refused by both), {bad} differences")
    return bad if paths else 1


def compare_random(driver, count, seed):
    bad = refusals = 0
    for begin in range(0, count, 2000):
        sources = chat_fuzz.templates(seed + begin, min(2000, count - begin))
        requests = [{"source": s, "variables": chat_fuzz.VARIABLES, "now": chat_cases.NOW} for s in sources]
        for source, ours in zip(sources, run_driver(driver, requests)):
            theirs = chat_fuzz.expected(source)
            if theirs is chat_fuzz.UNSUPPORTED:
                continue
            refusals += isinstance(theirs, Exception)
            # Of constants alone, jinja2 prints nothing where it would otherwise refuse a slice.
            if not agrees(theirs, ours) and not (ours[0] and ours[1].endswith("cannot be sliced")):
                bad += 1
                if bad <= 10:
                    report(repr(source), theirs, ours)
    print(f"{count} random templates ({refusals} refused by both), {bad} differences")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--templates", type=pathlib.Path, nargs="*", default=[ROOT / "tests/data/chat_templates"])
    parser.add_argument("--fuzz", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chat_cases.fixed_clock()
    bad = sum(compare_templates(arguments.driver, folder) for folder in arguments.templates)
    if arguments.fuzz:
        bad += compare_random(arguments.driver, arguments.fuzz, arguments.seed)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
