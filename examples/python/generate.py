"""Continue a text, piece by piece as it is generated: generate.py [MODEL [PROMPT]]"""

from __future__ import annotations

import sys

import upg


def main(model: str, prompt: str) -> None:
    loaded = upg.load(model)
    print(loaded)
    print(prompt, end="", flush=True)
    with loaded.stream(prompt, max_tokens=64, temperature=0.8, seed=1) as stream:
        for text in stream:
            print(text, end="", flush=True)
    done = stream.result
    print(f"\n{len(done.token_ids)} tokens, {len(done.token_ids) / done.generate_seconds:.1f} a second")


if __name__ == "__main__":
    main(*(sys.argv[1:] + [upg.demo(), "Once upon a time"][len(sys.argv) - 1 :]))
