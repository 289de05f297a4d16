"""Small runs of ``gfl-edge batch``: a model of a few kilobytes, images that all differ, and some that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.media_files import make_image
from tests.support.tiny_onnx import SPEC, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]
COUNT = 12  # images of ``folder``, two of which are none
BAD = ("b/cut.jpg", "b/empty.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in folders, and what is no image."""
    folder = tmp_path / "in"
    for name in ("b", "a/deep", ".hidden"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT - len(BAD)):
        place = ("", "a/", "a/deep/")[number % 3]
        make_image(folder / f"{place}{number:02}.png", int(rng.integers(0, 256)), (20 + number, 31 + number))
    make_image(folder / ".hidden" / "x.png")
    make_image(folder / ".y.png")
    (folder / BAD[0]).write_bytes(b"\xff\xd8\xff")
    (folder / BAD[1]).touch()
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(tiny_onnx("none", SPEC), path)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Of a result, as Python has them."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]


def start_batch(words: list[str | Path], folder: Path) -> subprocess.Popen[str]:
    """``gfl-edge batch`` in a process of its own, in that folder."""
    command = [sys.executable, "-m", "gfl_edge", "batch", *map(str, words)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    path = f"{os.environ.get('PYTHONPATH', '')}:{CHECKOUT}".lstrip(":")
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, text=True, **piped)  # type: ignore[call-overload,no-any-return]
