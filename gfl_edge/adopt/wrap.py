"""The contract of gfl_edge around a foreign network: uint8 frames in; raw maps, candidates or detections out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfl_edge import optional
from gfl_edge._version import __version__
from gfl_edge.adopt.body import PREFIX
from gfl_edge.adopt.foreign import Foreign
from gfl_edge.adopt.maps import Piece
from gfl_edge.adopt.recognize import Head
from gfl_edge.errors import InputError, ModelFileError
from gfl_edge.ops import decode
from gfl_edge.ops.nms_graph import append_nms
from gfl_edge.ops.onnx_graph import copy_model
from gfl_edge.spec import CANDIDATE_NAMES, INPUT_NAME, RAW_NAMES, SIGMAS, ModelSpec, set_spec

IR_VERSION = 10


def wrap(body: Any, foreign: Foreign, head: Head, spec: ModelSpec, channel_order: str, batched: bool) -> Any:
    """A model of the contract.

    Args:
        body: see :func:`gfl_edge.adopt.body.cut_body`; it is not changed.
        foreign: what it was cut out of.
        head: its maps.
        spec: how it is run, and what it is to become.
        channel_order: in which the body takes its channels, "bgr" or "rgb".
        batched: whether it takes batches; else one image at a time.

    Returns:
        ``onnx.ModelProto``.

    Raises:
        InputError: raw maps of a network that gives probabilities.
        ModelFileError: what onnx made of it is not valid.
    """
    if spec.nms == "raw" and not head.logits:
        raise InputError(
            f"{foreign.origin} gives probabilities, and --nms raw is of logits. Take --nms graph or none, which decode"
        )
    model = copy_model(body)
    graph = _Graph(model, spec)
    entering = graph.normalized(foreign, channel_order)
    image = PREFIX + foreign.image
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == image:
                node.input[index] = entering
    graph.finish(head, "batch" if batched else 1)
    model.ir_version = max(model.ir_version, IR_VERSION)
    model.producer_name, model.producer_version = "gfl_edge", __version__
    model.graph.name, model.graph.doc_string, model.doc_string = spec.name, "", ""
    if spec.nms == "graph":
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        append_nms(model, spec, opset=opset)
        _fix_batch(model, batched)
    set_spec(model, spec)
    try:
        optional.load("onnx.checker").check_model(model, full_check=True)
    except Exception as error:  # onnx raises many types
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{foreign.origin} cannot be brought to a recent opset ({reason}). Export it with opset 18 or newer"
        ) from error
    return model


def _ints(values: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def _floats(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _fix_batch(model: Any, batched: bool) -> None:
    for value in model.graph.output if not batched else ():
        value.type.tensor_type.shape.dim[0].dim_value = 1


class _Graph:
    """Nodes before and after the body, added to its model."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self._model, self._spec = model, spec
        self._helper, self._proto = optional.load("onnx.helper"), optional.load("onnx").TensorProto
        self._before: list[Any] = []
        self._nodes = self._before

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._model.graph.initializer.append(optional.load("onnx.numpy_helper").from_array(np.asarray(values), name))
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(self._helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def normalized(self, foreign: Foreign, channel_order: str) -> str:
        """From the uint8 frames to what the body takes; the tensor.

        Whole rows at once: CPUs compute in vectors along the last axis, and 3 channels fill none. The cast comes before
        the transpose: TensorRT has no uint8 transpose.
        """
        spec, width = self._spec, self._spec.input_hw[1]
        x = self._add("Cast", [INPUT_NAME], "images_float", to=self._proto.FLOAT)
        mean, inverse_std = _floats(spec.mean_bgr), 1 / _floats(spec.std_bgr)
        if mean.any() or (inverse_std != 1).any():
            x = self._add("Reshape", [x, self._constant("rows", _ints([0, 0, 3 * width]))], "images_rows")
            if mean.any():
                x = self._add("Sub", [x, self._constant("mean", np.tile(mean, width))], "images_centered")
            x = self._add("Mul", [x, self._constant("inverse_std", np.tile(inverse_std, width))], "images_scaled")
            x = self._add("Reshape", [x, self._constant("pixels", _ints([0, 0, width, 3]))], "images_normalized")
        if channel_order == "rgb":
            x = self._add("Gather", [x, self._constant("to_rgb", _ints([2, 1, 0]))], "images_rgb", axis=3)
        if foreign.layout == "nchw":
            x = self._add("Transpose", [x], "images_nchw", perm=[0, 3, 1, 2])
        kind = self._model.graph.input[0].type.tensor_type.elem_type
        if kind != self._proto.FLOAT:
            x = self._add("Cast", [x], "images_cast", to=kind)
        return x

    def finish(self, head: Head, batch: str | int) -> None:
        """From the maps to the outputs; puts all nodes and the ports into the model."""
        after: list[Any] = []
        self._nodes = after
        spec = self._spec
        # Raw maps are of the body's precision, as the kernels take them; decode is float32
        halved = spec.precision == "fp16"
        kind = self._proto.FLOAT16 if halved and spec.nms == "raw" else self._proto.FLOAT
        cls_columns = self._columns("cls", [level.scores for level in head.levels], kind if halved else 0)
        reg_columns = self._columns("reg", [level.distributions for level in head.levels], kind if halved else 0)
        if spec.nms == "raw":
            widths = dict(zip(RAW_NAMES, (spec.num_classes, 4 * (spec.reg_max + 1)), strict=True))
            self._add("Transpose", [cls_columns], RAW_NAMES[0], perm=[0, 2, 1])
            self._add("Transpose", [reg_columns], RAW_NAMES[1], perm=[0, 2, 1])
        else:
            widths = {name: spec.num_classes if name == "scores" else 4 for name in spec.candidate_names}
            if head.logits:
                cls_columns = self._add("Sigmoid", [cls_columns], "scores_columns")
            self._decode(reg_columns)
            self._add("Transpose", [cls_columns], CANDIDATE_NAMES[1], perm=[0, 2, 1])
        graph, make = self._model.graph, self._helper.make_tensor_value_info
        body = [type(node).FromString(node.SerializeToString()) for node in graph.node]
        for field in (graph.node, graph.input, graph.output):
            del field[:]
        graph.node.extend([*self._before, *body, *after])
        graph.input.append(make(INPUT_NAME, self._proto.UINT8, [batch, *spec.input_hw, 3]))
        for name, width in widths.items():
            graph.output.append(make(name, kind, [batch, spec.num_anchors, width]))

    def _columns(self, what: str, pieces: list[Piece], kind: int) -> str:
        """Pieces of all levels -> ``[N, X, A]`` of the type ``kind`` (0: as they are), by ascending stride."""
        parts = []
        for number, piece in enumerate(pieces):
            x, (start, stop) = PREFIX + piece.tensor, piece.channels
            name = f"{what}_{number}"
            axis = 2 if piece.channels_last else 1
            limits = [self._constant(f"{name}_{k}", _ints([v])) for k, v in (("start", start), ("stop", stop))]
            x = self._add("Slice", [x, *limits, self._constant(f"{name}_axis", _ints([axis]))], f"{name}_channels")
            if piece.channels_last:
                x = self._add("Transpose", [x], f"{name}_turned", perm=[0, 2, 1])
            cells = self._constant(f"{name}_shape", _ints([0, stop - start, piece.hw[0] * piece.hw[1]]))
            x = self._add("Reshape", [x, cells], f"{name}_columns")
            # Before they are joined: of levels that FP16 cannot hold, some may be float32
            parts.append(self._add("Cast", [x], f"{name}_cast", to=kind) if kind else x)
        return self._add("Concat", parts, f"{what}_columns", axis=2)

    def _decode(self, columns: str) -> None:
        """The integral decode, eq. 5 of the paper; Mul + ReduceSum because TensorRT-RTX has no FP32 MatMul on sm75."""
        spec = self._spec
        bins = spec.reg_max + 1
        centers, strides = decode.points(spec.input_hw, spec.strides, spec.point_offset)
        signs = _floats([-1, -1, 1, 1]).reshape(1, 4, 1, 1)
        signed_bins = signs * np.arange(bins, dtype=np.float32).reshape(1, 1, bins, 1)
        limits = _floats([spec.input_hw[1], spec.input_hw[0]] * 2).reshape(1, 4, 1)
        x = self._add("Reshape", [columns, self._constant("bins_shape", _ints([0, 4, bins, -1]))], "edge_logits")
        distributions = self._add("Softmax", [x], "edge_distributions", axis=2)
        x = self._add("Mul", [distributions, self._constant("signed_bins", signed_bins)], "edge_terms")
        means = self._add("ReduceSum", [x, self._constant("bins_axis", _ints([2]))], "edge_distances", keepdims=0)
        x = self._add("Mul", [means, self._constant("cell_strides", strides)], "edge_pixels")
        x = self._add("Add", [x, self._constant("centers", np.tile(centers.T, (2, 1))[None])], "edges")
        x = self._add("Max", [x, self._constant("least_edge", _floats(0))], "edges_above")
        x = self._add("Min", [x, self._constant("most_edge", limits)], "edges_within")
        self._add("Transpose", [x], CANDIDATE_NAMES[0], perm=[0, 2, 1])
        if spec.edge_sigma:
            self._deviations(distributions, means)

    def _deviations(self, distributions: str, means: str) -> None:
        """Standard deviations of the edges; the squares are the same whatever the signs of bins and means."""
        x = self._add("Unsqueeze", [means, "bins_axis"], "edge_means")
        x = self._add("Sub", ["signed_bins", x], "edge_apart")
        x = self._add("Mul", [x, x], "edge_squares")
        x = self._add("Mul", [distributions, x], "edge_square_terms")
        x = self._add("ReduceSum", [x, "bins_axis"], "edge_variances", keepdims=0)
        x = self._add("Sqrt", [x], "edge_deviations")
        x = self._add("Mul", [x, "cell_strides"], "edge_sigmas")
        self._add("Transpose", [x], SIGMAS, perm=[0, 2, 1])
