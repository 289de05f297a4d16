"""ONNX files of a small network, for tests that build, read or run files and look at no accuracy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

SmallFiles = dict[tuple[str, str], Path]


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> SmallFiles:
    """ONNX files of a small NanoDet by precision and place of NMS."""
    import onnx
    import torch

    from export import graph
    from train import describe
    from train.models.nanodet import NanoDet, NanoDetConfig

    torch.manual_seed(0)
    config = NanoDetConfig("nanodet-plus", num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    detector = NanoDet(config).eval()
    spec = describe.describe(detector, input_hw=(64, 96), class_names=("a", "b", "c"))
    folder = tmp_path_factory.mktemp("small")
    files = {}
    for precision, nms in (
        ("fp32", "graph"),
        ("fp16", "graph"),
        ("fp16", "none"),
        ("fp16", "raw"),
        ("fp32", "raw"),
        ("fp32", "plugin"),
    ):
        files[precision, nms] = folder / f"{precision}-{nms}.onnx"
        changed = dataclasses.replace(spec, precision=precision, nms=nms)
        onnx.save(graph.build_graph(detector, changed), files[precision, nms])
    return files
