"""Making models, looking at them, and measuring how good they are."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _upg
from ._progress import Progress, reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ._matrix import PackedMatrix

Path = str | os.PathLike[str]
_T = TypeVar("_T")


def _copied(cls: type[_T], raw: Any, **changed: Any) -> _T:
    """A dataclass from the attributes of the same names."""
    names = [f.name for f in fields(cls) if f.name not in changed]  # type: ignore[arg-type]
    return cls(**{name: getattr(raw, name) for name in names}, **changed)


def demo() -> str:
    """The bundled checkpoint directory: Phi-4's architecture with 14 million parameters, for trying things out."""
    return str(pathlib.Path(__file__).with_name("demo"))


@dataclass(frozen=True)
class TensorReport:
    """One weight of a model."""

    name: str
    shape: list[int]
    codec: str
    bytes: int
    """All that is stored for it: codes, scales, tables."""
    bits_per_weight: float
    relative_error: float | None
    """||decoded - original|| / ||original||, where it was recorded."""
    predicted_loss: float | None
    """Nats of KL divergence that its error costs; known when it is compressed."""


@dataclass(frozen=True)
class ModelReport:
    """What a model is made of."""

    path: str
    architecture: str
    format: str
    """"UPG 3.0" or "checkpoint"."""
    tensors: list[TensorReport]
    parameters: int
    weight_bytes: int
    """Of all tensors."""
    file_bytes: int
    """With configuration, tokenizer and header."""
    bits_per_weight: float
    ratio_fp32: float
    """4 * parameters / weight_bytes."""
    predicted_loss: float | None
    """Nats of KL divergence a token from the original, known when it is compressed."""
    measured_loss: float | None
    """The same as measured on calibration text that was held out."""
    uncalibrated: list[str]
    """Matrices that calibration text never used."""
    html: str
    """The report as one self-contained page, with a picture."""

    def __repr__(self) -> str:
        return (
            f"<upg.ModelReport {self.path}: {self.architecture}, {self.format}, {len(self.tensors)} tensors, "
            f"{self.bits_per_weight:.3f} bits per weight, {self.ratio_fp32:.3f} to 1>"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{t.name}</td><td>{' x '.join(map(str, t.shape))}</td><td>{t.codec}</td>"
            f"<td>{t.bits_per_weight:.3f}</td><td>{_blank(t.relative_error)}</td></tr>"
            for t in self.tensors
        )
        head = "<tr><th>name</th><th>shape</th><th>codec</th><th>bits</th><th>relative error</th></tr>"
        title = (
            f"{self.architecture}, {self.format}: {self.parameters:,} parameters, {self.bits_per_weight:.3f} bits per "
            f"weight, {self.ratio_fp32:.3f} to 1"
        )
        return f"<p>{title}</p><table>{head}{rows}</table>"

    def matrix(self, name: str) -> PackedMatrix:
        """A compressed matrix of the file, in place. Raises upg.NotFoundError, and ValueError for a checkpoint."""
        from ._matrix import open_matrix

        return open_matrix(self.path, name)

    def plot(self) -> Figure:
        """Bits and relative error of each matrix, in the order of the layers. Needs matplotlib."""
        from matplotlib import pyplot
        from matplotlib.ticker import MaxNLocator

        matrices = [t for t in self.tensors if len(t.shape) == 2]
        figure, (bits, errors) = pyplot.subplots(2, 1, sharex=True, figsize=(10, 6), layout="constrained")
        for codec in sorted({t.codec for t in matrices}):
            at = [i for i, t in enumerate(matrices) if t.codec == codec]
            bits.scatter(at, [matrices[i].bits_per_weight for i in at], s=12, label=codec)
            known = [i for i in at if matrices[i].relative_error is not None]
            errors.scatter(known, [matrices[i].relative_error for i in known], s=12, label=codec)
        bits.axhline(self.bits_per_weight, linewidth=0.8, linestyle="--", color="grey")
        bits.set_ylabel("bits per weight")
        bits.set_title(f"{self.architecture}, {self.bits_per_weight:.3f} bits per weight, {self.ratio_fp32:.2f} to 1")
        bits.legend()
        errors.set_ylabel("relative error")
        errors.set_xlabel("matrix")
        errors.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def _blank(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _report(raw: _upg.ModelReport) -> ModelReport:
    return _copied(ModelReport, raw, tensors=[_copied(TensorReport, t) for t in raw.tensors], html=raw.html())


@dataclass(frozen=True)
class CompressReport:
    """What compression came to."""

    model: ModelReport
    seconds: float
    peak_bytes: int
    """The most memory of the process in use at once, pages of mapped files included."""
    device_peak_bytes: int
    """The same of the device; 0 on the CPU."""
    device: str
    """The device's name for people; empty on the CPU."""


def compress(
    source: Path,
    target: Path,
    ratio: float | None = None,
    *,
    bytes: int | None = None,
    bits: float | None = None,
    codec: str = "",
    density: float = 0.1,
    calibrate: Path | None = "default",
    calibration_tokens: int = 65536,
    device: str = "cpu",
    threads: int = 0,
    progress: bool | Progress = True,
) -> CompressReport:
    """Compresses the checkpoint directory ``source`` into the UPG file ``target``.

    At most one aim: ``ratio`` of float32 bytes to stored bytes of all weights, at least (10 if there is no aim);
    ``bytes`` of weight data at most; or ``bits`` a weight at most. ``codec``: one for every matrix; empty: a mix that
    meets the aim. ``density``: the share of weights that sparse codecs keep. ``calibrate``: a text file that the model
    is run on to learn which errors matter, "default" for the bundled text, None to do without. ``calibration_tokens``
    of it are read. ``device``: what does the large sums, "cpu" or "cuda".

    The file appears only when it is whole. Interrupted (KeyboardInterrupt), the same call goes on where it was. The
    same input gives the same file on the same device, whatever the number of threads. Raises upg.InvalidFileError for
    weights that are not finite, ValueError with the largest ratio possible where the aim is out of reach.
    """
    with reporter(progress) as report:
        raw = _upg.compress(
            os.fspath(source),
            os.fspath(target),
            ratio,
            bytes,
            bits,
            codec,
            density,
            "none" if calibrate is None else os.fspath(calibrate),
            calibration_tokens,
            device,
            threads,
            report,
        )
    return _copied(CompressReport, raw, model=_report(raw.model))


@dataclass(frozen=True)
class ConvertReport:
    """What conversion came to."""

    source_format: str
    """"1.0", "2.0" or "3.0"."""
    source_form: str
    """What the source is: "a pickle in a ZIP archive"."""
    model: ModelReport
    """Of the new file."""
    notes: dict[str, str]
    """Tensors that were not plainly rewritten, and how they differ."""
    seconds: float


def convert(
    source: Path,
    target: Path,
    *,
    to: str = "",
    checkpoint: Path | None = None,
    progress: bool | Progress = True,
) -> ConvertReport:
    """Rewrites a file of format 1.0 or 2.0 as ``target``, weight for weight.

    ``to``: "2.0" or "3.0"; empty: one version up. ``checkpoint``: the directory of the original checkpoint, for what a
    1.0 file lacks. A 1.0 file is a Python pickle; nothing in it is run, and names outside a short list are refused.
    Raises upg.UnsupportedError for those, upg.InvalidFileError for a damaged file.
    """
    with reporter(progress) as report:
        raw = _upg.convert(
            os.fspath(source), os.fspath(target), to, "" if checkpoint is None else os.fspath(checkpoint), report
        )
    notes = {note.tensor: note.what for note in raw.notes}
    return _copied(ConvertReport, raw, model=_report(raw.model), notes=notes)


@dataclass(frozen=True)
class ExportReport:
    """What an export came to."""

    path: str
    format: str
    type: str
    architecture: str
    """As the target format calls it."""
    tensors: int
    parameters: int
    file_bytes: int
    seconds: float
    notes: list[str]
    """What is not as in the source, and why."""


def export(
    source: Path,
    target: Path,
    *,
    format: str = "gguf",
    type: str = "f16",
    overwrite: bool = False,
    threads: int = 0,
    progress: bool | Progress = True,
) -> ExportReport:
    """Writes a model as a file of another program: GGUF, for llama.cpp.

    ``type`` of matrices: "f16", "bf16", "f32" or "q8_0". Raises upg.UnsupportedError naming what the format cannot
    express, ValueError where ``target`` is there and ``overwrite`` is False.
    """
    with reporter(progress) as report:
        raw = _upg.export_model(os.fspath(source), os.fspath(target), format, type, overwrite, threads, report)
    return _copied(ExportReport, raw)


def inspect(path: Path) -> ModelReport:
    """What a UPG file or checkpoint directory is made of: tensors, codecs, bits, errors. Reads no weights."""
    return _report(_upg.inspect(os.fspath(path)))


def verify(path: Path, *, progress: bool | Progress = True) -> None:
    """Reads a whole UPG file: structure, checksums, and that every tensor decodes. Raises upg.InvalidFileError."""
    with reporter(progress) as report:
        _upg.verify(os.fspath(path), report)


def decompress(path: Path, target: Path, *, progress: bool | Progress = True) -> None:
    """Writes the checkpoint directory ``target`` with every matrix decoded, which transformers loads."""
    with reporter(progress) as report:
        _upg.decompress(os.fspath(path), os.fspath(target), report)


@dataclass(frozen=True)
class Estimate:
    """A measured value and its standard error. ``float(estimate)`` is the value."""

    value: float
    standard_error: float

    def __float__(self) -> float:
        return self.value


def _estimate(raw: _upg.Estimate | None) -> Estimate | None:
    return None if raw is None else Estimate(raw.value, raw.standard_error)


@dataclass(frozen=True)
class TextEvaluation:
    """How well a model predicts a text; with a reference, how far it is from that."""

    tokens: int
    chunks: int
    scored: int
    """Predictions that count."""
    perplexity: Estimate
    reference_perplexity: Estimate | None
    perplexity_ratio: Estimate | None
    mean_kld: Estimate | None
    """KL divergence of this model from the reference, nats."""
    p99_kld: float | None
    max_kld: float | None
    same_top1: Estimate | None
    """Share of predictions whose likeliest token is the same."""
    seconds: float


@dataclass(frozen=True)
class TaskEvaluation:
    """How well a model does a task."""

    task: str
    items: int
    accuracy: Estimate
    normalized_accuracy: Estimate | None
    """HellaSwag: by log-likelihood per byte of the ending."""
    perplexity: Estimate | None
    """LAMBADA: of the last word's tokens."""
    seconds: float


@overload
def evaluate(
    model: Path,
    *,
    text: Path,
    reference: Path | None = ...,
    context: int = ...,
    chunks: int = ...,
    kv: str = ...,
    float_activations: bool = ...,
    threads: int = ...,
    device: str = ...,
    gpu_layers: int | None = ...,
    progress: bool | Progress = ...,
) -> TextEvaluation: ...


@overload
def evaluate(
    model: Path,
    *,
    task: str,
    data: Path,
    items: int = ...,
    kv: str = ...,
    float_activations: bool = ...,
    threads: int = ...,
    device: str = ...,
    gpu_layers: int | None = ...,
    progress: bool | Progress = ...,
) -> TaskEvaluation: ...


def evaluate(
    model: Path,
    *,
    text: Path | None = None,
    reference: Path | None = None,
    context: int = 512,
    chunks: int = 0,
    task: str | None = None,
    data: Path | None = None,
    items: int = 0,
    kv: str = "f16",
    float_activations: bool = False,
    threads: int = 0,
    device: str = "cpu",
    gpu_layers: int | None = None,
    progress: bool | Progress = True,
) -> TextEvaluation | TaskEvaluation:
    """Measures a model on the file ``text``, or on ``task`` ("hellaswag" or "lambada") with the file ``data``.

    Text: perplexity over ``chunks`` (0: all) that do not overlap, of ``context`` tokens, predictions from their middle
    on; with ``reference``, another model, KL divergence from it and agreement on the likeliest token. Task: accuracy on
    ``items`` (0: all). Formats and protocol are those of ``upg eval``. ``device`` and ``gpu_layers`` as of upg.load.
    """
    if (text is None) == (task is None) or (task is None) != (data is None):
        raise TypeError("evaluate takes text=FILE, or task=NAME and data=FILE")
    with reporter(progress) as report:
        if text is not None:
            against = "" if reference is None else os.fspath(reference)
            raw = _upg.evaluate_text(
                os.fspath(model),
                os.fspath(text),
                against,
                context,
                chunks,
                kv,
                float_activations,
                threads,
                device,
                gpu_layers,
                report,
            )
            compared = reference is not None
            return TextEvaluation(
                tokens=raw.tokens,
                chunks=raw.chunks,
                scored=raw.scored,
                perplexity=Estimate(raw.perplexity.value, raw.perplexity.standard_error),
                reference_perplexity=_estimate(raw.reference_perplexity if compared else None),
                perplexity_ratio=_estimate(raw.perplexity_ratio if compared else None),
                mean_kld=_estimate(raw.mean_kld if compared else None),
                p99_kld=raw.p99_kld if compared else None,
                max_kld=raw.max_kld if compared else None,
                same_top1=_estimate(raw.same_top1 if compared else None),
                seconds=raw.seconds,
            )
        assert task is not None
        assert data is not None
        done = _upg.evaluate_task(
            os.fspath(model), task, os.fspath(data), items, kv, float_activations, threads, device, gpu_layers, report
        )
    return TaskEvaluation(
        task=done.task,
        items=done.items,
        accuracy=Estimate(done.accuracy.value, done.accuracy.standard_error),
        normalized_accuracy=_estimate(done.normalized_accuracy),
        perplexity=_estimate(done.perplexity),
        seconds=done.seconds,
    )
