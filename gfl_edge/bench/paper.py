"""The models of the papers, what they reached, and which of ours they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gfl_edge.report.schema import ModelRow, PaperRow, PaperRun, Run

GPU = "GeForce RTX 2080 Ti"
REAL_TIME_FPS = 30.0
INPUT_HW = (800, 1333)  # of the protocol; networks pad to 800 x 1344
SOURCES = (
    "AP and FPS: README of implus/GFocal, for GFLv2 of implus/GFocalV2; mmdetection's own checkpoints (configs/gfl) "
    "reach up to 0.2 points more or less",
    "FPS: PyTorch, batch 1, 1333 x 800, RTX 2080 Ti (GFocal tools/benchmark.py: 2000 images after 5 warm-ups, upload, "
    "forward, decode and NMS, without image loading and resize)",
)


@dataclass(frozen=True)
class PaperModel:
    """A row of the papers' tables.

    Attributes:
        name: of this project.
        network: how the names of its exported files begin; models that differ only in training share it.
        ap_minival: COCO AP on val2017, percent.
        ap_test_dev: on test-dev; None: not published.
        fps: images per second; None: not published.
        target: whether it is the one that the project is measured against.
    """

    name: str
    network: str
    ap_minival: float | None
    ap_test_dev: float | None
    fps: float | None
    target: bool = False


PAPER_MODELS = (
    PaperModel("gfl-r50-1x", "gfl-r50", 40.2, 40.3, 19.4),
    PaperModel("gfl-r50-2x", "gfl-r50", 42.8, 43.1, 19.4),
    PaperModel("gfl-r101-2x", "gfl-r101", 44.9, 45.0, 14.6),
    PaperModel("gfl-r101-dcn-2x", "gfl-r101-dcn", 47.2, 47.3, 12.7),
    PaperModel("gfl-x101-2x", "gfl-x101-32x4d", 45.7, 46.0, 12.2),
    PaperModel("gfl-x101-dcn-2x", "gfl-x101-32x4d-dcn", 48.3, 48.2, 10.0, target=True),
    PaperModel("gflv2-r50-1x", "gflv2-r50", 41.0, None, None),
    PaperModel("gflv2-r50-2x", "gflv2-r50", 43.9, None, None),
    PaperModel("gflv2-r101-2x", "gflv2-r101", 45.8, None, None),
    PaperModel("gflv2-x101-dcn-2x", "gflv2-x101-32x4d-dcn", 48.8, None, 10.7),
)


def is_network(model_name: str, paper: PaperModel) -> bool:
    """Whether a model file's name is of this paper's network, at the papers' input size."""
    return model_name in (f"{paper.network}-800x1344", f"{paper.network}-dynamic-800-1333")


def rows(models: Sequence[ModelRow], runs: Sequence[Run]) -> tuple[PaperRow, ...]:
    """The papers' models with the fastest run of the same network here, by the papers' protocol."""
    timed = {run.model: run for run in runs if run.protocol == "gfocal"}
    found = []
    for paper in PAPER_MODELS:
        same = [model for model in models if is_network(model.name, paper) and model.id in timed]
        best = max(same, key=lambda model: timed[model.id].latency.fps, default=None)
        here = None
        if best is not None:
            assert best.backend is not None  # it ran
            fps = timed[best.id].latency.fps
            here = PaperRun(
                model=best.id,
                device=best.backend.device,
                fps=fps,
                ratio=None if paper.fps is None else fps / paper.fps,
                real_time=fps >= REAL_TIME_FPS,
                ap=None if best.accuracy is None else best.accuracy.ap,
            )
        found.append(PaperRow(paper.name, paper.ap_minival, paper.ap_test_dev, paper.fps, paper.target, here))
    return tuple(found)
