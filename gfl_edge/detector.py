"""A detector: a frame in, detections out, whatever runs the network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gfl_edge import postprocess
from gfl_edge.backends.base import Backend, FrameBackend, Outputs
from gfl_edge.backends.select import BackendName, NmsChoice, open_backend
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.files import sha256
from gfl_edge.preprocess import Image, Placement, check_frame, input_size, resize_into
from gfl_edge.spec import ModelSpec


class Detector:
    """Runs a model file on frames.

        detector = Detector("nanodet-plus-m-416.onnx")
        detections = detector(cv2.imread("street.jpg"))

    Not thread-safe; make one per thread. Usable as a context manager.

    Args:
        model: ``.onnx`` or ``.engine`` file.
        backend: "auto", "openvino", "onnxruntime", "tensorrt" or "rtx".
        nms: where NMS runs, "auto", "graph" or "host"; see :func:`gfl_edge.backends.select.open_backend`, also for the
            errors.

    Attributes:
        spec: the model's description.
        backend: what runs it.
        last_ms: milliseconds of the last call, by stage: preprocess, network, postprocess. What the GPU does of the
            other stages is part of network.
    """

    def __init__(self, model: str | Path, backend: BackendName = "auto", nms: NmsChoice = "auto") -> None:
        self.path = Path(model)
        self._use(open_backend(model, backend, nms))

    def _use(self, backend: Backend) -> None:
        self.backend: Backend = backend
        self.spec: ModelSpec = backend.spec
        self.last_ms: dict[str, float] = {}
        self._inputs: Image = np.empty((0, *self.spec.input_hw, 3), np.uint8)

    def __call__(self, frame: Image) -> Detections:
        """Detect in one frame, uint8 ``[h, w, 3]`` BGR of any size.

        Raises:
            FrameError: not an 8-bit BGR picture.
            BackendError: the library failed.
        """
        return self.detect_batch([frame])[0]

    def detect_batch(self, frames: Sequence[Image]) -> list[Detections]:
        """Detect in several frames, which may differ in size, in one run of the network.

        Raises:
            InputError: no frame, more than an engine was built for, or one that is no 8-bit BGR picture.
            BackendError: the library failed.
        """
        if not frames:
            raise InputError("detect_batch got no frames: give at least one")
        start = time.perf_counter()
        input_hw = self._input_hw(frames)
        if isinstance(self.backend, FrameBackend):
            ready = time.perf_counter()
            outputs, placements = self.backend.run_frames(frames, input_hw)
        else:
            placements = self._fill(frames, input_hw)
            ready = time.perf_counter()
            outputs = self.backend.run(self._inputs)
        ran = time.perf_counter()
        found = [self._detections(outputs, i, placement, input_hw) for i, placement in enumerate(placements)]
        end = time.perf_counter()
        seconds = {"preprocess": ready - start, "network": ran - ready, "postprocess": end - ran}
        self.last_ms = {stage: 1000 * value for stage, value in seconds.items()}
        return found

    def _input_hw(self, frames: Sequence[Image]) -> tuple[int, int]:
        """The input's size for these frames, that of the largest where it is dynamic."""
        sizes = [input_size(check_frame(frame).shape[:2], self.spec) for frame in frames]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        return height, width

    def _fill(self, frames: Sequence[Image], input_hw: tuple[int, int]) -> list[Placement]:
        """Resize the frames into the input."""
        if self._inputs.shape != (len(frames), *input_hw, 3):
            self._inputs = np.empty((len(frames), *input_hw, 3), np.uint8)
        return [
            resize_into(frame, slot, self.spec.resize, self.spec.short_long)
            for frame, slot in zip(frames, self._inputs, strict=True)
        ]

    def _detections(self, outputs: Outputs, index: int, placement: Placement, input_hw: tuple[int, int]) -> Detections:
        boxes, scores, classes = postprocess.detections(outputs, index, self.spec, input_hw)
        # Backends reuse their output buffers, so everything that leaves here is a copy
        return Detections(
            placement.to_frame(boxes),
            np.array(scores),
            np.array(classes),
            self.spec.class_names,
        )

    def describe(self) -> dict[str, dict[str, Any]]:
        """Plain values for reports: the ``model``, with its file's SHA-256, and the ``backend`` that runs it."""
        spec, ran = self.spec, self.backend.describe()
        return {
            "model": {
                "name": spec.name,
                "file": self.path.name,
                "sha256": sha256(self.path),
                "precision": spec.precision,
                "quantized_layers": spec.quantized_layers,
                "nms": ran.pop("nms", "graph" if spec.has_nms else "host"),
                "score_threshold": spec.score_threshold,
                "iou_threshold": spec.iou_threshold,
            },
            "backend": {"name": self.backend.name, **ran},
        }

    def close(self) -> None:
        """Free the backend; the detector cannot run any more."""
        self.backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
