"""What everything around the network costs on a CPU: from a BGR frame to its detections, beside the bare network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import IMAGES, export
from benchmarks.peers.networks import export_plain, openvino_network
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.detector import Detector
from gfl_edge.media.images import read_image
from gfl_edge.progress import track
from train.weights.find import CHECKPOINTS, data_folder

FRAMES, ROUNDS = 100, 5
PLACES: tuple[NmsChoice, ...] = ("host", "graph")


def measure(folder: Path) -> dict[str, Any]:
    """Times of every model; ``folder`` takes the exported files.

    All run on each frame one after the other, several rounds of it. A frame's time is the least of its rounds, which is
    when nothing else disturbed it, and the median over the frames is reported.
    """
    return {"frames": FRAMES, "rounds": ROUNDS, "models": {name: _measure_model(name, folder) for name in CHECKPOINTS}}


def _measure_model(name: str, folder: Path) -> dict[str, Any]:
    path, plain = export(name, folder), folder / f"{name}-plain.onnx"
    detectors = {place: Detector(path, "openvino", place) for place in PLACES}
    height, width = detectors["host"].spec.input_hw
    export_plain(name, (height, width), plain)
    network = openvino_network(plain)
    blob = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    frames = [read_image(file) for file in sorted((data_folder() / IMAGES).iterdir())[:FRAMES]]
    times: dict[str, list[float]] = {"bare": [], **{place: [] for place in PLACES}}
    stages: dict[str, list[dict[str, float]]] = {place: [] for place in PLACES}
    for _ in track(range(ROUNDS), name, ROUNDS):
        for frame in frames:
            start = time.perf_counter()
            network(blob)
            times["bare"].append(time.perf_counter() - start)
            for place, detector in detectors.items():
                start = time.perf_counter()
                ms = detector.infer(detector.prepare([frame])).ms
                times[place].append(time.perf_counter() - start)
                stages[place].append(ms)
    for detector in detectors.values():
        detector.close()
    frame_ms = {kind: 1000 * _typical(np.array(values)) for kind, values in times.items()}
    return {
        "bare_network_ms": round(frame_ms["bare"], 3),
        **{
            f"nms_{place}": {
                "frame_ms": round(frame_ms[place], 3),
                "of_bare_network": round(frame_ms[place] / frame_ms["bare"], 3),
                "stages_ms": _stages(stages[place]),
            }
            for place in PLACES
        },
    }


def _stages(rows: list[dict[str, float]]) -> dict[str, float]:
    return {stage: round(_typical(np.array([row[stage] for row in rows])), 3) for stage in rows[0]}


def _typical(values: NDArray[np.float64]) -> float:
    """The median over the frames of the least of each frame's rounds."""
    return float(np.median(values.reshape(ROUNDS, FRAMES).min(axis=0)))
