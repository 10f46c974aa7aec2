"""Many requests together: the interface of vLLM's ``LLM``, and an engine for asyncio servers, over one scheduler."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import _upg
from ._model import Model, Tokenizer
from ._options import ids_array, make_options, strings
from ._progress import Progress, reporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

_WAIT_MS = 100  # between two looks at signals


@dataclass
class SamplingParams:
    """How to generate, with vLLM's names and defaults."""

    n: int = 1
    """Answers to each prompt."""
    temperature: float = 1.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 or -1: all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    """None: another for each request, the same ones in each run of the program."""
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """None: as many as the context holds."""
    logprobs: int | None = None
    """Log-probabilities of each token, and of so many likeliest ones in its place."""
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is {self.n}; at least one answer must be asked for")

    def _options(self, engine: _upg.Engine, seed: int) -> _upg.GenerateOptions:
        return make_options(
            engine,
            {
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": max(self.top_k, 0),
                "min_p": self.min_p,
                "presence_penalty": self.presence_penalty,
                "frequency_penalty": self.frequency_penalty,
                "repetition_penalty": self.repetition_penalty,
                "logit_bias": self.logit_bias or {},
                "seed": seed,
                "stop": strings(self.stop),
                "end_tokens": self.stop_token_ids or (),
                "ignore_eos": self.ignore_eos,
                "max_tokens": self.max_tokens,
            },
        )


@dataclass(frozen=True)
class Logprob:
    """Of one token in one place."""

    logprob: float
    rank: int | None
    """1: the likeliest; None where it is not among those asked for."""
    decoded_token: str


@dataclass
class CompletionOutput:
    """One answer, as far as it is."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    """"stop", "length", or "abort"; None while it goes on."""


@dataclass
class RequestOutput:
    """A prompt and its answers."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = False
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0
    """Of the prompt, that were not read again."""


def _logprobs(tokenizer: Tokenizer, of: _upg.TokenLogprob) -> dict[int, Logprob]:
    top = {
        token: Logprob(logprob, rank, tokenizer.token_bytes(token).decode("utf-8", "replace"))
        for rank, (token, logprob) in enumerate(of.top, 1)
    }
    chosen = Logprob(of.logprob, None, tokenizer.token_bytes(of.token).decode("utf-8", "replace"))
    return top if of.token in top else {of.token: chosen, **top}


class _Request:
    """A request in the scheduler and what it has said so far."""

    def __init__(self, output: RequestOutput, generations: list[_upg.Generation], tokenizer: Tokenizer) -> None:
        self.output = output
        self._generations = generations
        self._tokenizer = tokenizer

    def running(self) -> list[int]:
        return [i for i, o in enumerate(self.output.outputs) if o.finish_reason is None]

    def step(self, index: int) -> bool:
        """Waits for more of an answer, a tenth of a second at most. Whether anything came."""
        generation = self._generations[index]
        output = self.output.outputs[index]
        piece = generation.next(_WAIT_MS)
        if piece is None:
            result = generation.result()
            output.text, output.token_ids = result.text, result.tokens
            output.finish_reason = "abort" if result.finish_reason == "cancelled" else result.finish_reason
            self.output.num_cached_tokens = generation.cached_tokens
            self.output.finished = not self.running()
            return True
        if piece.prompt_logprobs:
            self.output.prompt_logprobs = [None, *(_logprobs(self._tokenizer, p) for p in piece.prompt_logprobs)]
        output.text += piece.text
        output.token_ids.extend(piece.tokens)
        if piece.logprobs:
            output.logprobs = (output.logprobs or []) + [_logprobs(self._tokenizer, p) for p in piece.logprobs]
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + sum(p.logprob for p in piece.logprobs)
        return bool(piece.text or piece.tokens)

    def cancel(self) -> None:
        for generation in self._generations:
            generation.cancel()


