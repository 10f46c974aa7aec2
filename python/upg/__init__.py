"""UPG: large language models ten times smaller, run on a CPU.

    import upg

    upg.compress("phi-4", "phi-4.upg", ratio=10)
    model = upg.load("phi-4.upg")
    print(model.generate("Once upon a time", max_tokens=64))

Paths name UPG files or uncompressed checkpoint directories. Long calls run without the GIL, and Ctrl-C ends them. Parts
are imported when they are first used, so that ``import upg`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._errors import (
        BusyError,
        CancelledError,
        Error,
        InvalidArgumentError,
        InvalidFileError,
        IoError,
        NotFoundError,
        OutOfMemoryError,
        UnsupportedError,
    )
    from ._files import (
        CompressReport,
        ConvertReport,
        Estimate,
        ExportReport,
        ModelReport,
        TaskEvaluation,
        TensorReport,
        TextEvaluation,
        compress,
        convert,
        decompress,
        demo,
        evaluate,
        export,
        inspect,
        verify,
    )
    from ._llm import LLM, AsyncEngine, CompletionOutput, Logprob, RequestOutput, SamplingParams
    from ._matrix import PRIMES, Int8, MdCSR, PackedMatrix, Trellis, open_matrix
    from ._model import Completion, Model, Stream, Tokenizer, load
    from ._options import GenerateOptions
    from ._version import __version__

# Where each public name lives. A new function is a line here and one above.
_HOMES = {
    "_errors": (
        "BusyError CancelledError Error InvalidArgumentError InvalidFileError IoError NotFoundError OutOfMemoryError "
        "UnsupportedError"
    ),
    "_files": (
        "CompressReport ConvertReport Estimate ExportReport ModelReport TaskEvaluation TensorReport TextEvaluation "
        "compress convert decompress demo evaluate export inspect verify"
    ),
    "_llm": "AsyncEngine CompletionOutput LLM Logprob RequestOutput SamplingParams",
    "_matrix": "Int8 MdCSR PRIMES PackedMatrix Trellis open_matrix",
    "_model": "Completion Model Stream Tokenizer load",
    "_options": "GenerateOptions",
    "_version": "__version__",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "LLM",
    "PRIMES",
    "AsyncEngine",
    "BusyError",
    "CancelledError",
    "Completion",
    "CompletionOutput",
    "CompressReport",
    "ConvertReport",
    "Error",
    "Estimate",
    "ExportReport",
    "GenerateOptions",
    "Int8",
    "InvalidArgumentError",
    "InvalidFileError",
    "IoError",
    "Logprob",
    "MdCSR",
    "Model",
    "ModelReport",
    "NotFoundError",
    "OutOfMemoryError",
    "PackedMatrix",
    "RequestOutput",
    "SamplingParams",
    "Stream",
    "TaskEvaluation",
    "TensorReport",
    "TextEvaluation",
    "Tokenizer",
    "Trellis",
    "UnsupportedError",
    "__version__",
    "compress",
    "convert",
    "decompress",
    "demo",
    "evaluate",
    "export",
    "inspect",
    "load",
    "open_matrix",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        if name == "transformers":
            return importlib.import_module(f"{__name__}.transformers")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
