"""Is the graph's NMS greedy NMS, how many rounds does it need, and what does it cost on a CPU?"""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import IMAGES, export
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.media.images import read_image
from gfl_edge.ops.boxes import greedy_nms, pairwise_iou
from gfl_edge.ops.nms_graph import ROUNDS
from gfl_edge.ops.preprocess import resize_into
from gfl_edge.progress import track
from gfl_edge.spec import ModelSpec
from train.weights.find import CHECKPOINTS, data_folder

LIBRARIES: tuple[BackendName, ...] = ("openvino", "onnxruntime")
ORDER = "the same set, equal scores in another order: the library's TopK does not put the lower index first"


def measure(folder: Path) -> dict[str, Any]:
    """Parity, rounds and time of every model; ``folder`` takes the exported files."""
    return {"rounds_in_the_graph": ROUNDS, "models": {name: _measure_model(name, folder) for name in CHECKPOINTS}}


def _measure_model(name: str, folder: Path) -> dict[str, Any]:
    path = export(name, folder)
    files = sorted((data_folder() / IMAGES).iterdir())
    # One library after the other: the waiting threads of one would take the cores from the other
    compared = {library: _compare(path, library, files) for library in LIBRARIES}
    differing = [row for library in LIBRARIES for row in compared[library]["differing"]]
    return {
        "images": len(files),
        "images_whose_kept_set_differs_from_greedy": len({d["image"] for d in differing if d["reason"] != ORDER}),
        "differing": differing,
        **_count_rounds(path, files),
        "median_ms_per_frame": {library: compared[library]["median_ms"] for library in LIBRARIES},
        "host_over_graph": {library: compared[library]["host_over_graph"] for library in LIBRARIES},
    }


def _compare(path: Path, library: BackendName, files: list[Path]) -> dict[str, Any]:
    """Run both places of NMS on every image, in turns."""
    places: tuple[NmsChoice, ...] = ("host", "graph")
    detectors = {place: Detector(path, library, place) for place in places}
    milliseconds: dict[str, list[float]] = {place: [] for place in places}
    differing = []
    for image in track(files, f"{path.stem}, {library}", len(files)):
        frame = read_image(image)
        found = {}
        for place, detector in detectors.items():
            (found[place],), ms, _ = detector.infer(detector.prepare([frame]))
            milliseconds[place].append(sum(ms.values()))
        if not np.array_equal(_rows(found["host"]), _rows(found["graph"])):
            reason = _reason(found["host"], found["graph"])
            differing.append({"image": image.name, "library": library, "reason": reason})
    for detector in detectors.values():
        detector.close()
    medians = {place: round(statistics.median(milliseconds[place]), 3) for place in places}
    ratio = round(medians["host"] / medians["graph"], 3)
    return {"differing": differing, "median_ms": medians, "host_over_graph": ratio}


def _count_rounds(path: Path, files: list[Path]) -> dict[str, Any]:
    """How many rounds and candidates the images have."""
    rounds, candidates = Counter[int](), []
    with Detector(path, "onnxruntime", "host") as detector:
        size_hw = detector.spec.input_hw
        for image in track(files, f"{path.stem}, rounds", len(files)):
            inputs = np.empty((1, *size_hw, 3), np.uint8)
            resize_into(read_image(image), inputs[0], detector.spec.resize)
            outputs = detector.backend.run(inputs)
            needed, count = rounds_needed(
                np.asarray(outputs["boxes"][0], np.float32), np.asarray(outputs["scores"][0], np.float32), detector.spec
            )
            rounds[needed] += 1
            candidates.append(count)
    return {
        "rounds_needed": dict(sorted(rounds.items())),
        "candidates_median": statistics.median(candidates),
        "candidates_max": max(candidates),
    }


def _rows(found: Detections) -> NDArray[np.float32]:
    """Score, class and box of every detection, in the order in which they came."""
    return np.column_stack((found.scores, found.class_ids, found.boxes)).astype(np.float32)


def _reason(host: Detections, graph: Detections) -> str:
    a, b = _rows(host), _rows(graph)
    if a.shape != b.shape:
        return f"{len(a)} kept by greedy NMS, {len(b)} by the graph"
    if np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)]):
        return ORDER
    return f"largest difference: {np.abs(a - b).max():.2e}"


def rounds_needed(boxes: NDArray[np.float32], scores: NDArray[np.float32], spec: ModelSpec) -> tuple[int, int]:
    """After how many rounds Cluster-NMS stands at greedy NMS for these candidates, and how many there are."""
    flat = scores.reshape(-1)
    (pairs,) = np.nonzero(flat > np.float32(spec.score_threshold))
    pairs = pairs[np.argsort(-flat[pairs], kind="stable")[: spec.max_candidates]]
    anchors, classes = np.divmod(pairs, scores.shape[1])
    most = 0
    for class_id in np.unique(classes):
        members = boxes[anchors[classes == class_id]]
        target = greedy_nms(members, spec.iou_threshold)
        hits = np.triu(pairwise_iou(members, members) > np.float32(spec.iou_threshold), 1)
        keep: NDArray[np.bool_] = np.ones(len(members), np.bool_)
        rounds = 0
        while not np.array_equal(keep, target):
            keep = np.logical_not((hits & keep[:, None]).any(axis=0))
            rounds += 1
        most = max(most, rounds)
    return most, len(pairs)
