"""ONNX files of networks: a small one with random weights, and the published models."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.once import once
from tests.support.traced import KEPT, traced_once
from train.weights.find import CHECKPOINTS, data_folder


class SmallFiles:
    """ONNX files of a small NanoDet by precision and place of NMS, each written once when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, key: tuple[str, str]) -> Path:
        precision, nms = key
        path = self._folder / f"small-{precision}-{nms}.onnx"
        return written(path, lambda path: write_small(path, precision, nms))


def written(path: Path, write: Callable[[Path], object]) -> Path:
    """``path``, or the kept file of that name, written unless it is there; skips where there is no PyTorch for it."""
    if KEPT in os.environ:
        path = Path(os.environ[KEPT]) / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and importlib.util.find_spec("torch") is None:
        pytest.skip(f"there is no {path.name}, which PyTorch exports")
    return once(path, write)


def write_small(path: Path, precision: str, nms: str) -> None:
    import onnx

    from benchmarks.fingerprints import export_small

    with traced_once(path.parent):
        onnx.save(export_small("nanodet-plus", precision, nms), path)


@pytest.fixture(scope="session")
def small_onnx(shared: Path) -> SmallFiles:
    """See :class:`SmallFiles`."""
    return SmallFiles(shared)


@pytest.fixture(scope="session")
def exported(checkpoint: Callable[[str], Path], shared: Path) -> Callable[..., Path]:
    """The ONNX file of a published model, exported once per session and variant."""

    def export(name: str, precision: str = "fp32", nms: str = "graph", uncertainty: bool = False) -> Path:
        path = shared / f"{name}-{precision}-{nms}{'-sigma' if uncertainty else ''}.onnx"
        return written(path, lambda path: write_published(path, checkpoint(name), name, precision, nms, uncertainty))

    return export


def write_published(
    path: Path, checkpoint: Path, name: str, precision: str, nms: str, uncertainty: bool = False
) -> None:
    from export.arguments import ExportRequest
    from export.to_onnx import export_onnx

    with traced_once(path.parent):
        export_onnx(ExportRequest(checkpoint, model=name, precision=precision, nms=nms, uncertainty=uncertainty), path)


def write_all(folder: Path) -> None:
    """Into ``folder``: the small files, and those of one published model where its checkpoint is."""
    os.environ[KEPT] = str(folder)
    small = SmallFiles(folder)
    for key in [*itertools.product(("fp32", "fp16"), ("graph", "none", "raw")), ("fp32", "plugin")]:
        small[key]
    name = "nanodet-m-320"
    if (checkpoint := data_folder() / CHECKPOINTS[name]).is_file():
        path = folder / f"{name}-fp32-graph.onnx"
        written(path, lambda path: write_published(path, checkpoint, name, "fp32", "graph"))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
