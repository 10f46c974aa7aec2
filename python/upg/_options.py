"""How a text is generated: one set of names for every call that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from . import _upg

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: A conversation: {"role": ..., "content": ...} each, as OpenAI's chat API has them.
Messages = Sequence[Mapping[str, Any]]

UNLIMITED = 2**64 - 1


class GenerateOptions(TypedDict, total=False):
    """What ``generate``, ``stream``, ``complete`` and ``chat`` take by name.

    What is left out is as the model's generation_config.json says; ``seed`` is 0, so that the same call gives the same
    text.
    """

    max_tokens: int | None
    """Tokens at most; None: as many as the context holds. 128 if left out."""
    temperature: float
    """0: always the likeliest token."""
    top_k: int
    """Choose among so many likeliest; 0: all."""
    top_p: float
    """Choose among the likeliest that together have this probability."""
    min_p: float
    """Drop tokens below this share of the likeliest one's probability."""
    repetition_penalty: float
    """Above 1 discourages tokens seen before, in the prompt too."""
    presence_penalty: float
    """Subtracted from the logit of every token generated so far."""
    frequency_penalty: float
    """The same, once for each time it was generated."""
    logit_bias: Mapping[int, float]
    """Added to the logits of these tokens."""
    seed: int
    """The same seed gives the same text."""
    stop: str | Sequence[str] | None
    """Texts that end the generation and are not part of it."""
    end_tokens: Sequence[int]
    """Tokens that end it besides the model's own."""
    ignore_eos: bool
    """Go on past end tokens."""


_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
)


def strings(stop: str | Sequence[str] | None) -> list[str]:
    """A stop string, several, or none."""
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else list(stop)


def make_options(engine: _upg.Engine, options: Mapping[str, Any], max_tokens: int = 128) -> _upg.GenerateOptions:
    """Raises TypeError for a name that there is not."""
    given = dict(options)
    made = _upg.GenerateOptions()
    sampling = engine.default_sampling()
    for name in _SAMPLING:
        value = given.pop(name, None)
        if value is not None:
            setattr(sampling, name, dict(value) if isinstance(value, Mapping) else value)
    made.sampling = sampling
    limit = given.pop("max_tokens", max_tokens)
    made.max_tokens = UNLIMITED if limit is None else limit
    made.stop = strings(given.pop("stop", None))
    made.end_tokens = [int(i) for i in given.pop("end_tokens", None) or ()]
    made.ignore_eos = bool(given.pop("ignore_eos", False))
    if given:
        known = ", ".join(GenerateOptions.__annotations__)
        raise TypeError(f"there is no option {', '.join(map(repr, given))}; known are {known}")
    return made


def ids_array(ids: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    """Token ids as int32: int32 arrays as they are, others checked. Raises ValueError for what is no list of ids."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"token ids must be a list of integers, not {array.dtype} of shape {list(array.shape)}")
    if array.dtype != np.int32:
        info = np.iinfo(np.int32)
        if array.size and (int(array.min()) < info.min or int(array.max()) > info.max):
            raise ValueError("a token id does not fit 32 bits")
        array = array.astype(np.int32)
    return np.ascontiguousarray(array)
