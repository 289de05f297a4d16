"""The family: of every model its AP, how exactly it is exported, and its engines for sm75 in FP16 and INT8.

Weights are random where there are none here, as nothing but AP depends on them; of equal networks that differ in their
input one stands for all. A long measurement that was stopped goes on in its folder.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.artifacts.engines import build
from benchmarks.artifacts.gfl_engines import random_weights
from benchmarks.kept import kept
from benchmarks.models import ANNOTATIONS, IMAGES
from calib.arguments import CalibrationRequest
from calib.run import calibrate
from export.arguments import ExportRequest
from export.engine import EnginePrecision
from export.to_onnx import export_onnx
from gfl_edge.adopt.run import AdoptRequest, adopt
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.spec import Precision
from gfl_edge.zoo.catalogue import CATALOGUE
from train.models.gfl import GFLConfig
from train.weights.find import CHECKPOINTS, data_folder

logger = logging.getLogger(__name__)

RESULTS = Path(__file__).resolve().parent.parent / "results"
TARGET = "sm75"
CALIBRATION, CALIBRATION_IMAGES = "coco128/train2017", 16
COLUMN = "fp32, NMS in the graph, openvino"  # of ap_mix397.json
ENGINES: tuple[EnginePrecision, ...] = ("fp16", "int8")

MODELS = (
    "nanodet-m-0.5x-320",
    "nanodet-m-320",
    "nanodet-m-416",
    "nanodet-m-1.5x-416",
    "nanodet-t-320",
    "nanodet-g-416",
    "nanodet-efficientlite0-320",
    "nanodet-efficientlite1-416",
    "nanodet-efficientlite2-512",
    "nanodet-repvgg-a0-416",
    "nanodet-plus-m-320",
    "nanodet-plus-m-416",
    "nanodet-plus-m-1.5x-416",
    "atss-r50-1x",
    "gfl-r50-1x",
    "gflv2-r50-1x",
)
SAPD = GFLConfig("sapd", quality="none", regression="dirac")
# Other people's ONNX files, by the name of the row: below the data folder, and the AP that their authors state
ADOPTED = {
    "nanodet-m-320, adopted": ("weights/nanodet_m/nanodet_m_320.onnx", 20.6),
    "nanodet-m-416, adopted": ("weights/nanodet_m/nanodet_m_416.onnx", 23.5),
    "picodet-s-416, adopted": ("weights/picodet/picodet_s_416_coco.onnx", 30.6),
}


@dataclass(frozen=True)
class Exported:
    """A model as ONNX.

    Attributes:
        path: of the file.
        input_hw: (height, width) in pixels.
        score: how far scores are from those of what it was made from, at most.
        edge: likewise edges of boxes, in strides.
    """

    path: Path
    input_hw: tuple[int, int]
    score: float
    edge: float


@dataclass(frozen=True)
class Member:
    """A row of the table.

    Attributes:
        name: of the model.
        weights: "published", or "random" where only the architecture is here.
        published_ap: COCO AP that its authors state, percent; None: they state none.
        export: writes it in a precision into a folder.
    """

    name: str
    weights: str
    published_ap: float | None
    export: Callable[[Precision, Path], Exported]


def members() -> list[Member]:
    """All rows."""
    return [
        *(_published(name) for name in MODELS),
        Member("sapd-r50", "random", None, functools.partial(_export_random, "sapd-r50", SAPD)),
        *(Member(name, "published", ap, functools.partial(_adopt, file)) for name, (file, ap) in ADOPTED.items()),
    ]


def _published(name: str) -> Member:
    ap = CATALOGUE[name].val_ap
    if name not in CHECKPOINTS:
        return Member(name, "random", ap, functools.partial(_export_random, name, None))
    return Member(name, "published", ap, functools.partial(_export, name, data_folder() / CHECKPOINTS[name]))


def _export(name: str, weights: Path, precision: Precision, folder: Path) -> Exported:
    entry = CATALOGUE.get(name)
    path = folder / f"{name}-{precision}.onnx"
    done = export_onnx(ExportRequest(weights, precision=precision, input_hw=entry.input_hw if entry else None), path)
    return Exported(path, done.spec.input_hw, done.parity.score, done.parity.edge)


def _export_random(name: str, architecture: GFLConfig | None, precision: Precision, folder: Path) -> Exported:
    weights = random_weights(name, folder, architecture)
    try:
        return _export(name, weights, precision, folder)
    finally:
        weights.unlink()


def _adopt(file: str, precision: Precision, folder: Path) -> Exported:
    path = folder / f"{Path(file).stem}-adopted-{precision}.onnx"
    done = adopt(AdoptRequest(source=data_folder() / file, output=path, fp16=precision == "fp16"))
    return Exported(path, done.spec.input_hw, done.proof.score, done.proof.edge)


def measure(folder: Path, only: Sequence[Member] | None = None) -> dict[str, Any]:
    """Export, quantize and build every model; ``folder`` takes the files, and what was measured of each."""
    rows = []
    for member in members() if only is None else only:
        rows.append(kept(folder / f"{member.name}.json", functools.partial(row, member, folder)))
    return {"target": TARGET, "annotations": ANNOTATIONS, "calibration_images": CALIBRATION_IMAGES, "rows": rows}


def row(member: Member, folder: Path) -> dict[str, Any]:
    """All about one model, in plain values."""
    logger.info("== %s", member.name)
    start = time.perf_counter()
    full, half = (member.export(precision, folder) for precision in ("fp32", "fp16"))
    seconds = time.perf_counter() - start
    int8 = folder / f"{member.name}-int8.onnx"
    quantized = calibrate(
        CalibrationRequest(
            half.path,
            data_folder() / CALIBRATION,
            int8,
            method="max",
            num_images=CALIBRATION_IMAGES,
            min_snr_db=0.0,  # sizes and times are those of a file all of whose layers are INT8
        )
    ).record
    engines = {}
    for precision, onnx in zip(ENGINES, (half.path, int8), strict=True):
        built = build(onnx, precision, TARGET, folder)
        engines[precision] = built.row(member.name)
        built.result.engine.unlink()
    found = {
        "model": member.name,
        "weights": member.weights,
        "input_hw": full.input_hw,
        "published_ap": member.published_ap,
        "ap": _ap(member, full),
        "parity": {name: {"score": each.score, "edge": each.edge} for name, each in (("fp32", full), ("fp16", half))},
        "export_seconds": round(seconds, 1),
        "int8_convolutions": [quantized.quantized, quantized.convolutions],
        "engines": engines,
    }
    for path in (full.path, half.path, int8):
        path.unlink()
    return found


def _ap(member: Member, exported: Exported) -> float | None:
    """On mix397 in FP32, percent: as it was measured for the front table, else now; None of random weights."""
    if member.weights != "published":
        return None
    known = json.loads((RESULTS / "ap_mix397.json").read_text())["models"]
    if member.name in known:
        return float(known[member.name][COLUMN]["AP"])
    with Detector(exported.path, performance="throughput") as detector:
        found = evaluate(detector, data_folder() / IMAGES, data_folder() / ANNOTATIONS)
    return round(found.percent("AP"), 3)