class _Engine:
    """What LLM and AsyncEngine share: a model and its scheduler."""

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        *,
        parallel: int,
        queue: int,
        device: str,
        gpu_layers: int | None,
        threads: int,
        context: int,
        kv: str,
        float_activations: bool,
        chat_template: str | None,
        seed: int,
        progress: bool | Progress,
    ) -> None:
        if isinstance(model, Model):
            self._engine = model._engine
        else:
            template = chat_template or ""
            template = _upg.builtin_chat_templates().get(template, template)
            with reporter(progress) as report:
                self._engine = _upg.Engine.open(os.fspath(model), threads, device, gpu_layers, template, report)
        self.tokenizer = Tokenizer(self._engine)
        self._scheduler = _upg.Scheduler(self._engine, parallel, context, kv, float_activations, queue)
        self._next_id = itertools.count()
        self._next_seed = itertools.count(seed)

    @property
    def context(self) -> int:
        """Positions that a prompt and its answer may fill."""
        return self._scheduler.context

    def get_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def _tokens(self, prompt: Any) -> tuple[str | None, NDArray[np.int32]]:
        if isinstance(prompt, Mapping):
            if "prompt_token_ids" in prompt:
                return prompt.get("prompt"), ids_array(prompt["prompt_token_ids"])
            prompt = prompt["prompt"]
        if isinstance(prompt, str):
            return prompt, self._engine.tokenize(prompt, True, True)
        return None, ids_array(prompt)

    def _submit(self, prompt: Any, params: SamplingParams, request_id: str | None, client: str = "") -> _Request:
        text, ids = self._tokens(prompt)
        top = max(params.logprobs or 0, params.prompt_logprobs or 0)
        wanted = None if params.logprobs is None and params.prompt_logprobs is None else top
        generations: list[_upg.Generation] = []
        first = next(self._next_seed) if params.seed is None else params.seed
        try:
            for i in range(params.n):
                options = params._options(self._engine, first + i)
                of_prompt = params.prompt_logprobs is not None and i == 0
                generations.append(self._scheduler.submit(ids, options, client, wanted, of_prompt))
        except BaseException:
            for generation in generations:
                generation.cancel()
            raise
        output = RequestOutput(
            request_id=str(next(self._next_id)) if request_id is None else request_id,
            prompt=text,
            prompt_token_ids=ids.tolist(),
            outputs=[CompletionOutput(i) for i in range(params.n)],
        )
        return _Request(output, generations, self.tokenizer)

    def _render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, tools: Any, variables: dict[str, Any]
    ) -> dict[str, Any]:
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, **variables
        )
        return {"prompt": text, "prompt_token_ids": self._engine.tokenize(text, True, False)}


