"""A detector: a frame in, detections out, whatever runs the network."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gfl_edge.backends.base import (
    Backend,
    Begun,
    FrameBackend,
    OverlappingBackend,
    OverlappingFrameBackend,
    Performance,
    checked_backend,
)
from gfl_edge.backends.checks import check_arrays
from gfl_edge.backends.nms import NmsChoice, nms_place
from gfl_edge.backends.select import BackendName, open_backend
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.files import sha256
from gfl_edge.ops import postprocess
from gfl_edge.ops.preprocess import AnyFrame, Image, Placement, checked_size, input_size, resize_into
from gfl_edge.spec import ModelSpec
from gfl_edge.zoo.bundled import bundled_model

logger = logging.getLogger(__name__)

# Input buffers kept for the next frames: one in the network, one ready, one being filled; more where runs overlap
SPARE_INPUTS = 8


@dataclass(eq=False)
class Prepared:
    """Frames that are ready for the network, to be inferred once.

    Attributes:
        frames: uint8 ``[h, w, 3]`` BGR, or NV12.
        input_hw: the input's size for them.
        inputs: them resized, uint8 ``[N, H, W, 3]``; None where the backend resizes, and after they were inferred.
        placements: where each lies in ``inputs``.
        ms: milliseconds that it took.
    """

    frames: Sequence[AnyFrame]
    input_hw: tuple[int, int]
    inputs: Image | None
    placements: list[Placement]
    ms: float


@dataclass(eq=False)
class Started:
    """A run of the network that was started, to be finished once.

    Attributes:
        prepared: what it runs on.
        inputs: its buffer, until it is finished.
        begun: the run; None where the backend has one at a time, so that it is over.
        placements: where each frame lies in the input.
        start_s: seconds of ``time.perf_counter`` when it began.
        inference: what came of it; None before it is over.
    """

    prepared: Prepared
    start_s: float
    inputs: Image | None = None
    begun: Begun | None = None
    placements: Sequence[Placement] = ()
    inference: Inference | None = None


class Inference(NamedTuple):
    """What the network found in prepared frames.

    Attributes:
        detections: of each frame.
        ms: milliseconds by stage: preprocess, network, postprocess. What the GPU does of the other stages is part of
            network, and so is, where runs overlap, the time that this one waited for others.
        invalid: of each frame, how many candidates the model gave that can be no detections, and were left out: see
            :func:`gfl_edge.ops.boxes.sound`. Of a sound model always 0.
    """

    detections: list[Detections]
    ms: dict[str, float]
    invalid: list[int]


class Detector:
    """Runs a model on frames.

        detector = Detector("nanodet-plus-m-416.onnx")
        detections = detector(cv2.imread("street.jpg"))

        detector = Detector(MyBackend())  # with what gfl_edge.backends.base.Backend lists; see docs/device.md
        found = detector.infer(detector.prepare(frames))  # detections, milliseconds and what was invalid

    What a model gives that can be no detection, such as a box of NaN, is left out, counted in :class:`Inference`, and
    said once by the log.

    One run of the network at a time: calls from several threads wait for each other. :meth:`prepare` waits for nothing,
    so that frames can be made ready while the network runs. With ``performance="throughput"`` each core of a CPU runs a
    frame of its own, and a GPU takes frames while it works on others, for many frames of which none is urgent:
    :meth:`infer_all`. Usable as a context manager.

    Args:
        model: ``.onnx`` or ``.engine`` file; None: the bundled detector, see
            :func:`gfl_edge.zoo.bundled.bundled_model`; or an open backend, any object with what
            :class:`gfl_edge.backends.base.Backend` lists, which the detector closes.
        backend: of a file: "auto", "openvino", "onnxruntime", "tensorrt" or "rtx".
        nms: of a file: where NMS is to run, "auto", "graph" or "host"; see :mod:`gfl_edge.backends.nms`.
        performance: of a file: what to be fast at, "latency" or "throughput".

    Attributes:
        path: the model's file; None where a backend was given.
        spec: the model's description.
        backend: what runs it.

    Raises:
        InputError: a backend that lacks something, or one together with ``backend`` or ``nms``.
        GflEdgeError: of a file, see :func:`gfl_edge.backends.select.open_backend`.
    """

    def __init__(
        self,
        model: str | Path | Backend | None = None,
        backend: BackendName = "auto",
        nms: NmsChoice = "auto",
        performance: Performance = "latency",
    ) -> None:
        self.path: Path | None = None
        self.backend: Backend
        if model is None or isinstance(model, (str, Path)):
            self.path = bundled_model() if model is None else Path(model)
            self.backend = open_backend(self.path, backend, nms, performance)
        else:
            self.backend = checked_backend(model)
            if (backend, nms, performance) != ("auto", "auto", "latency"):
                raise InputError(
                    f"backend={backend!r}, nms={nms!r}, performance={performance!r} with an open backend "
                    f"({self.backend.name}): they choose how a file is opened. Leave them out"
                )
        self.spec: ModelSpec = self.backend.spec
        self._running = threading.Lock()
        self._spare: deque[Image] = deque(maxlen=SPARE_INPUTS)
        self._told: set[bool] = set()  # of which kinds of invalid output the log spoke

    def __call__(self, frame: AnyFrame) -> Detections:
        """Detect in one frame, uint8 ``[h, w, 3]`` BGR or NV12, of any size.

        Raises:
            FrameError: not an 8-bit BGR image.
            BackendError: the library failed.
        """
        return self.detect_batch([frame])[0]

    def detect_batch(self, frames: Iterable[AnyFrame]) -> list[Detections]:
        """Detect in several frames, which may differ in size, in one run of the network.

        An array ``[N, h, w, 3]`` is N of them.

        Raises:
            InputError: no frame, more than an engine was built for, or one that is not an 8-bit BGR image.
            BackendError: the library failed.
        """
        return self.infer(self.prepare(frames)).detections

    def prepare(self, frames: Iterable[AnyFrame]) -> Prepared:
        """The first half of :meth:`detect_batch`: check frames and, unless the backend does, resize them.

        May run in another thread than :meth:`infer`, at the same time; what it returns is not overwritten before it was
        inferred. The frames must not change until then.

        Raises:
            InputError: no frame, or one that is not an 8-bit BGR image.
        """
        start = time.perf_counter()
        frames = _checked_batch(frames)
        sizes = [input_size(checked_size(frame), self.spec) for frame in frames]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))  # equal unless the input's size is dynamic
        inputs, placements = None, []
        if not isinstance(self.backend, FrameBackend):
            inputs = self._empty_input((len(frames), height, width, 3))
            rule, short_long = self.spec.resize, self.spec.short_long
            placements = [
                resize_into(frame, slot, rule, short_long) for frame, slot in zip(frames, inputs, strict=True)
            ]
        return Prepared(frames, (height, width), inputs, placements, 1000 * (time.perf_counter() - start))

    def infer(self, prepared: Prepared) -> Inference:
        """The second half of :meth:`detect_batch`: run the network on ``prepared``, once.

        Raises:
            InputError: more frames than an engine was built for, or they were inferred already.
            BackendError: the library failed.
        """
        with self._running:
            start = time.perf_counter()
            if isinstance(self.backend, FrameBackend):
                outputs, placements = self.backend.run_frames(prepared.frames, prepared.input_hw)
            else:
                inputs = _taken(prepared)
                outputs, placements = self.backend.run(inputs), prepared.placements
                self._spare.append(inputs)
            ms = {"preprocess": prepared.ms, "network": 1000 * (time.perf_counter() - start)}
            return self._detected(outputs, placements, prepared.input_hw, ms)

    @property
    def in_flight(self) -> int:
        """How many runs may be started before the first of them is finished: 1, or more for throughput."""
        if isinstance(self.backend, (OverlappingBackend, OverlappingFrameBackend)):
            return self.backend.in_flight
        return 1

    def start(self, prepared: Prepared) -> Started:
        """Begin to infer, to be followed by :meth:`finish` in the same order.

        With :attr:`in_flight` runs started this waits until one of them is finished by another thread.

        Raises:
            As :meth:`infer`.
        """
        start_s = time.perf_counter()
        if self.in_flight > 1 and isinstance(self.backend, OverlappingFrameBackend):
            begun, placements = self.backend.begin_frames(prepared.frames, prepared.input_hw)
            return Started(prepared, start_s, begun=begun, placements=placements)
        if self.in_flight > 1 and isinstance(self.backend, OverlappingBackend):
            inputs = _taken(prepared)
            return Started(prepared, start_s, inputs, self.backend.begin(inputs), prepared.placements)
        return Started(prepared, start_s, inference=self.infer(prepared))

    def finish(self, started: Started) -> Inference:
        """Wait for a run that :meth:`start` began, and return what it found; raises as :meth:`infer`."""
        prepared, begun = started.prepared, started.begun
        if begun is None:
            assert started.inference is not None
            return started.inference
        try:
            outputs = begun.outputs()
            ms = {"preprocess": prepared.ms, "network": 1000 * (time.perf_counter() - started.start_s)}
            return self._detected(outputs, started.placements, prepared.input_hw, ms)
        finally:
            begun.release()
            if started.inputs is not None:
                self._spare.append(started.inputs)

    def infer_all(self, prepared: Iterable[Prepared]) -> Iterator[Inference]:
        """Infer several, one after the other: what was found, in order, with up to :attr:`in_flight` of them under way.

        They are taken from ``prepared`` as they are needed, and no more of them than are under way. An error ends it.

        Raises:
            As :meth:`infer`.
        """
        under_way: deque[Started] = deque()
        try:
            for one in prepared:
                under_way.append(self.start(one))
                if len(under_way) >= self.in_flight:
                    yield self.finish(under_way.popleft())
            while under_way:
                yield self.finish(under_way.popleft())
        finally:
            for started in under_way:
                if started.begun is not None:
                    started.begun.release()

    def _detected(
        self,
        outputs: postprocess.Outputs,
        placements: Sequence[Placement],
        input_hw: tuple[int, int],
        ms: dict[str, float],
    ) -> Inference:
        """What the outputs of a run mean; ``ms`` are those of the stages before."""
        start = time.perf_counter()
        check_arrays(outputs, len(placements), self.backend.name, self.spec, input_hw)
        detections, invalid = [], []
        for index, placement in enumerate(placements):
            found = postprocess.detections(outputs, index, self.spec, input_hw)
            detections.append(in_frame(found, placement, self.spec))
            invalid.append(found.invalid)
            if found.invalid:
                self._tell_of(found)
        return Inference(detections, {**ms, "postprocess": 1000 * (time.perf_counter() - start)}, invalid)

    def _tell_of(self, found: postprocess.Found) -> None:
        """Say once that some candidates of a frame are invalid, and once that all are: then the model is of no use."""
        all_invalid = not len(found.scores)
        if all_invalid in self._told:
            return
        self._told.add(all_invalid)
        what = (
            "NaN or infinite, a score outside 0..1, a box that is inside out, or a class that the model does not have"
        )
        if all_invalid:
            logger.warning(
                "%s finds nothing in a frame, since its output there is invalid (%d candidates: %s). If this goes on, "
                "the model cannot be used: are its weights whole, or does FP16 overflow? Look for NaN in the "
                "checkpoint, or export without --fp16",
                *(self.spec.name, found.invalid, what),
            )
        else:
            logger.warning(
                "%s gives invalid candidates, which are left out: %d in a frame (%s). Later ones are only counted",
                *(self.spec.name, found.invalid, what),
            )

    def _empty_input(self, shape: tuple[int, ...]) -> Image:
        """A buffer that is not in use, of an earlier run where one fits."""
        while self._spare:
            try:
                spare = self._spare.pop()
            except IndexError:  # another thread took it
                break
            if spare.shape == shape:
                return spare
        return np.empty(shape, np.uint8)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Plain values for reports: the ``model``, with its file's SHA-256, and the ``backend`` that runs it.

        Where a backend was given, the model's ``file`` and ``sha256`` are None.
        """
        spec = self.spec
        return {
            "model": {
                "name": spec.name,
                "file": self.path.name if self.path else None,
                "sha256": sha256(self.path) if self.path else None,
                "precision": spec.precision,
                "quantized_layers": spec.quantized_layers,
                "nms": nms_place(self.backend),
                "score_threshold": spec.score_threshold,
                "iou_threshold": spec.iou_threshold,
            },
            "backend": {"name": self.backend.name, **self.backend.describe()},
        }

    def close(self) -> None:
        """Free the backend, after the run of another thread if there is one; the detector cannot run any more."""
        with self._running:
            self.backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_frame(found: postprocess.Found, placement: Placement, spec: ModelSpec) -> Detections:
    """What was found in an input, in the frame that lies there; a copy, since backends reuse their output buffers."""
    copies = (placement.to_frame(found.boxes), np.array(found.scores), np.array(found.classes))
    sigma = None if found.sigmas is None else placement.sigmas_to_frame(found.sigmas)
    return Detections(*copies, spec.class_names, edge_sigma=sigma)


def _taken(prepared: Prepared) -> Image:
    """The inputs of ``prepared``, which has none from now on."""
    inputs, prepared.inputs = prepared.inputs, None
    if inputs is None:
        raise InputError("these frames were inferred already, and their buffer holds others: prepare them again")
    return inputs


def _checked_batch(frames: Iterable[AnyFrame]) -> list[AnyFrame]:
    """The frames of a batch; raises InputError where there is none, or no batch."""
    several = isinstance(frames, Iterable) and not isinstance(frames, (str, bytes, Mapping))
    if not several or (isinstance(frames, np.ndarray) and frames.ndim != 4):
        found = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(
            f"the batch is {found}: expected a list of frames, each uint8 [h, w, 3] BGR or NV12. For one frame call "
            "the detector itself: detector(frame)"
        )
    batch = list(frames)
    if not batch:
        raise InputError("got no frames to detect in: give at least one")
    return batch
