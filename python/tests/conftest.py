"""What the tests share: the bundled model, and a compressed copy of it made once."""

from __future__ import annotations

import pathlib

import pytest
import upg

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def model() -> upg.Model:
    return upg.load(upg.demo(), progress=False)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The bundled model ten to one, without calibration."""
    target = tmp_path_factory.mktemp("models") / "demo.upg"
    upg.compress(upg.demo(), target, calibrate=None, progress=False)
    return target


def file_of_text(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "text.txt"
    path.write_text("The history of the city begins with a small settlement on the river, and so on. " * 12)
    return path
