"""What is timed: from which point to which, on how many frames at once, and where the time of a run goes."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from gfl_edge.backends.base import FrameBackend
from gfl_edge.backends.nms import nms_place
from gfl_edge.bench import paper
from gfl_edge.bench.device.open import ON_CPU
from gfl_edge.bench.frames import FrameSet
from gfl_edge.detector import Detector, Started, in_frame
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.images import read_image
from gfl_edge.ops import postprocess
from gfl_edge.ops.preprocess import Image, place_frame, single_input
from gfl_edge.report.schema import RUN_STAGES, ProtocolName, StageName

DRAW_SCORE = 0.35
OTHER = "what the latency has beside the stages: copies, launches, waits, boxes brought back to the frame"


@dataclass(frozen=True)
class TimedRun:
    """One run of a protocol.

    Attributes:
        latency_ms: by the protocol's boundaries.
        stages_ms: of the stages that can be distinguished.
    """

    latency_ms: float
    stages_ms: dict[StageName, float]


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
        """Milliseconds of the stages that can be distinguished.

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
        found: dict[StageName, str] = {"other": OTHER}
        for stage in RUN_STAGES:
            if stage in (*measured, "other"):
                continue
            if self._on_cpu and stage in ("upload", "download"):
                found[stage] = "not needed: the network reads and writes the memory of the CPU"
            elif stage == "read":
                found[stage] = "not measured: the images were in memory"
            elif stage == "draw" or (stage == "resize" and not self._resizes):
                found[stage] = "not part of this protocol"
            elif stage == "nms" and self._nms == "graph":
                found[stage] = "part of network: NMS is in the graph"
            else:
                found[stage] = "part of network: the backend does not separate it"
        return found


class Timed(Protocol):
    """Runs a detector the way that is to be timed."""

    name: ProtocolName
    batch: int
    in_flight: int  # runs that are under way at once
    stages: StageReader

    def step(self) -> TimedRun:
        """Run once, on the next frames."""
        ...

    def rest(self) -> None:
        """Finish what is under way, so that nothing runs beside the next that is timed."""
        ...

    def differences(self) -> list[str]:
        """In what this differs from what the protocol's name promises."""
        ...


class Stream:
    """See :data:`gfl_edge.report.schema.BOUNDARIES`."""

    name: ProtocolName = "stream"
    batch = in_flight = 1

    def __init__(self, detector: Detector, frames: FrameSet) -> None:
        self._detector, self.stages = detector, StageReader(detector)
        self._next: Iterator[tuple[Image, Path | None]] = itertools.cycle(
            zip(frames.images, frames.files or itertools.repeat(None), strict=False)
        )

    def step(self) -> TimedRun:
        """See :class:`Timed`."""
        frame, path = next(self._next)
        outside: dict[StageName, float] = {}
        if path is not None:
            start = time.perf_counter()
            frame = read_image(path)
            outside["read"] = _since_ms(start)
        start = time.perf_counter()
        found = self._detector.infer(self._detector.prepare([frame]))
        latency_ms = _since_ms(start)
        stages = self.stages.split(found.ms)
        start = time.perf_counter()
        draw_detections(frame, found.detections[0].above(DRAW_SCORE))
        return TimedRun(latency_ms, {**outside, **stages, "draw": _since_ms(start)})

    def rest(self) -> None:
        """Nothing is under way."""

    def differences(self) -> list[str]:
        """None."""
        return []


class Offline:
    """See :data:`gfl_edge.report.schema.BOUNDARIES`."""

    name: ProtocolName = "offline"

    def __init__(self, detector: Detector, frames: FrameSet, batch: int) -> None:
        self._detector, self.batch, self.stages = detector, batch, StageReader(detector)
        self.in_flight = detector.in_flight
        self._next = itertools.cycle(frames.images)
        self._under_way: deque[Started] = deque()

    def step(self) -> TimedRun:
        """Finish a batch, with as many under way as there can be; its latency is the time since the batch before."""
        start, prepared_ms = time.perf_counter(), 0.0
        while len(self._under_way) < self.in_flight:
            prepared = self._detector.prepare(itertools.islice(self._next, self.batch))
            self._under_way.append(self._detector.start(prepared))
            prepared_ms += prepared.ms
        ms = self._detector.finish(self._under_way.popleft()).ms
        latency_ms = _since_ms(start)
        if self.in_flight > 1:  # the network runs beside the other stages
            ms = {**ms, "preprocess": prepared_ms, "network": max(0.0, latency_ms - prepared_ms - ms["postprocess"])}
        return TimedRun(latency_ms, self.stages.split(ms))

    def rest(self) -> None:
        """See :class:`Timed`."""
        while self._under_way:
            self._detector.finish(self._under_way.popleft())

    def differences(self) -> list[str]:
        """See :class:`Timed`."""
        if self.in_flight == 1:
            return []
        return [
            f"{self.in_flight} batches are under way at once: of the network, its time is what the others left of it"
        ]


class GFocal:
    """See :data:`gfl_edge.report.schema.BOUNDARIES`."""

    name: ProtocolName = "gfocal"
    batch = in_flight = 1

    def __init__(self, detector: Detector, frames: FrameSet) -> None:
        self._detector, self.stages = detector, StageReader(detector)
        self._frames = frames.images
        self._next = itertools.cycle(frames.images)

    def step(self) -> TimedRun:
        """See :class:`Timed`."""
        frame, detector = next(self._next), self._detector
        spec = detector.spec
        images = single_input(frame, spec)  # before the clock starts
        input_hw = (images.shape[1], images.shape[2])
        placement = place_frame((frame.shape[0], frame.shape[1]), input_hw, spec.resize, spec.short_long)
        start = time.perf_counter()
        outputs = detector.backend.run(images)
        ran = time.perf_counter()
        found = postprocess.detections(outputs, 0, spec, input_hw)
        in_frame(found, placement, spec)
        end = time.perf_counter()
        stages = self.stages.split({"network": 1000 * (ran - start), "postprocess": 1000 * (end - ran)})
        return TimedRun(1000 * (end - start), stages)

    def rest(self) -> None:
        """Nothing is under way."""

    def differences(self) -> list[str]:
        """See :class:`Timed`."""
        spec = self._detector.spec
        found = [
            "the input is uint8, and normalized in the graph: a quarter of the bytes are uploaded",
            "warm-up lasts until times are stable rather than 5 runs; percentiles beside the mean, which FPS come from",
            f"{len(self._frames)} images in turn instead of 2000 of COCO val2017",
        ]
        padded = (paper.INPUT_HW[0], -(-paper.INPUT_HW[1] // 32) * 32)
        if spec.short_long is None and spec.input_hw != padded:
            found.append(
                f"the input is {spec.input_hw[0]} x {spec.input_hw[1]}, that of the paper {padded[0]} x {padded[1]}: "
                "these times do not compare with the paper's"
            )
        elif spec.short_long is None:
            found.append("every image is padded to 800 x 1344; GFocal's inputs follow the image's aspect ratio")
        if self._detector.backend.describe()["device"].find("2080 Ti") < 0:
            found.append(f"the paper's times are of PyTorch on a {paper.GPU}")
        return found


def make_protocol(name: ProtocolName, detector: Detector, frames: FrameSet, batch: int) -> Timed:
    """The protocol of that name; ``batch`` is that of "offline", the others run one frame at a time."""
    if name == "offline":
        return Offline(detector, frames, batch)
    return Stream(detector, frames) if name == "stream" else GFocal(detector, frames)


def _since_ms(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
