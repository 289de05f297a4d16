"""From a frame to boxes as the samples of other projects do it in Python, so that whole pipelines can be compared.

Each follows the sample named in its docstring, step by step: what these cost is what their users pay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.networks import Floats, Levels, Network, Queue, ncnn_files
from gfl_edge import optional
from gfl_edge.detections import Detections
from gfl_edge.ops.boxes import sound
from gfl_edge.ops.preprocess import Image
from gfl_edge.spec import ModelSpec

MEAN_BGR = np.array([103.53, 116.28, 123.675], np.float32).reshape(1, 1, 3)
STD_BGR = np.array([57.375, 57.12, 58.395], np.float32).reshape(1, 1, 3)
CANDIDATES_PER_LEVEL = 1000

Sample = Callable[[Image, float], Detections]  # a frame and the minimum score
Stream = Callable[[Iterable[Image], float], Iterator[Detections]]  # the same of many frames, in order


@dataclass(frozen=True)
class OpenCvZoo:
    """opencv_zoo's sample (opencv/opencv_zoo, models/object_detection_nanodet/nanodet.py and demo.py).

    The best class of each anchor, ``cv2.dnn.NMSBoxes`` over all classes together. The letterbox of NanoDet-m is the
    sample's; NanoDet-Plus' images are stretched, as it was trained, where the sample has a letterbox as well.
    """

    network: Network
    spec: ModelSpec

    def __call__(self, frame: Image, score: float) -> Detections:
        """See ``Sample``."""
        cv2 = optional.load("cv2")
        resized, scale, offset = resize(frame, self.spec)
        blob = cv2.dnn.blobFromImage((resized.astype(np.float32) - MEAN_BGR) / STD_BGR)
        boxes, scores = self._decode(self.network(blob))
        sizes = boxes.copy()
        sizes[:, 2:4] = sizes[:, 2:4] - sizes[:, 0:2]
        classes, confidences = np.argmax(scores, axis=1), np.max(scores, axis=1)
        kept = cv2.dnn.NMSBoxes(sizes.tolist(), confidences.tolist(), score, self.spec.iou_threshold)
        kept = np.asarray(kept, np.int64).reshape(-1)
        return as_detections(boxes[kept], confidences[kept], classes[kept], self.spec, scale, offset)

    def _decode(self, levels: Levels) -> tuple[Floats, Floats]:
        all_boxes, all_scores = [], []
        for stride, (scores, logits) in zip(self.spec.strides, levels, strict=True):
            centers = grid(self.spec, stride)
            exponentials = np.exp(logits.reshape(-1, self.spec.reg_max + 1))
            distribution = exponentials / np.sum(exponentials, axis=1, keepdims=True)
            distances = np.dot(distribution, np.arange(self.spec.reg_max + 1)).reshape(-1, 4) * stride
            if len(scores) > CANDIDATES_PER_LEVEL:
                best = scores.max(axis=1).argsort()[::-1][:CANDIDATES_PER_LEVEL]
                centers, distances, scores = centers[best], distances[best], scores[best]
            all_boxes.append(corners(centers, distances, self.spec.input_hw))
            all_scores.append(scores)
        return np.concatenate(all_boxes), np.concatenate(all_scores)


@dataclass(frozen=True)
class OpenModelZoo:
    """Open Model Zoo's sample (PyPI openmodelzoo-modelapi 2022.3, openvino/model_zoo/model_api/models/nanodet.py).

    Every anchor is decoded, then each class has an NMS of its own, written in NumPy.
    """

    network: Network
    queue: Queue
    spec: ModelSpec

    def __call__(self, frame: Image, score: float) -> Detections:
        """See ``Sample``."""
        planes, *placed = self._prepare(frame)
        return self._detections(self.network(planes), score, *placed)

    def stream(self, frames: Iterable[Image], score: float) -> Iterator[Detections]:
        """See ``Stream``; its AsyncPipeline prepares and decodes while others are under way (python/pipelines)."""
        places = deque[Any]()

        def inputs() -> Iterator[Floats]:
            for frame in frames:
                planes, *placed = self._prepare(frame)
                places.append(placed)
                yield planes

        for levels in self.queue(inputs()):
            yield self._detections(levels, score, *places.popleft())

    def _prepare(self, frame: Image) -> tuple[Floats, Any, Any]:
        resized, scale, offset = resize(frame, self.spec)
        planes = ((resized.astype(np.float32) - MEAN_BGR) / STD_BGR).transpose(2, 0, 1)[None]
        return np.ascontiguousarray(planes), scale, offset

    def _detections(self, levels: Levels, score: float, scale: Any, offset: Any) -> Detections:
        boxes, scores = self._decode(levels)
        found = []
        for label, column in enumerate(np.transpose(scores)):
            mask = column > score
            chosen, values = boxes[mask, :], column[mask]
            if values.size == 0:
                continue
            kept = numpy_nms(chosen, values, self.spec.iou_threshold)
            found += [(*box, value, label) for box, value in zip(chosen[kept], values[kept], strict=True)]
        rows = np.array(found, np.float32).reshape(-1, 6)
        return as_detections(rows[:, :4], rows[:, 4], rows[:, 5], self.spec, scale, offset)

    def _decode(self, levels: Levels) -> tuple[Floats, Floats]:
        bins = np.linspace(0, self.spec.reg_max, self.spec.reg_max + 1)
        centers = np.concatenate([grid(self.spec, stride) for stride in self.spec.strides])
        strides = np.concatenate(
            [np.full(len(s), stride) for stride, (s, _) in zip(self.spec.strides, levels, strict=True)]
        )
        logits = np.concatenate([reg for _, reg in levels]).reshape(-1, 4, self.spec.reg_max + 1)
        weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
        weights = weights / np.sum(weights, axis=-1, keepdims=True)
        distances = np.dot(weights, bins) * strides[:, None]
        scores = np.concatenate([cls for cls, _ in levels])
        return corners(centers, distances, self.spec.input_hw), scores


class NcnnModelZoo:
    """ncnn's own sample for NanoDet-m, run as it is: class ``NanoDet`` of the PyPI package ``ncnn`` (model_zoo).

    It miscounts the columns of the maps unless its input is wider than high, and fails; other frames are therefore
    given a black margin on the right.

    Args:
        path: the plain ONNX file.
        spec: the model's description.
        threads: that ncnn takes.
    """

    def __init__(self, path: Path, spec: ModelSpec, threads: int) -> None:
        self.spec = spec
        zoo: Any = optional.load("ncnn.model_zoo.nanodet")
        param, weights = ncnn_files(path)
        renamed = path.with_suffix(".zoo.param")
        renamed.write_text(zoo_param(param.read_text()))
        files = {"nanodet_m.param": renamed, "nanodet_m.bin": weights}
        zoo.get_model_file = lambda name: str(files[name])  # it would download its own
        self._detect = zoo.NanoDet(spec.input_hw[0], 0.0, spec.iou_threshold, threads)

    def __call__(self, frame: Image, score: float) -> Detections:
        """See ``Sample``."""
        self._detect.prob_threshold = score
        rows = [(o.rect.x, o.rect.y, o.rect.w, o.rect.h, o.prob, o.label) for o in self._detect(self._wider(frame))]
        found = np.array(rows, np.float32).reshape(-1, 6)
        boxes = np.concatenate((found[:, :2], found[:, :2] + found[:, 2:4]), axis=1)
        return as_detections(boxes, found[:, 4], found[:, 5], self.spec, (1.0, 1.0), (0.0, 0.0))

    def _wider(self, frame: Image) -> Image:
        height, width = frame.shape[:2]
        side = self.spec.input_hw[0]
        missing = -(-height * side // (side - 32)) - width
        if missing <= 0:
            return frame
        cv2 = optional.load("cv2")
        padded: Image = cv2.copyMakeBorder(frame, 0, 0, 0, missing, cv2.BORDER_CONSTANT, value=0)
        return padded


def zoo_param(param: str) -> str:
    """An ncnn network under the blob names that ncnn's sample asks for, and open to rectangles, which it feeds."""
    names = {"in0": "input.1", "out0": "792", "out1": "814", "out2": "836", "out3": "795", "out4": "817", "out5": "839"}
    lines = []
    for line in param.splitlines():
        words = [names.get(word, word) for word in line.split(" ")]
        if words[0] == "Reshape" and words[-1] in ("1=80", "1=32"):
            words[-2] = "0=-1"
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def resize(frame: Image, spec: ModelSpec) -> tuple[Image, tuple[float, float], tuple[float, float]]:
    """The frame at the input's size, and the scale and offset (x, y) that brought it there."""
    cv2 = optional.load("cv2")
    (height, width), (target_height, target_width) = frame.shape[:2], spec.input_hw
    if spec.resize == "stretch":
        resized = cv2.resize(frame, (target_width, target_height))
        return resized, (target_width / width, target_height / height), (0.0, 0.0)
    ratio = min(target_width / width, target_height / height)
    new_width, new_height = int(width * ratio), int(height * ratio)
    left, top = (target_width - new_width) // 2, (target_height - new_height) // 2
    resized = cv2.copyMakeBorder(
        cv2.resize(frame, (new_width, new_height)),
        top,
        target_height - new_height - top,
        left,
        target_width - new_width - left,
        cv2.BORDER_CONSTANT,
        value=0,
    )
    return resized, (ratio, ratio), (left, top)


