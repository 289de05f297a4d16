"""Class-wise NMS in the graph: the node ``gfl_edge::GflNms`` and its function of plain operations.

The function is model-local: its body is in the file, of plain operations and fixed shapes, and needs no plugin.

Suppression runs in a fixed number of rounds (Cluster-NMS, Zheng et al. 2020): in every round a candidate survives if no
better candidate that survived the round before overlaps it. A candidate's fate is final after as many rounds as the
longest chain of overlaps that ends in it, so the result equals greedy NMS wherever no chain is longer than ``ROUNDS``.

Candidates that are not :func:`gfl_edge.ops.boxes.sound` count as empty boxes of score 0. A NaN score is 0 in the order,
and told by the padding where it is among the candidates. Less and LessOrEqual are False of NaN everywhere; Greater is
True of it in OpenVINO.

Detections are taken by their rank, which no two share, so that the first TopK alone decides among equal scores, and
ONNX says how: lower index first. OpenVINO does not keep to that; see :mod:`gfl_edge.backends.tied_scores`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gfl_edge import optional
from gfl_edge.ops.boxes import MAX_COORDINATE
from gfl_edge.ops.onnx_limits import DOMAIN, NMS_OP
from gfl_edge.spec import INVALID_CLASS, PADDING_CLASS, ModelSpec

OPSET = 18  # of the models that this is made for; newer ones take it as well
ROUNDS = 16  # no image of the 397 of COCO needs more than 13, see benchmarks/results/nms.json

# A = anchors, C = classes, K = max_candidates, M = max_detections. TensorRT-RTX takes no FP32 MatMul on sm75 and CUDA
# graphs no data-dependent shape, hence Mul + ReduceMax and padding. ONNX Runtime before 1.25 refuses a TopK in a
# function whose size is an attribute or a list: "K input must be a one-dimensional tensor of size 1".
_HEAD = """
<domain: "gfl_edge", opset_import: ["" : {opset}]>
GflNms <score_threshold, iou_threshold> (boxes, scores{sigmas_in})
    => (num_dets, det_boxes, det_scores, det_classes{sigmas_out})
{{
  zero = Constant <value_float: float = 0.0> ()
  one = Constant <value_float: float = 1.0> ()
  tiny = Constant <value_float: float = 1e-9> ()
  threshold = Constant <value_float: float = @score_threshold> ()
  max_iou = Constant <value_float: float = @iou_threshold> ()
  k = Constant <value: tensor = int64[1] {{{max_candidates}}}> ()
  m = Constant <value: tensor = int64[1] {{{max_detections}}}> ()
  axis1 = Constant <value_ints: ints = [1]> ()
  axis2 = Constant <value_ints: ints = [2]> ()
  to_flat = Constant <value_ints: ints = [0, -1]> ()
  four = Constant <value_ints: ints = [1, 1, 4]> ()
  beyond_one = Constant <value_float: float = {beyond_one}> ()
  beyond_pixels = Constant <value_float: float = {beyond_pixels}> ()

  confident = Less (threshold, scores)
  clean = Where (confident, scores, zero)
  flat = Reshape (clean, to_flat)
  top_scores, top_pairs = TopK <axis: int = 1, largest: int = 1, sorted: int = 1> (flat, k)
  num_classes = Shape <start: int = 2, end: int = 3> (scores)
  top_anchors = Div (top_pairs, num_classes)
  first_pairs = Mul (top_anchors, num_classes)
  top_classes = Sub (top_pairs, first_pairs)
  anchor_columns = Unsqueeze (top_anchors, axis2)
  anchor_index = Expand (anchor_columns, four)
  raw_candidates = GatherElements <axis: int = 1> (boxes, anchor_index)

  raw_flat = Reshape (scores, to_flat)
  given_scores = GatherElements <axis: int = 1> (raw_flat, top_pairs)
  possible_score = Less (given_scores, beyond_one)
  magnitude = Abs (raw_candidates)
  near = Less (magnitude, beyond_pixels)
  near_float = Cast <to: int = 1> (near)
  all_near = ReduceMin <keepdims: int = 0> (near_float, axis2)
  near_box = Greater (all_near, zero)
  corner, far_corner = Split <axis: int = 2, num_outputs: int = 2> (raw_candidates)
  crossed = Less (far_corner, corner)
  crossed_float = Cast <to: int = 1> (crossed)
  any_crossed = ReduceMax <keepdims: int = 0> (crossed_float, axis2)
  ordered_box = Less (any_crossed, one)
  possible_box = And (near_box, ordered_box)
  sound = And (possible_score, possible_box)
  sound_column = Unsqueeze (sound, axis2)
  candidates = Where (sound_column, raw_candidates, zero)
  sound_scores = Where (sound, top_scores, zero)
  unsound = Not (sound)
  quiet = LessOrEqual (given_scores, threshold)
  loud = Not (quiet)
  invalid = And (unsound, loud)
  invalid_int = Cast <to: int = 6> (invalid)
  num_invalid = ReduceSum <keepdims: int = 1> (invalid_int, axis1)

  x1, y1, x2, y2 = Split <axis: int = 2, num_outputs: int = 4> (candidates)
  x1t = Transpose <perm: ints = [0, 2, 1]> (x1)
  y1t = Transpose <perm: ints = [0, 2, 1]> (y1)
  x2t = Transpose <perm: ints = [0, 2, 1]> (x2)
  y2t = Transpose <perm: ints = [0, 2, 1]> (y2)
  left = Max (x1, x1t)
  top = Max (y1, y1t)
  right = Min (x2, x2t)
  bottom = Min (y2, y2t)
  raw_width = Sub (right, left)
  raw_height = Sub (bottom, top)
  width = Max (raw_width, zero)
  height = Max (raw_height, zero)
  intersection = Mul (width, height)
  box_width = Sub (x2, x1)
  box_height = Sub (y2, y1)
  area = Mul (box_width, box_height)
  area_t = Transpose <perm: ints = [0, 2, 1]> (area)
  areas = Add (area, area_t)
  raw_union = Sub (areas, intersection)
  union = Max (raw_union, tiny)
  iou = Div (intersection, union)
  overlaps = Greater (iou, max_iou)

  class_column = Unsqueeze (top_classes, axis2)
  class_row = Unsqueeze (top_classes, axis1)
  same_class = Equal (class_column, class_row)
  start = Constant <value_int: int = 0> ()
  step = Constant <value_int: int = 1> ()
  k_scalar = Squeeze (k)
  rank = Range (start, k_scalar, step)
  rank_column = Unsqueeze (rank, axis1)
  rank_row = Unsqueeze (rank, start)
  better = Less (rank_column, rank_row)
  overlap_in_class = And (overlaps, same_class)
  suppresses = And (overlap_in_class, better)
  edges = Cast <to: int = 1> (suppresses)
"""
_FIRST_ROUND = """
  hit_0 = ReduceMax <keepdims: int = 0> (edges, axis1)
  keep_0 = Sub (one, hit_0)
"""
_ROUND = """
  column_{i} = Unsqueeze (keep_{p}, axis2)
  active_{i} = Mul (edges, column_{i})
  hit_{i} = ReduceMax <keepdims: int = 0> (active_{i}, axis1)
  keep_{i} = Sub (one, hit_{i})
"""
_TAIL = """
  kept_scores = Mul (sound_scores, keep_{last})
  kept = Greater (kept_scores, zero)
  place = Cast <to: int = 1> (rank_row)
  place_after_all = Cast <to: int = 1> (k)
  place_if_lost = Add (place, place_after_all)
  unique_place = Where (kept, place, place_if_lost)
  places, order = TopK <axis: int = 1, largest: int = 0, sorted: int = 1> (unique_place, m)
  det_scores = GatherElements <axis: int = 1> (kept_scores, order)
  valid = Greater (det_scores, zero)
  valid_int = Cast <to: int = 6> (valid)
  num_dets = ReduceSum <keepdims: int = 1> (valid_int, axis1)
  order_column = Unsqueeze (order, axis2)
  box_index = Expand (order_column, four)
  raw_boxes = GatherElements <axis: int = 1> (candidates, box_index)
  valid_column = Unsqueeze (valid, axis2)
  det_boxes = Where (valid_column, raw_boxes, zero)
  raw_classes = GatherElements <axis: int = 1> (top_classes, order)
  classes_int = Cast <to: int = 6> (raw_classes)
  m_scalar = Squeeze (m)
  row = Range (start, m_scalar, step)
  row_int = Cast <to: int = 6> (row)
  told = Add (num_dets, num_invalid)
  tells = Less (row_int, told)
  none = Constant <value: tensor = int32 {{{padding_class}}}> ()
  left_out = Constant <value: tensor = int32 {{{invalid_class}}}> ()
  padding = Where (tells, left_out, none)
  det_classes = Where (valid, classes_int, padding)
"""
_SIGMAS = """
  det_anchors = GatherElements <axis: int = 1> (top_anchors, order)
  det_anchor_column = Unsqueeze (det_anchors, axis2)
  sigma_index = Expand (det_anchor_column, four)
  raw_sigmas = GatherElements <axis: int = 1> (sigmas, sigma_index)
  det_sigmas = Where (valid_column, raw_sigmas, zero)
"""


def nms_function(
    max_candidates: int, max_detections: int, rounds: int = ROUNDS, opset: int = OPSET, edge_sigma: bool = False
) -> Any:
    """The function body for a model of that opset, as ``onnx.FunctionProto``.

    Args:
        max_candidates: (anchor, class) pairs that enter NMS.
        max_detections: detections that leave it, padded.
        rounds: of suppression.
        opset: of the model.
        edge_sigma: whether it takes the sigmas of all points, too, and gives those of the detections.
    """
    ports = (
        {"sigmas_in": ", sigmas", "sigmas_out": ", det_sigmas"} if edge_sigma else {"sigmas_in": "", "sigmas_out": ""}
    )
    beyond = {
        "beyond_one": _just_above(np.float32(1)),
        "beyond_pixels": _just_above(MAX_COORDINATE),  # Less is False of NaN in every library
    }
    head = _HEAD.format(opset=opset, max_candidates=max_candidates, max_detections=max_detections, **beyond, **ports)
    middle = "".join(_ROUND.format(i=i, p=i - 1) for i in range(1, rounds))
    tail = _TAIL.format(last=rounds - 1, padding_class=PADDING_CLASS, invalid_class=INVALID_CLASS)
    return optional.load("onnx.parser").parse_function(
        head + _FIRST_ROUND + middle + tail + (_SIGMAS if edge_sigma else "") + "}"
    )


def _just_above(value: np.float32) -> str:
    return repr(float(np.nextafter(value, np.float32(np.inf))))


def append_nms(model: Any, spec: ModelSpec, rounds: int = ROUNDS, opset: int = OPSET) -> Any:
    """Add GflNms after the outputs ``boxes`` ``[N, A, 4]`` and ``scores`` ``[N, A, C]`` of ``model``, in place.

    With ``spec.edge_sigma`` it has a third, ``sigmas`` ``[N, A, 4]``.

    The new outputs, K = ``spec.max_detections``, are padded with score 0, class -1 and empty boxes; in as many rows as
    candidates were invalid, as far as there are rows, with class -2:
    ``num_dets`` int32 ``[N, 1]``, ``det_boxes`` float32 ``[N, K, 4]``, ``det_scores`` float32 ``[N, K]``,
    ``det_classes`` int32 ``[N, K]``; with ``spec.edge_sigma`` ``det_sigmas`` float32 ``[N, K, 4]``, padded with 0.
    """
    helper = optional.load("onnx.helper")
    pairs = spec.num_anchors * spec.num_classes
    kept = min(spec.max_detections, pairs)
    model.graph.node.append(
        helper.make_node(
            NMS_OP,
            spec.candidate_names,
            spec.detection_names,
            name=NMS_OP,
            domain=DOMAIN,
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
        )
    )
    declare_detections(model, spec, kept)
    model.functions.append(nms_function(min(spec.max_candidates, pairs), kept, rounds, opset, spec.edge_sigma))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def declare_detections(model: Any, spec: ModelSpec, kept: int) -> None:
    """Make the outputs of NMS, of so many rows, those of ``model``, in place."""
    helper, proto = optional.load("onnx.helper"), optional.load("onnx").TensorProto
    del model.graph.output[:]
    whole, real = proto.INT32, proto.FLOAT
    shapes = ([1], [kept, 4], [kept], [kept], [kept, 4])
    for name, shape, dtype in zip(spec.detection_names, shapes, (whole, real, real, whole, real), strict=False):
        model.graph.output.append(helper.make_tensor_value_info(name, dtype, ["batch", *shape]))
