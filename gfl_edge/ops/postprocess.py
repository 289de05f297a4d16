"""From a model's outputs to detections on the host, whatever the model left undone."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.ops import decode
from gfl_edge.ops.boxes import TINY, Floats, Indices, areas, sound, sound_sigmas
from gfl_edge.spec import DET_SIGMAS, INVALID_CLASS, SIGMAS, ModelSpec

_points = functools.lru_cache(maxsize=16)(decode.points)  # a model of dynamic size sees a few sizes

CHUNK = 200  # candidates; 100 to 400 take within 10 % as long, all of them at once 1.6 times as long

Outputs = dict[str, NDArray[np.generic]]  # of a model, by output name, see gfl_edge.spec


class Found(NamedTuple):
    """What was found in one image.

    Attributes:
        boxes: float32 ``[n, 4]`` xyxy in pixels of the input.
        scores: float32 ``[n]``, falling.
        classes: int32 ``[n]``.
        invalid: candidates that were left out because they were not :func:`gfl_edge.ops.boxes.sound`, or of no class of
            the model; of outputs of a graph or of kernels with NMS, those that they had room to tell.
        sigmas: float32 ``[n, 4]``, standard deviations of the edges (l, t, r, b) in pixels of the input, times the
            model's ``sigma_scale``; None where it gives none.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int32]
    invalid: int = 0
    sigmas: Floats | None = None


def detections(outputs: Outputs, index: int, spec: ModelSpec, input_hw: tuple[int, int]) -> Found:
    """The detections of one image of a batch, all of them sound; the arrays may be views on ``outputs``.

    Args:
        outputs: of a backend, see :meth:`gfl_edge.backends.base.Backend.run`.
        index: of the image.
        spec: the model's description.
        input_hw: the size that the model was run at, in pixels.
    """
    if "num_dets" in outputs:
        found = _detections_from_nms(outputs, index, spec)
    elif spec.nms == "raw":
        found = detections_from_raw(outputs["cls_logits"][index], outputs["reg_logits"][index], spec, input_hw)
    else:
        sigmas = outputs[SIGMAS][index] if spec.edge_sigma else None
        found = detections_from_scores(outputs["boxes"][index], outputs["scores"][index], spec, sigmas)
    return found if found.sigmas is None else _scaled(found, found.sigmas, spec)


def _scaled(found: Found, sigmas: Floats, spec: ModelSpec) -> Found:
    """With the sigmas times the model's factors, and without detections whose sigmas are no numbers.

    Decoding gives none of those with a sound box; a model that somebody else made may.
    """
    scaled = sigmas * np.array(spec.sigma_scale, np.float32)
    chosen = sound_sigmas(scaled)
    if chosen.all():
        return found._replace(sigmas=scaled)
    invalid = found.invalid + int(np.count_nonzero(~chosen))
    return Found(found.boxes[chosen], found.scores[chosen], found.classes[chosen], invalid, scaled[chosen])


def _detections_from_nms(outputs: Outputs, index: int, spec: ModelSpec) -> Found:
    """What a graph or kernels found; they may be of an earlier version, or of somebody else, and let anything pass."""
    all_classes = np.asarray(outputs["det_classes"][index], np.int32)
    count = min(max(0, int(np.asarray(outputs["num_dets"])[index, 0])), len(all_classes))
    boxes, scores = (np.asarray(outputs[name][index, :count], np.float32) for name in ("det_boxes", "det_scores"))
    classes = all_classes[:count]
    chosen = sound(boxes, scores) & (classes >= 0) & (classes < spec.num_classes)
    invalid = count - np.count_nonzero(chosen) + np.count_nonzero(all_classes[count:] == INVALID_CLASS)
    sigmas = np.asarray(outputs[DET_SIGMAS][index, :count], np.float32)[chosen] if spec.edge_sigma else None
    return Found(boxes[chosen], scores[chosen], classes[chosen], int(invalid), sigmas)


def detections_from_scores(
    boxes: NDArray[Any], scores: NDArray[Any], spec: ModelSpec, sigmas: NDArray[Any] | None = None
) -> Found:
    """What :func:`gfl_edge.ops.boxes.multiclass_nms` gives, with :func:`kept_boxes`.

    Args:
        boxes: float32 or float16 ``[A, 4]`` xyxy in pixels of the input.
        scores: the same ``[A, C]``, 0..1; NaN counts as 0.
        spec: thresholds.
        sigmas: the same ``[A, 4]``, of the edges in pixels of the input; what is found has them as they are.
    """
    flat = np.asarray(scores, np.float32).reshape(-1)
    pairs = _above(flat, np.float32(spec.score_threshold))
    pairs, values, missing = _best(pairs, flat[pairs], spec)
    anchors, classes = np.divmod(pairs, scores.shape[1])
    found, kept = _suppressed(np.asarray(boxes[anchors], np.float32), values, classes, spec, missing)
    return found if sigmas is None else found._replace(sigmas=np.asarray(sigmas[anchors[kept]], np.float32))


def decoded(scores: Floats, reg_logits: Floats, spec: ModelSpec, input_hw: tuple[int, int]) -> dict[str, Floats]:
    """What a model gives of all its points before NMS, by ``spec.candidate_names``.

    Args:
        scores: ``[..., A, C]``, 0..1.
        reg_logits: float32 ``[..., A, 4 * (reg_max + 1)]``.
        spec: strides, point offset, and whether there are sigmas.
        input_hw: the size that the model is run at, in pixels.
    """
    found = {"boxes": decode.decode(reg_logits, input_hw, spec.strides, spec.point_offset), "scores": scores}
    if spec.edge_sigma:
        _, cell_strides = _points(input_hw, spec.strides, spec.point_offset)
        found[SIGMAS] = decode.deviation(reg_logits) * cell_strides[:, None]
    return found


