"""How many images a second ``gfl-edge batch`` does here: without Ray, and with one and two of its workers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.faults.process import run
from benchmarks.models import IMAGES
from gfl_edge.backends.onnx_cpu import CORES_VARIABLE
from gfl_edge.batch.reading import read_location
from gfl_edge.batch.rows import Row, encode_part
from gfl_edge.detector import Detector
from gfl_edge.progress import track
from train.weights.find import data_folder

FEW, MANY = 200, 1200  # images of the two runs from whose difference the rate is
CHUNK, ROUNDS = 100, 3
STAGE_IMAGES = 200
WAYS: dict[str, tuple[str, ...]] = {
    "without Ray": (),
    "Ray, 1 worker": ("--address", "local", "--workers", "1"),
    "Ray, 2 workers": ("--address", "local", "--workers", "2"),
}


def measure(folder: Path) -> dict[str, Any]:
    """Rates by the time that more images take, so that no start is in them; the ways in turn, medians of the rounds."""
    images = sorted((data_folder() / IMAGES).iterdir())
    for count in (FEW, MANY):
        names = [str(images[i % len(images)]) for i in range(count)]
        (folder / f"{count}.txt").write_text("".join(f"{name}\n" for name in names))
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in track(range(ROUNDS), "batch", ROUNDS):
        for way, words in WAYS.items():
            seconds[way].append((_seconds(folder, FEW, words), _seconds(folder, MANY, words)))
    return {
        "images": {"few": FEW, "many": MANY, "chunk": CHUNK, "rounds": ROUNDS},
        "ways": {way: _rate(found) for way, found in seconds.items()},
        "stages_ms": _stages(images[:STAGE_IMAGES]),
    }


def _seconds(folder: Path, count: int, words: tuple[str, ...]) -> float:
    start = time.perf_counter()
    given = ["gfl-edge", "batch", f"{count}.txt", "-o", "out.parquet", "--chunk", str(CHUNK), *words]
    ended = run(given, folder)
    assert ended.status == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout)["images"] == count
    return time.perf_counter() - start


def _rate(found: list[tuple[float, float]]) -> dict[str, float]:
    rates = [(MANY - FEW) / (many - few) for few, many in found]
    starts = [few - FEW / rate for (few, _), rate in zip(found, rates, strict=True)]
    return {
        "images_per_second": round(median(rates), 2),
        "lowest": round(min(rates), 2),
        "highest": round(max(rates), 2),
        "start_seconds": round(median(starts), 1),
    }


def _stages(images: list[Path]) -> dict[str, float]:
    """Milliseconds of each stage of an image, on one core, one after the other: medians."""
    os.environ[CORES_VARIABLE] = "1"
    try:
        with Detector() as detector:
            return _stage_times(detector, images)
    finally:
        del os.environ[CORES_VARIABLE]


def _stage_times(detector: Detector, images: list[Path]) -> dict[str, float]:
    times: dict[str, list[float]] = {"read and decode": [], "resize": [], "network": [], "NMS and the rest": []}
    rows: list[Row] = []
    for path in images:
        start = time.perf_counter()
        image = read_location(str(path))
        times["read and decode"].append(1000 * (time.perf_counter() - start))
        found = detector.infer(detector.prepare([image]))
        for stage, key in (("resize", "preprocess"), ("network", "network"), ("NMS and the rest", "postprocess")):
            times[stage].append(found.ms[key])
        rows.append(Row(str(path), (image.shape[0], image.shape[1]), found.detections[0]))
    encode_part(rows[:1], detector.spec.edge_sigma)  # loads the library
    whole = _ms(lambda: encode_part(rows, detector.spec.edge_sigma))
    return {
        **{stage: round(median(values), 3) for stage, values in times.items()},
        "encode": round(whole / len(rows), 4),
    }


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)
