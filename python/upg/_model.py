"""A loaded model: text in, text out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _upg
from ._options import GenerateOptions, Messages, ids_array, make_options
from ._progress import Progress, reporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self, Unpack


@dataclass(frozen=True)
class Completion:
    """What a generation came to."""

    text: str
    token_ids: list[int]
    """Without the end token."""
    finish_reason: str
    """"stop" (an end token or stop string), "length" (a limit) or "cancelled"."""
    prompt_tokens: int
    prompt_seconds: float
    generate_seconds: float


def _completion(result: _upg.GenerateResult) -> Completion:
    return Completion(
        text=result.text,
        token_ids=result.tokens,
        finish_reason=result.finish_reason,
        prompt_tokens=result.prompt_tokens,
        prompt_seconds=result.prompt_seconds,
        generate_seconds=result.generate_seconds,
    )


class Stream(Iterator[str]):
    """An answer on its way: iterate for its text, whole characters at a time. Ends early when closed or dropped.

    The model works a little ahead of whoever reads. Other calls on it wait until the stream is done or closed: use
    ``with`` where a loop may be left.
    """

    def __init__(self, stream: _upg.Stream) -> None:
        self._stream = stream

    def __next__(self) -> str:
        text = self._stream.next()
        if text is None:
            raise StopIteration
        return text

    def close(self) -> None:
        """Ends the generation before its next token."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def result(self) -> Completion:
        """All of it, after the end. Raises upg.InvalidArgumentError before."""
        return _completion(self._stream.result())


class Tokenizer:
    """The model's tokenizer and chat template."""

    def __init__(self, engine: _upg.Engine) -> None:
        self._engine = engine

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of ``text``.

        ``add_special``: with what the tokenizer puts around every text, such as a BOS. ``parse_special``: markup such
        as ``<|im_end|>`` becomes special tokens. Raises upg.NotFoundError for a model without tokenizer.
        """
        return [int(i) for i in self._engine.tokenize(text, parse_special, add_special).tolist()]

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of token ids."""
        return self._engine.detokenize(ids_array(ids))

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one token stands for, perhaps half a character; empty for an unknown id."""
        return self._engine.token_bytes(token)

    @property
    def vocab_size(self) -> int:
        return self._engine.info.vocab_size

    @property
    def end_tokens(self) -> list[int]:
        """Tokens that end a generation."""
        return self._engine.end_tokens

    @property
    def has_chat_template(self) -> bool:
        return self._engine.has_chat_template

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation; encode it with ``add_special=False``.

        Raises upg.NotFoundError for a model without a chat template, ValueError for what the template refuses.
        """
        text = json.dumps(list(tools)) if tools else ""
        return self._engine.render_chat(json.dumps(list(messages)), add_generation_prompt, text, _json(variables))


def _json(variables: Mapping[str, Any]) -> str:
    return json.dumps(variables) if variables else ""


