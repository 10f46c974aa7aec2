"""Loading a model and generating with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import upg

PROMPT = "The history of the city"
MESSAGES = [{"role": "user", "content": "What is a prime number?"}]


def test_a_stream_says_what_generate_says(model: upg.Model) -> None:
    text = model.generate(PROMPT, max_tokens=24, seed=7)
    with model.stream(PROMPT, max_tokens=24, seed=7) as stream:
        pieces = list(stream)
        done = stream.result
    assert "".join(pieces) == text == done.text
    assert len(pieces) > 1
    assert done.finish_reason == "length"
    assert len(done.token_ids) == 24
    assert done.prompt_tokens == len(model.tokenizer.encode(PROMPT))


def test_the_seed_and_the_options_decide_the_text(model: upg.Model) -> None:
    texts = {model.generate(PROMPT, max_tokens=16, seed=s, temperature=1.0) for s in (1, 1, 2)}
    assert len(texts) == 2
    likeliest = model.generate(PROMPT, max_tokens=16, temperature=0)
    assert model.generate(PROMPT, max_tokens=16, temperature=1.0, top_k=1) == likeliest
    first = model.tokenizer.encode(likeliest, add_special=False)[0]
    assert model.complete(PROMPT, max_tokens=1, temperature=0, logit_bias={first: -100.0}).token_ids != [first]


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(model: upg.Model) -> None:
    whole = model.generate(PROMPT, max_tokens=24, temperature=0)
    stop = whole[10:14]
    done = model.complete(PROMPT, max_tokens=24, temperature=0, stop=stop)
    assert done.text == whole[: whole.index(stop)]
    assert done.finish_reason == "stop"


def test_prompts_may_be_ids_of_any_integer_type(model: upg.Model) -> None:
    ids = model.tokenizer.encode(PROMPT)
    text = model.generate(PROMPT, max_tokens=8, temperature=0)
    for prompt in (ids, tuple(ids), np.array(ids, np.int32), np.array(ids, np.int64), np.array(ids, np.uint16)):
        assert model.generate(prompt, max_tokens=8, temperature=0) == text
    for wrong in ([1.5], [[1]], [2**40]):
        with pytest.raises(ValueError, match="token id"):
            model.generate(wrong, max_tokens=8)  # type: ignore[arg-type]


def test_a_stream_that_is_left_ends(model: upg.Model) -> None:
    with model.stream(PROMPT, max_tokens=None, ignore_eos=True) as stream:
        next(stream)
    assert sum(1 for _ in stream) < model.context
    assert stream.result.finish_reason == "cancelled"
    with pytest.raises(upg.InvalidArgumentError, match="has not come to its end"):
        _ = model.stream(PROMPT, max_tokens=None, ignore_eos=True).result


def test_a_stream_waits_for_its_reader_but_not_while_others_wait(model: upg.Model) -> None:
    with model.stream(PROMPT, max_tokens=300, ignore_eos=True) as stream:
        next(stream)
        # Nobody reads: this call ends because the stream goes on to its end for it.
        assert model.complete(PROMPT, max_tokens=2, ignore_eos=True).finish_reason == "length"
        assert sum(1 for _ in stream) > 200
        assert len(stream.result.token_ids) == 300


def test_threads_take_turns(model: upg.Model) -> None:
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: model.generate(PROMPT, max_tokens=12, temperature=0), range(8)))
    assert len(set(texts)) == 1


def test_other_threads_run_during_a_generation(model: upg.Model) -> None:
    counted = 0
    done = threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            done.wait(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    model.generate(PROMPT, max_tokens=200, ignore_eos=True)
    at_end = counted
    done.set()
    counter.join()
    assert at_end > 2


def test_chat_answers_and_reuses_what_it_read() -> None:
    model = upg.load(upg.demo(), chat_template="chatml", progress=False)
    answer = model.chat(MESSAGES, max_tokens=16, temperature=0)
    assert "".join(model.stream_chat(MESSAGES, max_tokens=16, temperature=0)) == answer
    prompt = model.tokenizer.apply_chat_template(MESSAGES)
    assert prompt.startswith("<|im_start|>user\nWhat is a prime number?")
    assert "assistant" in prompt
    longer = [*MESSAGES, {"role": "assistant", "content": answer}, {"role": "user", "content": "Another?"}]
    assert isinstance(model.chat(longer, max_tokens=4), str)


def test_errors_are_exceptions_of_their_kind_with_the_librarys_message(model: upg.Model, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere") as missing:
        upg.load(tmp_path / "nowhere")
    assert isinstance(missing.value, upg.NotFoundError)
    assert isinstance(missing.value, upg.Error)
    damaged = tmp_path / "damaged.upg"
    damaged.write_bytes(b"\xff" * 100)
    with pytest.raises(upg.InvalidFileError):
        upg.load(damaged)
    with pytest.raises(ValueError, match="the prompt is empty"):
        model.generate("")
    with pytest.raises(ValueError, match="token id 8192 is outside the vocabulary of 8192"):
        model.generate([8192])
    with pytest.raises(ValueError, match="temperature"):
        model.generate(PROMPT, temperature=-1.0)
    with pytest.raises(ValueError, match="do not fit"):
        model.logits([1] * (model.context + 1))
    with pytest.raises(TypeError, match="there is no option 'tokens'"):
        model.generate(PROMPT, tokens=3)  # type: ignore[call-arg]
    with pytest.raises(upg.InvalidArgumentError, match="4096000"):
        upg.load(upg.demo(), context=4096000)
    with pytest.raises(upg.InvalidArgumentError, match="3 layers on the GPU"):
        upg.load(upg.demo(), gpu_layers=3)
    with pytest.raises(upg.InvalidArgumentError, match="0 layers on the GPU"):
        upg.load(upg.demo(), "cuda", gpu_layers=0)


def test_the_tokenizer_knows_bytes_and_end_tokens(model: upg.Model) -> None:
    tokenizer = model.tokenizer
    ids = tokenizer.encode("naïve 🙂", add_special=False)
    assert b"".join(tokenizer.token_bytes(i) for i in ids).decode() == "naïve 🙂"
    assert tokenizer.decode(np.array(ids)) == "naïve 🙂"
    assert tokenizer.end_tokens == [0]
    assert tokenizer.vocab_size == model.vocab_size == 8192


def test_a_model_says_what_it_is(model: upg.Model) -> None:
    assert "Phi3ForCausalLM, 14,424,320 parameters" in repr(model)
    assert model.context == 1024
    assert model.weight_bytes == 2 * model.parameters
    assert model.device.startswith("CPU")


INTERRUPTED = """
import time
import upg
model = upg.load(upg.demo(), progress=False)
print("ready", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    print(model.complete("And then", max_tokens=4).finish_reason)
"""


@pytest.mark.parametrize(
    "call",
    [
        "while True: model.generate('Once', max_tokens=900, ignore_eos=True)",
        "with model.stream('Once', max_tokens=900, ignore_eos=True) as stream: [time.sleep(0.01) for _ in stream]",
        "while True: model.logits([1] * 1000)",
    ],
)
def test_ctrl_c_ends_a_call_and_the_model_goes_on(call: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(call=call)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        threading.Event().wait(0.3)
        os.kill(child.pid, signal.SIGINT)
        out = child.communicate(timeout=120)[0]
    assert out == "interrupted\nlength\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_to_load_the_model_itself() -> None:
    code = """
import os, upg
model = upg.load(upg.demo(), progress=False)
model.generate("Once", max_tokens=2)
pid = os.fork()
if pid == 0:
    try:
        model.generate("Once", max_tokens=2)
    except upg.UnsupportedError as error:
        os._exit(0 if "forked" in str(error) else 1)
    os._exit(2)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_the_command_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "upg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"upg {upg.__version__}\n"
    failed = subprocess.run([sys.executable, "-m", "upg", "run"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2


def test_every_public_name_is_there_and_importing_is_cheap() -> None:
    for name in upg.__all__:
        assert getattr(upg, name) is not None
    code = "import sys, upg; assert 'numpy' not in sys.modules; assert set(upg.__all__) <= set(dir(upg))"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = upg.nothing
