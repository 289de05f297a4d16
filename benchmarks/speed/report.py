"""The report of the NanoDet models in FP32, FP16 and INT8 on this machine, and bounds of two GFL models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from benchmarks.accuracy.int8 import published, source
from benchmarks.artifacts.gfl_engines import random_weights
from benchmarks.models import ANNOTATIONS, IMAGES
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.bench.report import BenchRequest, bench
from gfl_edge.report.schema import Report
from gfl_edge.report.write import write_pages
from train.weights.find import CHECKPOINTS, data_folder

logger = logging.getLogger(__name__)

BOUNDS = ("gfl-r50-1x", "gfl-x101-dcn-2x")  # with random weights, which a bound does not depend on
BATCHES = (1, 8)


def measure(folder: Path) -> dict[str, Any]:
    """The tree of docs/report.md; models of an earlier run that are in ``folder`` are not made again."""
    data = data_folder()
    models: list[Path] = []  # FP32, FP16, and INT8 as it is placed for CPUs, which is made unless it is there
    for name in CHECKPOINTS:
        published(name, "cpu", folder, data)
        models += [source(name, "cpu", folder), source(name, "trt", folder), folder / f"{name}-cpu.int8.onnx"]
    request = BenchRequest(
        models=tuple(models),
        batches=BATCHES,
        images=data / IMAGES,
        annotations=data / ANNOTATIONS,
        bound_only=tuple(_bounded(name, folder) for name in BOUNDS),
    )
    return bench(request, ["python", "benchmarks/run.py", "report"]).to_dict()


def write(tree: dict[str, Any], folder: Path) -> None:
    """The pages of a measured tree; of these git ignores the HTML, whose content report.md has as well."""
    write_pages(Report.from_dict(tree), folder)


def _bounded(name: str, folder: Path) -> Path:
    """The FP16 model, exported unless it is there."""
    path = folder / f"{name}.onnx"
    if not path.is_file():
        logger.info("== %s", name)
        export_onnx(ExportRequest(random_weights(name, folder), precision="fp16"), path)
    return path