class Model:
    """A loaded model. Made by :func:`upg.load`. Threads may share it: their calls take turns."""

    def __init__(self, engine: _upg.Engine, session: tuple[int, str, bool]) -> None:
        self._engine = engine
        self._session_options = session
        self._session = _upg.Session(engine, *session)
        self._chat: _upg.Chat | None = None
        self.tokenizer = Tokenizer(engine)

    def __repr__(self) -> str:
        info = self._engine.info
        return f"<upg.Model {info.architecture}, {info.parameters:,} parameters, {info.device}>"

    @property
    def architecture(self) -> str:
        return self._engine.info.architecture

    @property
    def parameters(self) -> int:
        return self._engine.info.parameters

    @property
    def weight_bytes(self) -> int:
        """Of all weights, as they are stored."""
        return self._engine.info.weight_bytes

    @property
    def vocab_size(self) -> int:
        return self._engine.info.vocab_size

    @property
    def context(self) -> int:
        """Positions that a prompt and its answer may fill."""
        return self._session.context

    @property
    def threads(self) -> int:
        return self._engine.info.threads

    @property
    def device(self) -> str:
        """In words: "CPU, 8 threads"."""
        return self._engine.info.device

    def _ids(self, prompt: str | Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
        if isinstance(prompt, str):
            return self._engine.tokenize(prompt, True, True)
        return ids_array(prompt)

    def complete(self, prompt: str | Sequence[int] | NDArray[Any], **options: Unpack[GenerateOptions]) -> Completion:
        """Continues ``prompt``, a text or token ids. Options: :class:`upg.GenerateOptions`.

        Raises ValueError for an empty prompt, one that the context does not hold, and options out of range. Ctrl-C ends
        it with KeyboardInterrupt.
        """
        return _completion(self._session.generate(self._ids(prompt), make_options(self._engine, options)))

    def generate(self, prompt: str | Sequence[int] | NDArray[Any], **options: Unpack[GenerateOptions]) -> str:
        """The text that continues ``prompt``, as :meth:`complete` gives it."""
        return self.complete(prompt, **options).text

    def stream(self, prompt: str | Sequence[int] | NDArray[Any], **options: Unpack[GenerateOptions]) -> Stream:
        """The same text, piece by piece as it is generated.

            for text in model.stream("Once upon a time"):
                print(text, end="", flush=True)

        Errors are those of :meth:`complete`, when the first piece is asked for.
        """
        return Stream(self._session.stream(self._ids(prompt), make_options(self._engine, options)))

    def _conversation(self) -> _upg.Chat:
        if self._chat is None:
            self._chat = _upg.Chat(self._engine, *self._session_options)
        return self._chat

    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> str:
        """The model's answer to a conversation. What it shares with the last one is not read again.

            model.chat([{"role": "user", "content": "What is a prime number?"}])

        ``variables`` are further ones of the template. Raises upg.NotFoundError for a model without a chat template.
        """
        text = json.dumps(list(tools)) if tools else ""
        made = make_options(self._engine, options, max_tokens=1024)
        return self._conversation().reply(json.dumps(list(messages)), text, _json(variables or {}), made).text

    def stream_chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """The same answer, piece by piece as it is generated."""
        text = json.dumps(list(tools)) if tools else ""
        made = make_options(self._engine, options, max_tokens=1024)
        return Stream(self._conversation().stream(json.dumps(list(messages)), text, _json(variables or {}), made))

    def logits(self, ids: str | Sequence[int] | NDArray[Any]) -> NDArray[np.float32]:
        """Logits after each token, [n, vocab_size] in float32, in an array of the caller's own."""
        return self._session.logits(self._ids(ids))


def load(
    path: str | os.PathLike[str],
    device: str = "cpu",
    *,
    gpu_layers: int | None = None,
    threads: int = 0,
    context: int = 0,
    kv: str = "f16",
    float_activations: bool = False,
    chat_template: str | None = None,
    progress: bool | Progress = True,
) -> Model:
    """Loads a UPG file or an uncompressed checkpoint directory.

    ``device``: "cpu", or "cuda" in builds that have it. ``gpu_layers``: with "cuda", for a model that does not fit the
    GPU, how many of its last layers run there, the others on the CPU; None: all. ``threads`` 0: one for each core.
    ``context`` 0: as many positions as the model was made for, 4,096 at most. ``kv``: "f16", "int8" or "f32", how keys
    and values are kept. ``float_activations``: exact products with compressed weights, slower. ``chat_template``: Jinja
    in place of the model's own, or the name of a built-in one ("chatml", "phi-4", "llama-3", "gemma", "plain").

    Raises upg.NotFoundError (a FileNotFoundError), upg.InvalidFileError (a ValueError) or upg.UnsupportedError.
    """
    template = chat_template or ""
    template = _upg.builtin_chat_templates().get(template, template)
    with reporter(progress) as report:
        engine = _upg.Engine.open(os.fspath(path), threads, device, gpu_layers, template, report)
    return Model(engine, (context, kv, float_activations))
