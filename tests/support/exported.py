"""ONNX files of networks: small ones with random weights, and the published models."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.once import once
from tests.support.traced import KEPT, traced_once
from train.weights.find import CHECKPOINTS, data_folder

if TYPE_CHECKING:
    from gfl_edge.spec import ModelSpec
    from train.models.nanodet import NanoDet

CLASSES = ("a", "b", "c")
SHUFFLING = "shuffling-fp32-none.onnx"


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


def small_detector() -> NanoDet:
    """A NanoDet of few layers: PyTorch takes three seconds to trace it, and ten for one of the published sizes."""
    import torch

    from train.models.nanodet import NanoDet, NanoDetConfig

    torch.manual_seed(0)
    layout = {"stage_channels": (8, 16, 16), "stage_blocks": (1,) * 4, "neck_channels": 32}
    return answering(NanoDet(NanoDetConfig("nanodet-repvgg", num_classes=len(CLASSES), **layout)))


def answering(detector: NanoDet) -> NanoDet:
    """It, with random weights that make it answer; a fresh network is made to say nothing."""
    import torch

    for module in detector.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    return detector.eval()


def small_spec(detector: NanoDet) -> ModelSpec:
    """Its description, for an input of 64 x 96 pixels."""
    from train import describe

    return describe.describe(detector, input_hw=(64, 96), class_names=CLASSES)


def write_small(path: Path, precision: str, nms: str) -> None:
    detector = small_detector()
    write_graph(path, detector, dataclasses.replace(small_spec(detector), precision=precision, nms=nms))


def write_graph(path: Path, detector: NanoDet, spec: ModelSpec) -> None:
    import onnx

    from export.graph import build_graph

    with traced_once(path.parent):
        onnx.save(build_graph(detector, spec), path)


@pytest.fixture(scope="session")
def small_onnx(shared: Path) -> SmallFiles:
    """See :class:`SmallFiles`."""
    return SmallFiles(shared)


def shuffling_detector() -> NanoDet:
    """A NanoDet whose backbone splits and shuffles channels, with fewer blocks than the published ones."""
    import torch

    from train.models.nanodet import NanoDet, NanoDetConfig

    torch.manual_seed(0)
    with fewer_blocks():
        config = NanoDetConfig("nanodet", num_classes=len(CLASSES), stage_channels=(16, 32, 64), neck_channels=32)
        return answering(NanoDet(config))


@contextlib.contextmanager
def fewer_blocks() -> Iterator[None]:
    """Let ShuffleNets have fewer blocks: PyTorch takes its time for each that it traces."""
    from train.models import shufflenet_v2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shufflenet_v2, "STAGE_REPEATS", (2, 3, 2))
        yield


@pytest.fixture(scope="module")
def few_blocks() -> Iterator[None]:
    """See :func:`fewer_blocks`."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with fewer_blocks():
        yield


def write_shuffling(path: Path) -> None:
    detector = shuffling_detector()
    write_graph(path, detector, dataclasses.replace(small_spec(detector), nms="none"))


@pytest.fixture(scope="session")
def shuffling_onnx(shared: Path) -> Path:
    """The ONNX file of :func:`shuffling_detector`, in FP32 without NMS."""
    return written(shared / SHUFFLING, write_shuffling)


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
    written(folder / SHUFFLING, write_shuffling)
    name = "nanodet-m-320"
    if (checkpoint := data_folder() / CHECKPOINTS[name]).is_file():
        path = folder / f"{name}-fp32-graph.onnx"
        written(path, lambda path: write_published(path, checkpoint, name, "fp32", "graph"))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
