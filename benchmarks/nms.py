"""Is the graph's NMS greedy NMS, how many rounds does it need, and what does it cost on a CPU?"""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import CHECKPOINTS, IMAGES, export
from export.default_model import data_folder
from export.nms import ROUNDS
from gfl_edge import optional
from gfl_edge.boxes import greedy_nms, pairwise_iou
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.progress import track
from gfl_edge.spec import ModelSpec

STAGES = ("preprocess", "network", "postprocess")
ORDER = "the same set, equal scores in another order: the library's TopK does not put the lower index first"


def measure(folder: Path) -> dict[str, Any]:
    """Parity, rounds and time of every model; ``folder`` takes the exported files."""
    return {"rounds_in_the_graph": ROUNDS, "models": {name: _measure_model(name, folder) for name in CHECKPOINTS}}


def _measure_model(name: str, folder: Path) -> dict[str, Any]:
    path = export(name, folder)
    host, graph = Detector(path, "openvino", "host"), Detector(path, "openvino", "graph")
    host_ort, graph_ort = Detector(path, "onnxruntime", "host"), Detector(path, "onnxruntime", "graph")
    rounds: Counter[int] = Counter()
    candidates, differing = [], []
    milliseconds: dict[str, list[float]] = {}
    files = sorted((data_folder() / IMAGES).iterdir())
    for image in track(files, f"NMS of {name}", len(files)):
        frame = optional.load("cv2").imread(str(image))
        found = {}
        detectors = {"openvino host": host, "openvino graph": graph, "ort host": host_ort, "ort graph": graph_ort}
        for label, detector in detectors.items():
            found[label] = detector(frame)
            milliseconds.setdefault(label, []).append(sum(detector.last_ms[stage] for stage in STAGES))
        for library in ("openvino", "ort"):
            a, b = found[f"{library} host"], found[f"{library} graph"]
            if not np.array_equal(_rows(a), _rows(b)):
                reason = _reason(a, b)
                differing.append({"image": image.name, "library": library, "reason": reason})
        outputs = host.backend.run(host._inputs)
        needed, count = rounds_needed(outputs["boxes"][0], outputs["scores"][0], host.spec)
        rounds[needed] += 1
        candidates.append(count)
    medians = {label: round(statistics.median(values), 3) for label, values in milliseconds.items()}
    return {
        "images": len(files),
        "images_whose_kept_set_differs_from_greedy": len({d["image"] for d in differing if d["reason"] != ORDER}),
        "differing": differing,
        "rounds_needed": dict(sorted(rounds.items())),
        "candidates_median": statistics.median(candidates),
        "candidates_max": max(candidates),
        "median_ms_per_frame": medians,
        "host_over_graph": {
            library: round(medians[f"{library} host"] / medians[f"{library} graph"], 3)
            for library in ("openvino", "ort")
        },
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