def grid(spec: ModelSpec, stride: int) -> NDArray[Any]:
    """Centers ``[A_i, 2]`` xy of a level's anchors in pixels of the input."""
    rows, columns = (-(-side // stride) for side in spec.input_hw)
    x, y = np.meshgrid(np.arange(columns) * stride, np.arange(rows) * stride)
    return np.stack((x.flatten(), y.flatten()), axis=-1) + spec.point_offset * stride


def corners(centers: NDArray[Any], distances: NDArray[Any], input_hw: tuple[int, int]) -> Floats:
    """Boxes xyxy from centers and distances to the four edges, clipped to the input."""
    height, width = input_hw
    x1, y1 = centers[:, 0] - distances[:, 0], centers[:, 1] - distances[:, 1]
    x2, y2 = centers[:, 0] + distances[:, 2], centers[:, 1] + distances[:, 3]
    return np.column_stack(
        [np.clip(x1, 0, width), np.clip(y1, 0, height), np.clip(x2, 0, width), np.clip(y2, 0, height)]
    )


def numpy_nms(boxes: NDArray[Any], scores: NDArray[Any], iou_threshold: float) -> list[int]:
    """Greedy NMS with a loop over the kept boxes, as such samples write it."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = scores.argsort()[::-1]
    kept = []
    while order.size > 0:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        wide = np.maximum(0.0, np.minimum(x2[first], x2[rest]) - np.maximum(x1[first], x1[rest]) + 1)
        high = np.maximum(0.0, np.minimum(y2[first], y2[rest]) - np.maximum(y1[first], y1[rest]) + 1)
        shared = wide * high
        order = rest[shared / (areas[first] + areas[rest] - shared) <= iou_threshold]
    return kept


def as_detections(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    classes: NDArray[Any],
    spec: ModelSpec,
    scale_xy: tuple[float, float],
    offset_xy: tuple[float, float],
) -> Detections:
    """Boxes in pixels of the input as detections in pixels of the frame, without those that are inside out."""
    boxes = ((np.asarray(boxes, np.float32) - np.array(offset_xy * 2)) / np.array(scale_xy * 2)).astype(np.float32)
    scores, classes = np.asarray(scores, np.float32), np.asarray(classes, np.int32)
    kept = sound(boxes, scores)
    return Detections(boxes[kept], scores[kept], classes[kept], spec.class_names)
