"""What a run of the camera did."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gfl_edge.camera.pipeline import QueueDepth

StoppedBy = Literal["end of source", "interrupt", "user", "max_frames"]


def rate(frames: int, seconds: float) -> float:
    """Frames per second; 0 where no time passed."""
    return frames / seconds if seconds > 0 else 0.0


@dataclass(frozen=True)
class SourceSummary:
    """What a run did with one of its sources.

    Attributes:
        name: of the source, without passwords.
        frames: that were detected in.
        dropped: frames of a live source that were too old when their turn came.
        invalid: candidates that the model gave in its frames and that can be no detections, such as boxes of NaN.
        fps: frames / seconds of the run.
        latency_ms: from capture to delivery: ``p50``, ``p99`` and ``max`` in milliseconds.
        skipped: names of image files that could not be used.
        reconnects: how often a live source was opened again.
        error: why it failed; None if it did not.
        output: its annotated video, a stream without passwords; None if none was requested or no frame came.
        output_dropped: images that did not go into a stream, because it was too slow or away.
        output_error: why a stream was given up; None if it was not.
    """

    name: str
    frames: int
    dropped: int
    invalid: int
    fps: float
    latency_ms: dict[str, float]
    skipped: tuple[str, ...]
    reconnects: int
    error: str | None
    output: Path | str | None
    output_dropped: int
    output_error: str | None


@dataclass(frozen=True)
class CameraSummary:
    """What a run of the camera did.

    Attributes:
        frames: frames that were detected in, of all sources.
        skipped: names of image files that could not be used.
        reconnects: how often a live source was opened again.
        seconds: from the first read to the last write, without loading the model.
        fps: frames / seconds.
        stage_ms: mean milliseconds a frame spent in each of ``CAMERA_STAGES``, which run at the same time; of a frame
            that ran in a batch, those of the batch.
        stopped_by: why it ended; "user" closed the window, "interrupt" is Ctrl-C, SIGTERM or SIGHUP.
        output: the annotated video of a single source; None if none was requested or no frame came.
        json_lines: the file of detections, "-" for stdout; None if none was requested.
        dropped: frames of live sources that were too old when their turn came.
        invalid: candidates of the model that can be no detections, such as boxes of NaN; they were left out.
        latency_ms: from capture to delivery: ``p50``, ``p99`` and ``max`` in milliseconds.
        queues: how full the queue in front of each stage was.
        sources: each by itself, in the order in which they were given.
    """

    frames: int
    skipped: tuple[str, ...]
    reconnects: int
    seconds: float
    fps: float
    stage_ms: dict[str, float]
    stopped_by: StoppedBy
    output: Path | str | None
    json_lines: str | None
    dropped: int
    invalid: int
    latency_ms: dict[str, float]
    queues: dict[str, QueueDepth]
    sources: tuple[SourceSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = dataclasses.asdict(self)
        for part in (plain, *plain["sources"]):
            part["output"] = None if part["output"] is None else str(part["output"])
        return {name: _rounded(value) for name, value in plain.items()}


def _rounded(value: Any) -> Any:
    """With numbers to a thousandth, of which there are many in a summary."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
