"""Many requests together: LLM and AsyncEngine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import upg

PROMPTS = ["Once upon a time", "The history of the city", "In mathematics", "The river", "She said"]


@pytest.fixture(scope="module")
def llm() -> Iterator[upg.LLM]:
    with upg.LLM(upg.demo(), parallel=3, progress=False) as made:
        yield made


def test_many_prompts_give_what_each_gives_alone(llm: upg.LLM, model: upg.Model) -> None:
    params = upg.SamplingParams(max_tokens=12, temperature=0)
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    assert [o.prompt for o in outputs] == PROMPTS
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        assert output.finished
        done = model.complete(prompt, max_tokens=12, temperature=0)
        answer = output.outputs[0]
        assert (answer.text, answer.token_ids, answer.finish_reason) == (done.text, done.token_ids, done.finish_reason)
        assert output.prompt_token_ids == model.tokenizer.encode(prompt)


def test_what_a_prompt_shares_with_an_earlier_one_is_not_read_again(llm: upg.LLM) -> None:
    long = "The history of the city begins with a small settlement on the river. " * 4
    params = upg.SamplingParams(max_tokens=2, temperature=0)
    first, second = (llm.generate(long, params, use_tqdm=False)[0] for _ in range(2))
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens == len(second.prompt_token_ids) - 1
    assert second.outputs[0].token_ids == first.outputs[0].token_ids


def test_prompts_come_in_every_form(llm: upg.LLM) -> None:
    ids = llm.get_tokenizer().encode(PROMPTS[0])
    params = upg.SamplingParams(max_tokens=4, temperature=0)
    forms = [PROMPTS[0], ids, np.array(ids), {"prompt": PROMPTS[0]}, {"prompt_token_ids": ids}]
    assert len({o.outputs[0].text for o in llm.generate(forms, params, use_tqdm=False)}) == 1
    assert len(llm.generate(ids, params, use_tqdm=False)) == 1


def test_logprobs_are_of_the_tokens_and_the_prompt(llm: upg.LLM, model: upg.Model) -> None:
    params = upg.SamplingParams(max_tokens=3, temperature=0, logprobs=2, prompt_logprobs=0)
    output = llm.generate(PROMPTS[1], params, use_tqdm=False)[0]
    answer = output.outputs[0]
    assert answer.logprobs is not None
    logits = model.logits(output.prompt_token_ids).astype(np.float64)
    expected = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    first = answer.logprobs[0][answer.token_ids[0]]
    assert first.rank == 1
    assert first.logprob == pytest.approx(expected[-1].max(), abs=0.02)
    assert answer.cumulative_logprob == pytest.approx(
        sum(p[t].logprob for p, t in zip(answer.logprobs, answer.token_ids, strict=True))
    )
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    for at in range(1, len(output.prompt_token_ids)):
        token = output.prompt_token_ids[at]
        found = output.prompt_logprobs[at]
        assert found is not None
        assert found[token].logprob == pytest.approx(expected[at - 1, token], abs=0.02)


def test_n_answers_differ_and_seeds_repeat(llm: upg.LLM) -> None:
    params = upg.SamplingParams(n=3, max_tokens=12, seed=5)
    answers = [o.text for o in llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs]
    assert len(set(answers)) == 3
    assert [o.text for o in llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs] == answers
    unseeded = llm.generate([PROMPTS[0]] * 2, upg.SamplingParams(max_tokens=12), use_tqdm=False)
    assert unseeded[0].outputs[0].text != unseeded[1].outputs[0].text


def test_a_prompt_that_cannot_run_is_refused_before_any_runs(llm: upg.LLM) -> None:
    with pytest.raises(ValueError, match="the context holds"):
        llm.generate([PROMPTS[0], [1] * 2000], use_tqdm=False)
    with pytest.raises(ValueError, match="2 prompts and 1 sampling parameters"):
        llm.generate(PROMPTS[:2], [upg.SamplingParams()], use_tqdm=False)
    with pytest.raises(ValueError, match="n is 0"):
        upg.SamplingParams(n=0)


def test_embeddings_are_rows_of_the_hidden_size(llm: upg.LLM) -> None:
    rows = llm.embed(PROMPTS[:2])
    assert rows.shape == (2, 256)
    assert np.array_equal(llm.embed(PROMPTS[1])[0], rows[1])


def test_a_scheduler_and_its_model_do_not_run_at_once() -> None:
    model = upg.load(upg.demo(), progress=False)
    with upg.LLM(model, parallel=2) as llm:
        with pytest.raises(upg.BusyError, match="close it first"):
            model.generate("Once")
        llm.generate("Once", upg.SamplingParams(max_tokens=2), use_tqdm=False)
    assert model.complete("Once", max_tokens=2).finish_reason == "length"
    with pytest.raises(upg.InvalidArgumentError, match="was closed"):
        llm.generate("Once", use_tqdm=False)


def test_progress_counts_prompts(llm: upg.LLM) -> None:
    seen: list[tuple[str, int, int]] = []
    llm.generate(PROMPTS, upg.SamplingParams(max_tokens=2), use_tqdm=lambda *step: seen.append(step))
    assert seen[0] == ("prompts", 0, 5)
    assert seen[-1] == ("prompts", 5, 5)


def test_an_async_engine_serves_many_and_ends_what_is_left() -> None:
    async def serve() -> None:
        engine = upg.AsyncEngine(upg.demo(), parallel=2, queue=8)
        params = upg.SamplingParams(max_tokens=8, temperature=0)

        async def ask(prompt: str) -> tuple[list[str], upg.RequestOutput]:
            texts = []
            async for output in engine.generate(prompt, params, prompt):
                texts.append(output.outputs[0].text)
            return texts, output

        answers = await asyncio.gather(*map(ask, PROMPTS))
        for prompt, (texts, last) in zip(PROMPTS, answers, strict=True):
            assert last.request_id == prompt
            assert last.finished
            assert len(texts) > 1
            assert texts[-1].startswith(texts[0])

        endless = upg.SamplingParams(max_tokens=None, ignore_eos=True)
        async for _ in engine.generate(PROMPTS[0], endless):
            break

        async def aborted() -> str | None:
            reason = None
            async for output in engine.generate(PROMPTS[0], endless, "mine"):
                engine.abort("mine")
                reason = output.outputs[0].finish_reason
            return reason

        assert await aborted() == "abort"
        with pytest.raises(ValueError, match="the prompt is empty"):
            await anext(engine.generate([]))
        assert (await engine.embed(PROMPTS[0])).shape == (256,)
        assert engine.statistics().generated_tokens > 8 * len(PROMPTS)

        left = engine.generate(PROMPTS[0], endless)
        await anext(left)
        engine.shutdown()
        with pytest.raises(upg.InvalidArgumentError, match="was closed"):
            await anext(engine.generate(PROMPTS[0]))
        await left.aclose()

    asyncio.run(serve())