def detections_from_raw(
    cls_logits: NDArray[Any], reg_logits: NDArray[Any], spec: ModelSpec, input_hw: tuple[int, int]
) -> Found:
    """What :func:`gfl_edge.ops.boxes.multiclass_nms` gives for the decoded maps, decoding only the survivors.

    Args:
        cls_logits: float32 or float16 ``[A, C]``; NaN counts as score 0.
        reg_logits: the same ``[A, 4 * (reg_max + 1)]``.
        spec: thresholds, strides and point offset; and whether sigmas are to be found, which are as they are.
        input_hw: the size that the model was run at, in pixels.
    """
    flat = np.asarray(cls_logits).reshape(-1)
    pairs = _above(flat, _cutoff(spec.score_threshold, flat.dtype))
    pairs, scores, missing = _best(pairs, sigmoid(flat[pairs]), spec)
    anchors, classes = np.divmod(pairs, cls_logits.shape[1])
    centers, cell_strides = _points(input_hw, spec.strides, spec.point_offset)
    distances = decode.integral(np.asarray(np.asarray(reg_logits)[anchors], np.float32)) * cell_strides[anchors, None]
    boxes = decode.boxes_from_distances(distances, centers[anchors], input_hw)
    found, kept = _suppressed(boxes, scores, classes, spec, missing)
    if not spec.edge_sigma:
        return found
    rows = anchors[kept]
    deviations = decode.deviation(np.asarray(np.asarray(reg_logits)[rows], np.float32))
    return found._replace(sigmas=deviations * cell_strides[rows, None])


def _above(values: NDArray[Any], limit: Any) -> Indices:
    """Where values are above a limit, or NaN, in one pass: NaN is not at or below it either."""
    with np.errstate(invalid="ignore"):
        below = np.asarray(values <= limit)
    return np.flatnonzero(np.logical_not(below, out=below))


def _best(pairs: Indices, scores: Floats, spec: ModelSpec) -> tuple[Indices, Floats, int]:
    """The pairs that enter NMS, in order of falling score, with their scores; and how many of all have NaN for one."""
    missing = np.count_nonzero(np.isnan(scores))
    # The cut-off of logits lets a little more through than the threshold, so that rounding decides as it does without
    (confident,) = np.nonzero(scores > np.float32(spec.score_threshold))
    order = confident[np.argsort(-scores[confident], kind="stable")[: spec.max_candidates]]
    return pairs[order], scores[order], int(missing)


def _suppressed(
    boxes: Floats, scores: Floats, classes: Indices, spec: ModelSpec, missing: int
) -> tuple[Found, Indices]:
    """NMS of candidates in order of falling score, of which ``missing`` had none; and which of them are found."""
    (chosen,) = np.nonzero(sound(boxes, scores))
    if len(chosen) < len(boxes):
        missing += len(boxes) - len(chosen)
        boxes, scores, classes = boxes[chosen], scores[chosen], classes[chosen]
    kept = kept_boxes(boxes, classes, spec.iou_threshold, spec.max_detections)
    return Found(boxes[kept], scores[kept], classes[kept].astype(np.int32), missing), chosen[kept]


def kept_boxes(boxes: Floats, classes: Indices, iou_threshold: float, most: int) -> Indices:
    """The first ``most`` boxes that :func:`gfl_edge.ops.boxes.classwise_nms` keeps, by OpenCV, about ten times faster.

    OpenCV's IoU is rounded once more: pairs within 1e-7 of the threshold may fall on the other side of it.

    Args:
        boxes: ``[n, 4]`` xyxy in order of falling score, all :func:`gfl_edge.ops.boxes.sound`.
        classes: ``[n]``.
        iou_threshold: 0..1.
        most: how many at most.

    Returns:
        Their indices, rising.
    """
    suppress = optional.load("cv2").dnn.NMSBoxes
    (empty,) = np.nonzero(areas(boxes) <= TINY)
    apart = boxes.astype(np.float64)
    low, high = apart.min(initial=0), apart.max(initial=0)
    apart[:, 2:] -= apart[:, :2]
    apart[:, :2] += (classes * (1 + high - low))[:, None]  # classes side by side never overlap
    apart[empty] = 1  # these overlap with nothing, yet in OpenCV all with each other: unit squares in a row
    apart[empty, 0] = low - 2 * np.arange(1, 1 + len(empty))
    falling = np.arange(len(boxes), 0, -1, dtype=np.float32)  # of the scores only their order matters
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes), CHUNK):  # a box depends only on those before it: mostly the first few suffice
        tried = np.concatenate((kept, np.arange(start, min(start + CHUNK, len(boxes)))))
        kept = tried[np.asarray(suppress(apart[tried], falling[tried], 0.0, iou_threshold), np.int64)]
        if len(kept) >= most:
            break
    return kept[:most]


def sigmoid(logits: NDArray[Any]) -> Floats:
    """Logits -> scores 0..1, float32."""
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and the score 0
        return np.asarray(1 / (1 + np.exp(-np.asarray(logits, np.float32))), np.float32)


def _cutoff(score_threshold: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A logit that is just below every one whose score is above the threshold, in the type of the logits."""
    below = score_threshold * (1 - 1e-5)
    logit = math.log(below / (1 - below)) if below > 0 else -math.inf
    return np.asarray(np.nextafter(np.array(logit, dtype), np.array(-math.inf, dtype)))
