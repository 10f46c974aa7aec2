"""Many requests at the same time on asyncio, each answer printed as it ends: serve_many.py [MODEL]"""

from __future__ import annotations

import asyncio
import sys

import upg

PROMPTS = ["Once upon a time", "The history of the city", "In mathematics", "She said", "The river", "A list:"]


async def answer(engine: upg.AsyncEngine, prompt: str) -> None:
    params = upg.SamplingParams(max_tokens=24, temperature=0.7, seed=1)
    async for output in engine.generate(prompt, params):
        if output.finished:
            print(f"{prompt!r} -> {output.outputs[0].text!r}")


async def main(model: str) -> None:
    engine = upg.AsyncEngine(model, parallel=4)
    try:
        await asyncio.gather(*(answer(engine, prompt) for prompt in PROMPTS))
        print(f"{engine.statistics().generated_tokens} tokens in {engine.statistics().steps} passes over the weights")
    finally:
        engine.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else upg.demo()))
