"""Compress a checkpoint and compare it with the original: compress.py [CHECKPOINT [RATIO [CALIBRATION]]]"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import upg

TEXT = "The history of the city begins with a small settlement on the river, at a place where it could be crossed. "


def main(checkpoint: str, ratio: float, calibration: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "model.upg"
        report = upg.compress(checkpoint, target, ratio, calibrate=calibration)
        print(f"{report.model} in {report.seconds:.1f} s")
        for tensor in report.model.tensors[:4]:
            print(f"  {tensor.name}: {tensor.codec}, {tensor.bits_per_weight:.3f} bits")
        text = pathlib.Path(folder) / "text.txt"
        text.write_text(TEXT * 20)
        measured = upg.evaluate(target, text=text, reference=checkpoint, context=128)
        assert measured.mean_kld is not None
        print(f"KL divergence from the original {float(measured.mean_kld):.3f} nats a token")


if __name__ == "__main__":
    given = [*sys.argv[1:], *[upg.demo(), "10", "default"][len(sys.argv) - 1 :]]
    main(given[0], float(given[1]), given[2])
