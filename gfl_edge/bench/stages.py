"""Where the time of a frame goes: the stages of a run, taken from the run itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gfl_edge.backends.base import FrameBackend
from gfl_edge.backends.nms import nms_place
from gfl_edge.bench.device.open import ON_CPU
from gfl_edge.detector import Detector
from gfl_edge.report.schema import OUTSIDE_STAGES, RUN_STAGES, StageName, StageRow

OTHER = "what the latency has beside the stages: copies, launches, waits, boxes brought back to the frame"


@runtime_checkable
class StagedBackend(Protocol):
    """A GPU backend that measures its own stages by events on its stream.

    Attributes:
        stage_ms: of the last run, of "resize", "upload", "network", "nms", "download" those that it has.
    """

    stage_ms: dict[str, float]

    def time_stages(self) -> None:
        """Measure them from now on."""
        ...


class StageReader:
    """Reads where the time of a detector's last call went.

    Args:
        detector: whose stages are read, after each call; a GPU backend measures them from now on.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        if isinstance(detector.backend, StagedBackend):
            detector.backend.time_stages()
        self._resizes = isinstance(detector.backend, FrameBackend)  # on its own
        self._on_cpu = detector.backend.name in ON_CPU
        self._nms = nms_place(detector.backend)

    def split(self, ms: Mapping[str, float]) -> dict[StageName, float]:
        """Milliseconds of the stages that can be told apart.

        Args:
            ms: of the last call, see :class:`gfl_edge.detector.Inference`; without "preprocess" where the input was
                resized before.
        """
        backend = self._detector.backend
        measured = cast("dict[StageName, float]", backend.stage_ms) if isinstance(backend, StagedBackend) else {}
        found = dict(measured) or {"network": ms["network"]}
        if not self._resizes and "preprocess" in ms:
            found["resize"] = ms["preprocess"]
        if self._nms == "host":
            found["nms"] = ms["postprocess"]
        return found

    def notes(self, measured: Sequence[StageName]) -> dict[StageName, str]:
        """Why a stage is not among those ``measured``, or what it holds, by its name."""
        missing = [stage for stage in RUN_STAGES if stage not in (*measured, "other")]
        return {"other": OTHER, **{stage: self._why_not(stage) for stage in missing}}

    def _why_not(self, stage: StageName) -> str:
        if self._on_cpu and stage in ("upload", "download"):
            return "not needed: the network reads and writes the memory of the CPU"
        if stage == "read":
            return "not measured: the images were in memory"
        if stage == "draw" or (stage == "resize" and not self._resizes):
            return "not part of this protocol"
        if stage == "nms" and self._nms == "graph":
            return "part of network: NMS is in the graph"
        return "part of network: the backend does not separate it"


def summarize_stages(
    samples: Sequence[Mapping[StageName, float]], latencies_ms: Sequence[float], why: Mapping[StageName, str]
) -> tuple[StageRow, ...]:
    """A row for each of :data:`gfl_edge.report.schema.RUN_STAGES`, in order.

    Args:
        samples: milliseconds by stage of every run; all have the same stages.
        latencies_ms: of the same runs.
        why: see :meth:`StageReader.notes`.
    """
    columns = {stage: np.array([sample[stage] for sample in samples]) for stage in samples[0]}
    inside = [values for stage, values in columns.items() if stage not in OUTSIDE_STAGES]
    columns["other"] = np.maximum(0.0, np.asarray(latencies_ms) - np.sum(inside, axis=0))
    return tuple(_stage_row(stage, columns.get(stage), why.get(stage, "")) for stage in RUN_STAGES)


def _stage_row(stage: StageName, values_ms: NDArray[np.float64] | None, note: str) -> StageRow:
    if values_ms is None:
        return StageRow(stage, None, None, None, note)
    p50_ms, p95_ms = np.percentile(values_ms, (50, 95)).tolist()
    return StageRow(stage, float(values_ms.mean()), p50_ms, p95_ms, note)
