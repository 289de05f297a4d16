"""ONNX files of a small network, for tests that build, read or run files and look at no accuracy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support.once import once


class SmallFiles:
    """ONNX files of a small NanoDet by precision and place of NMS, each written once when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, key: tuple[str, str]) -> Path:
        precision, nms = key
        return once(self._folder / f"small-{precision}-{nms}.onnx", lambda path: write_small(path, precision, nms))


def write_small(path: Path, precision: str, nms: str) -> None:
    import onnx
    import torch

    from export import graph
    from train import describe
    from train.models.nanodet import NanoDet, NanoDetConfig

    torch.manual_seed(0)
    config = NanoDetConfig("nanodet-plus", num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    detector = NanoDet(config).eval()
    spec = describe.describe(detector, input_hw=(64, 96), class_names=("a", "b", "c"))
    onnx.save(graph.build_graph(detector, dataclasses.replace(spec, precision=precision, nms=nms)), path)


@pytest.fixture(scope="session")
def small_onnx(shared: Path) -> SmallFiles:
    """See :class:`SmallFiles`."""
    return SmallFiles(shared)
