"""Where the time of a frame goes: the stages of a run, taken from the run itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gfl_edge.backends.base import FrameBackend
from gfl_edge.bench.device import ON_CPU
from gfl_edge.detector import Detector

STAGES = ("read", "resize", "upload", "network", "nms", "download", "other", "draw")
OUTSIDE = ("read", "draw")  # not part of the latency
_NOT_TIMED = "not part of this protocol"
OTHER = "what the latency has beside the stages: copies, launches, waits, boxes brought back to the frame"


@runtime_checkable
class StagedBackend(Protocol):
    """A GPU backend that measures its own stages by events on its stream.

    Attributes:
        stage_ms: of the last run, of "resize", "upload", "network", "nms", "download" those that it has.
    """

    stage_ms: Mapping[str, float]


def split(detector: Detector) -> dict[str, float]:
    """Milliseconds of the stages of the detector's last call, those that can be told apart."""
    last, backend = detector.last_ms, detector.backend
    if isinstance(backend, StagedBackend) and backend.stage_ms:
        found = dict(backend.stage_ms)
    else:
        found = {"network": last["network"]}
    if not isinstance(backend, FrameBackend):
        found["resize"] = last["preprocess"]
    if _nms_place(detector) == "host":
        found["nms"] = last["postprocess"]
    return found


def notes(detector: Detector, measured: Sequence[str]) -> dict[str, str]:
    """Why a stage is not among those measured, or what it holds, by its name."""
    found = {"other": OTHER}
    on_cpu = detector.backend.name in ON_CPU
    place = _nms_place(detector)
    for stage in STAGES:
        if stage in measured or stage == "other":
            continue
        if on_cpu and stage in ("upload", "download"):
            found[stage] = "not needed: the network reads and writes the memory of the CPU"
        elif stage in OUTSIDE:
            found[stage] = "not measured: the pictures were in memory" if stage == "read" else _NOT_TIMED
        elif stage == "nms" and place in ("graph", "plugin"):
            found[stage] = "part of network: NMS is in the graph"
        elif stage == "resize" and not isinstance(detector.backend, FrameBackend):
            found[stage] = _NOT_TIMED
        else:
            found[stage] = "part of network: the backend does not separate it"
    return found


def _nms_place(detector: Detector) -> str:
    return str(detector.backend.describe().get("nms", "graph" if detector.spec.has_nms else "host"))


def summarize_stages(
    samples: Sequence[Mapping[str, float]], latencies_ms: Sequence[float], why: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Plain values for the report, a row per stage in order; see docs/report.md.

    Args:
        samples: milliseconds by stage of every run; all have the same stages.
        latencies_ms: of the same runs.
        why: see :func:`notes`.
    """
    columns = {stage: np.array([sample[stage] for sample in samples]) for stage in samples[0]}
    inside = [values for stage, values in columns.items() if stage not in OUTSIDE]
    columns["other"] = np.maximum(0.0, np.asarray(latencies_ms) - np.sum(inside, axis=0))
    return [_row(stage, columns.get(stage), why.get(stage, "")) for stage in STAGES]


def _row(stage: str, values_ms: Any, note: str) -> dict[str, Any]:
    if values_ms is None:
        return {"name": stage, "mean_ms": None, "p50_ms": None, "p95_ms": None, "note": note}
    p50_ms, p95_ms = np.percentile(values_ms, (50, 95)).tolist()
    return {"name": stage, "mean_ms": float(values_ms.mean()), "p50_ms": p50_ms, "p95_ms": p95_ms, "note": note}