class LLM(_Engine):
    """A model that answers many prompts at once, as users of vLLM know it.

        llm = upg.LLM("phi-4.upg")
        for output in llm.generate(["Once upon a time", "The capital of France"], upg.SamplingParams(max_tokens=32)):
            print(output.outputs[0].text)

    ``parallel`` requests run together. A request's text does not depend on what runs beside it.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        *,
        parallel: int = 8,
        device: str = "cpu",
        gpu_layers: int | None = None,
        threads: int = 0,
        context: int = 0,
        kv: str = "f16",
        float_activations: bool = False,
        chat_template: str | None = None,
        seed: int = 0,
        progress: bool | Progress = True,
    ) -> None:
        super().__init__(
            model,
            parallel=parallel,
            queue=2**62,
            device=device,
            gpu_layers=gpu_layers,
            threads=threads,
            context=context,
            kv=kv,
            float_activations=float_activations,
            chat_template=chat_template,
            seed=seed,
            progress=progress,
        )

    def generate(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Progress = True,
    ) -> list[RequestOutput]:
        """Answers to prompts, in their order.

        ``prompts``: a text, a list of texts, of token id lists, or of {"prompt": ...} or {"prompt_token_ids": ...}.
        ``sampling_params``: for all, or one for each. Raises ValueError for the first prompt that cannot be run, before
        any is.
        """
        listed = [prompts] if _is_single(prompts) else list(prompts)
        if sampling_params is None:
            sampling_params = SamplingParams()
        params = [sampling_params] * len(listed) if isinstance(sampling_params, SamplingParams) else [*sampling_params]
        if len(params) != len(listed):
            raise ValueError(f"there are {len(listed)} prompts and {len(params)} sampling parameters")
        requests: list[_Request] = []
        try:
            requests.extend(self._submit(*each, None) for each in zip(listed, params, strict=True))
            with reporter(use_tqdm) as report:
                self._wait(requests, report)
        finally:
            for request in requests:
                request.cancel()
        return [request.output for request in requests]

    @staticmethod
    def _wait(requests: Iterable[_Request], report: Progress | None) -> None:
        listed = list(requests)
        for done, request in enumerate(listed):
            if report is not None:
                report("prompts", done, len(listed))
            while running := request.running():
                for index in running:
                    request.step(index)
        if report is not None:
            report("prompts", len(listed), len(listed))

    def chat(
        self,
        messages: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        use_tqdm: bool | Progress = True,
    ) -> list[RequestOutput]:
        """Answers to a conversation, or to a list of them."""
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        prompts = [
            self._render(c, add_generation_prompt, tools, dict(chat_template_kwargs or {})) for c in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def embed(self, prompts: Any) -> NDArray[np.float32]:
        """The mean of the final hidden states of each prompt: [prompts, hidden_size] in float32."""
        import numpy

        listed = [prompts] if _is_single(prompts) else list(prompts)
        return numpy.stack([self._scheduler.embed(self._tokens(p)[1]) for p in listed])

    def close(self) -> None:
        """Ends what runs. A Model that this was made of can be used by itself again."""
        self._scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_single(prompts: Any) -> bool:
    if isinstance(prompts, (str, Mapping)):
        return True
    return getattr(prompts, "ndim", None) == 1 or (len(prompts) > 0 and isinstance(prompts[0], int))


class AsyncEngine(_Engine):
    """Many requests at the same time, for programs on asyncio: servers above all.

        engine = upg.AsyncEngine("phi-4.upg")
        async for output in engine.generate("Once upon a time", upg.SamplingParams(max_tokens=32), "request-1"):
            print(output.outputs[0].text)

    ``parallel`` requests run together and ``queue`` wait; more raise upg.BusyError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        *,
        parallel: int = 8,
        queue: int = 64,
        device: str = "cpu",
        gpu_layers: int | None = None,
        threads: int = 0,
        context: int = 0,
        kv: str = "f16",
        float_activations: bool = False,
        chat_template: str | None = None,
        seed: int = 0,
        progress: bool | Progress = False,
    ) -> None:
        super().__init__(
            model,
            parallel=parallel,
            queue=queue,
            device=device,
            gpu_layers=gpu_layers,
            threads=threads,
            context=context,
            kv=kv,
            float_activations=float_activations,
            chat_template=chat_template,
            seed=seed,
            progress=progress,
        )
        # Each waits for one request, nearly always asleep.
        self._waiters = ThreadPoolExecutor(parallel + queue, thread_name_prefix="upg-waiter")
        self._requests: dict[str, _Request] = {}

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        client: str = "",
    ) -> AsyncGenerator[RequestOutput, None]:
        """The answer so far, whenever there is more of it; the last one has ``finished``.

        Leaving the loop, or cancelling its task, ends the generation. Requests of different ``client``s take turns.
        Raises upg.BusyError where the queue is full, ValueError for a prompt or parameters that cannot be run.
        """
        request = self._submit(prompt, sampling_params or SamplingParams(), request_id, client)
        self._requests[request.output.request_id] = request
        loop = asyncio.get_running_loop()
        try:
            while running := request.running():
                index = running[0]
                if await loop.run_in_executor(self._waiters, request.step, index):
                    yield request.output
        finally:
            request.cancel()
            self._requests.pop(request.output.request_id, None)

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        client: str = "",
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The same for a conversation."""
        prompt = self._render(messages, True, tools, dict(chat_template_kwargs or {}))
        async for output in self.generate(prompt, sampling_params, request_id, client=client):
            yield output

    async def embed(self, prompt: Any) -> NDArray[np.float32]:
        """The mean of the final hidden states of a prompt, [hidden_size]."""
        ids = self._tokens(prompt)[1]
        return await asyncio.get_running_loop().run_in_executor(self._waiters, self._scheduler.embed, ids)

    def abort(self, request_id: str) -> None:
        """Ends a request; its loop gets what there is, with the finish_reason "abort"."""
        request = self._requests.get(request_id)
        if request is not None:
            request.cancel()

    def statistics(self) -> _upg.SchedulerStatistics:
        """Counts of requests and tokens."""
        return self._scheduler.statistics()

    def shutdown(self) -> None:
        """Ends what runs. A Model that this was made of can be used by itself again."""
        self._scheduler.close()
        self._waiters.shutdown()
