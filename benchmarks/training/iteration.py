"""What one training iteration costs on a CPU, by part and by the number of objects in each image."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.assigner import random_target
from gfl_edge.report.plots import bar_chart
from train.config import Config
from train.data.load import load_data
from train.data.loader import Batch, TrainingLoader
from train.network import TrainedNetwork, build_detector, criterion_config
from train.objective.criterion import Criterion
from train.structures import Outputs
from train.weights.find import data_folder

logger = logging.getLogger(__name__)

BOXES = (1, 10, 100, 500)
THREADS = 2
PARTS = ("data", "forward", "assign", "loss", "backward")


@dataclass(frozen=True)
class Case:
    """A network and its batch."""

    model: dict[str, Any]
    resize: str
    input_hw: tuple[int, int]
    batch: int
    runs: int


CASES = {
    "gfl-r50-1x, 800x1344, 1 image": Case({"published": "gfl-r50-1x"}, "fit", (800, 1344), 1, 3),
    "nanodet-m, 320x320, 8 images": Case({"nanodet": {"family": "nanodet"}}, "letterbox", (320, 320), 8, 8),
    "nanodet-plus-m, 416x416, 8 images": Case({"nanodet": {"family": "nanodet-plus"}}, "stretch", (416, 416), 8, 8),
}


def measure(folder: Path) -> dict[str, Any]:
    """Medians of the parts of an iteration, on images of coco128 with random boxes; writes nothing to ``folder``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        cases = {name: _measure_case(name, case, folder) for name, case in CASES.items()}
    finally:
        torch.set_num_threads(threads)
    return {"threads": THREADS, "parts": PARTS, "unit": "ms", "cases": cases}


def draw(result: dict[str, Any]) -> bytes:
    """A bar per case and number of boxes, each as parts of its own whole."""
    rows = {}
    for name, case in result["cases"].items():
        for row in case["by_boxes"]:
            whole = sum(row[part] for part in PARTS)
            rows[f"{name}, {row['boxes']} boxes"] = {part: 100 * row[part] / whole for part in PARTS}
    return bar_chart("Parts of one training iteration on 2 CPU cores", "percent of the iteration", rows)


def _measure_case(name: str, case: Case, folder: Path) -> dict[str, Any]:
    config = _config(case, folder)
    data = load_data(config.data).train
    network = TrainedNetwork(build_detector(config, len(data.class_names)))
    criterion = Criterion(criterion_config(network.detector.config, config.loss))
    batches = _endless(TrainingLoader(config.data, data, case.batch, seed=0))
    rows = []
    for count in BOXES:
        logger.info("%s, %d boxes", name, count)
        rows.append(_measure_boxes(count, network, criterion, batches, case))
    return {"input_hw": case.input_hw, "images": case.batch, "by_boxes": rows}


def _config(case: Case, folder: Path) -> Config:
    coco128 = {
        "format": "coco",
        "images": "coco128/train2017",
        "annotations": "coco128/annotations/instances_train2017.json",
    }
    sets = {"root": str(data_folder()), "train": coco128}
    data = {"input_hw": list(case.input_hw), "resize": case.resize, "on_bad": "drop", **sets}
    values = {"model": case.model, "data": data, "train": {"output": str(folder / "unused")}}
    return Config.from_dict(values)


def _endless(loader: TrainingLoader) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from loader.batches(epoch)
        epoch += 1


def _measure_boxes(
    count: int, network: TrainedNetwork, criterion: Criterion, batches: Iterator[Batch], case: Case
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(count)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for run in range(case.runs + 1):
        found = _iterate(count, network, criterion, batches, case, generator)
        for part in PARTS if run else ():  # the first warms up
            times[part].append(found[part])
    medians = {part: round(1000 * statistics.median(values), 2) for part, values in times.items()}
    share = round(100 * medians["assign"] / sum(medians.values()), 2)
    return {"boxes": count, **medians, "assign_percent": share}


def _iterate(
    count: int,
    network: TrainedNetwork,
    criterion: Criterion,
    batches: Iterator[Batch],
    case: Case,
    generator: torch.Generator,
) -> dict[str, float]:
    """Seconds of each part of one iteration."""
    found: dict[str, float] = {}
    with _timed(found, "data"):
        batch = next(batches)
    num_classes = criterion.config.num_classes
    targets = [random_target(count, case.input_hw, num_classes, generator) for _ in range(case.batch)]
    with _timed(found, "forward"):
        outputs: Outputs = network(batch.images)
    with _timed(found, "assign"):
        criterion.assign(outputs, targets, case.input_hw)
    with _timed(found, "loss"):
        total = torch.stack(list(criterion(outputs, targets, case.input_hw).values())).sum()
    with _timed(found, "backward"):
        torch.autograd.backward(total)
    network.zero_grad(set_to_none=True)
    return {**found, "loss": max(0.0, found["loss"] - found["assign"])}  # the criterion assigns as well


@contextmanager
def _timed(found: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    found[part] = time.perf_counter() - start
