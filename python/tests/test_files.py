"""Compressing, inspecting, checking and measuring."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import upg
from conftest import file_of_text


def test_compression_meets_its_aim_and_tells_what_went_where(packed: Path) -> None:
    report = upg.inspect(packed)
    assert report.format == "UPG 3.0"
    assert report.ratio_fp32 >= 10
    assert report.file_bytes == packed.stat().st_size
    assert report.weight_bytes == sum(t.bytes for t in report.tensors)
    assert all(t.relative_error is not None for t in report.tensors if t.codec.startswith("trellis"))
    assert "10.0" in repr(report)
    assert "lm_head.weight" in report._repr_html_()
    assert report.html.startswith("<!doctype html>")
    upg.verify(packed, progress=False)
    assert upg.load(packed, progress=False).complete("Once", max_tokens=4).finish_reason == "length"


def test_the_file_is_that_of_the_command(packed: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "upg",
        "compress",
        upg.demo(),
        "-o",
        str(tmp_path / "c.upg"),
        "--calibrate",
        "none",
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "c.upg").read_bytes() == packed.read_bytes()
    shown = subprocess.run(
        [sys.executable, "-m", "upg", "inspect", str(packed), "--json"], check=True, capture_output=True
    )
    told = json.loads(shown.stdout)
    report = upg.inspect(packed)
    assert told["bits_per_weight"] == report.bits_per_weight
    assert [t["name"] for t in told["tensors"]] == [t.name for t in report.tensors]


def test_a_matrix_of_the_file_is_read_in_place(packed: Path, tmp_path: Path) -> None:
    matrix = upg.inspect(packed).matrix("lm_head.weight")
    assert isinstance(matrix, upg.Trellis)
    assert matrix.shape == (8192, 256)
    upg.decompress(packed, tmp_path / "dense", progress=False)
    dense = upg.load(tmp_path / "dense", progress=False)
    assert dense.parameters == 14424320
    with pytest.raises(upg.NotFoundError, match="no tensor"):
        upg.open_matrix(packed, "nothing")
    with pytest.raises(ValueError, match="is not a matrix"):
        upg.open_matrix(packed, "model.norm.weight")
    with pytest.raises(ValueError, match="not a UPG file"):
        upg.open_matrix(upg.demo(), "lm_head.weight")


def test_aims_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ratio"):
        upg.compress(upg.demo(), tmp_path / "out.upg", 100, calibrate=None, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_callback_sees_progress_and_may_stop_the_work(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def stop(stage: str, done: int, total: int) -> bool:
        seen.append((stage, done, total))
        return False

    with pytest.raises(upg.CancelledError):
        upg.compress(upg.demo(), tmp_path / "out.upg", codec="int8", progress=stop)
    assert len(seen) == 1
    assert not (tmp_path / "out.upg").exists()

    def fail(*_: object) -> None:
        raise RuntimeError("of the callback")

    with pytest.raises(RuntimeError, match="of the callback"):
        upg.compress(upg.demo(), tmp_path / "out.upg", codec="int8", progress=fail)


def test_ctrl_c_ends_compression_and_leaves_no_half_file(tmp_path: Path) -> None:
    code = """
import sys, upg
def tell(*step):
    print("working", flush=True)
try:
    upg.compress(upg.demo(), sys.argv[1], progress=tell)
except KeyboardInterrupt:
    print("interrupted")
"""
    target = tmp_path / "out.upg"
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGINT)
        out = child.communicate(timeout=120)[0]
    assert out.endswith("interrupted\n")
    assert not target.exists()


def test_evaluation_measures_text_and_tasks(packed: Path, tmp_path: Path) -> None:
    text = file_of_text(tmp_path)
    done = upg.evaluate(packed, text=text, reference=upg.demo(), context=64, chunks=2, progress=False)
    assert done.chunks == 2
    assert float(done.perplexity) > 1
    assert done.mean_kld is not None
    assert 0 < done.mean_kld.value < 1
    alone = upg.evaluate(packed, text=text, context=64, chunks=2, progress=False)
    assert alone.perplexity == done.perplexity
    assert alone.mean_kld is None
    data = tmp_path / "lambada.jsonl"
    data.write_text('{"text": "The capital of the kingdom was a city"}\n{"text": "He went down to the sea"}\n')
    task = upg.evaluate(packed, task="lambada", data=data, progress=False)
    assert task.items == 2
    assert task.perplexity is not None
    with pytest.raises(TypeError, match="text=FILE, or task=NAME"):
        upg.evaluate(packed)  # type: ignore[call-overload]


def test_a_report_is_drawn(packed: Path, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    figure = upg.inspect(packed).plot()
    bits, errors = figure.axes
    assert bits.get_ylabel() == "bits per weight"
    assert sum(np.shape(c.get_offsets())[0] for c in errors.collections) == 50
    figure.savefig(tmp_path / "report.png")


def test_tqdm_is_asked_to_draw(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = pytest.importorskip("tqdm.auto")
    drawn: list[tuple[str, int]] = []

    class Bar(auto.tqdm):  # type: ignore[misc,name-defined]
        def close(self) -> None:
            drawn.append((self.desc, self.n))
            super().close()

    monkeypatch.setattr(auto, "tqdm", Bar)
    upg.verify(packed)
    assert drawn
    assert all(n > 0 for _, n in drawn)


def test_numbers_of_the_report_are_plain(packed: Path) -> None:
    tensor = upg.inspect(packed).tensors[0]
    assert np.prod(tensor.shape) * tensor.bits_per_weight == pytest.approx(8 * tensor.bytes)


LEGACY = Path(__file__).parents[2] / "tests" / "data" / "legacy"


def test_a_pickle_of_format_1_becomes_a_file_of_today(tmp_path: Path) -> None:
    report = upg.convert(LEGACY / "protocol5_numpy2.upg1", tmp_path / "new.upg", progress=False)
    assert (report.source_format, report.model.format) == ("1.0", "UPG 2.0")
    upg.verify(tmp_path / "new.upg", progress=False)
    newest = upg.convert(tmp_path / "new.upg", tmp_path / "newest.upg", progress=False)
    assert newest.model.format == "UPG 3.0"
    assert newest.model.parameters == report.model.parameters


def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "evil.upg").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(upg.UnsupportedError, match=r"os\.system"):
        upg.convert(tmp_path / "evil.upg", tmp_path / "new.upg", progress=False)
    assert not (tmp_path / "new.upg").exists()


def test_a_model_becomes_a_gguf_file(packed: Path, tmp_path: Path) -> None:
    report = upg.export(packed, tmp_path / "demo.gguf", type="q8_0", progress=False)
    assert (tmp_path / "demo.gguf").read_bytes()[:4] == b"GGUF"
    assert report.file_bytes == (tmp_path / "demo.gguf").stat().st_size
    with pytest.raises(ValueError, match=r"demo\.gguf"):
        upg.export(packed, tmp_path / "demo.gguf", progress=False)
