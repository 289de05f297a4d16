"""Where Q/DQ pairs go: NVIDIA Model Optimizer's rules for TensorRT, less what has to stay float."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from calib.qdq import DEQUANTIZE, QdqGraph
from gfl_edge import optional
from gfl_edge.errors import CalibrationError
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.spec import INPUT_NAME

MIN_OPSET = 13  # per-channel scales


def check_quantizable(model: ModelProto, origin: str) -> None:
    """Raise CalibrationError for a model that is quantized already, or too old for scales per channel."""
    opset = next((opset.version for opset in model.opset_import if opset.domain == ""), 0)
    if opset < MIN_OPSET:
        raise CalibrationError(
            f"{origin} is of opset {opset}, scales per channel need {MIN_OPSET}. Export it again with: "
            f"python export/to_onnx.py --weights CHECKPOINT -o {origin}"
        )
    if any(node.op_type == DEQUANTIZE for node in model.graph.node):
        raise CalibrationError(f"{origin} is quantized already. Give the float model it was made from")


def place(model: ModelProto, example: NDArray[np.uint8], for_cpu: bool = False) -> QdqGraph:
    """Add Q/DQ pairs to a float32 graph without NMS.

    The final convolutions of the head, what comes after them and the normalization stay as they are. Scales of
    activations are those of one image, for :meth:`QdqGraph.with_ranges` to replace.

    Args:
        model: outputs boxes and scores, or raw maps.
        example: a image, uint8 ``[1, H, W, 3]``.
        for_cpu: see :class:`QdqGraph`; additions, concatenations, poolings and resizes gain nothing there.

    Raises:
        CalibrationError: Model Optimizer fails on the graph.
        MissingDependencyError: it is not installed.
    """
    with tempfile.TemporaryDirectory() as folder, optional.quiet():  # it names GPUs that are not there
        int8 = optional.load("modelopt.onnx.quantization.int8")
        calib_utils = optional.load("modelopt.onnx.quantization.calib_utils")
        path = Path(folder) / "float.onnx"
        onnx.save(model, str(path))
        try:
            placed = int8.quantize(
                str(path),
                calibration_method="max",
                calibration_data_reader=calib_utils.CalibrationDataProvider(str(path), {INPUT_NAME: example}),
                calibration_eps=["cpu"],
                nodes_to_exclude=sorted(float_nodes(model)),
                op_types_to_exclude=[],
                high_precision_dtype="fp32",
                log_level="ERROR",
            )
        except Exception as error:  # it raises whatever its parts raise
            raise CalibrationError(f"NVIDIA Model Optimizer cannot quantize the graph: {error}") from error
    return QdqGraph(placed, for_cpu)


def float_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes that stay float whatever they would gain: normalization, final convolutions and decode.

    A convolution is final where none follows it, and where a softmax follows before another convolution does (the edge
    distributions of GFLv2, whose quality is predicted from them); what comes after a softmax is float, too.
    """
    graph = OnnxGraph(model)
    before_conv: set[str] = set()  # nodes from which a convolution is reached
    softmax_next: set[str] = set()  # ... or a softmax before any convolution
    for node in reversed(graph.nodes):  # topological order
        followers = [reader for output in node.output for reader in graph.readers.get(output, [])]
        if any(reader.op_type == "Conv" or reader.name in before_conv for reader in followers):
            before_conv.add(node.name)
        if any(
            reader.op_type == "Softmax" or (reader.op_type != "Conv" and reader.name in softmax_next)
            for reader in followers
        ):
            softmax_next.add(node.name)
    after_conv, after_softmax = _after(graph.nodes, "Conv"), _after(graph.nodes, "Softmax")
    return {
        node.name
        for node in graph.nodes
        if node.name not in before_conv  # decode, and final convolutions
        or node.name in softmax_next
        or node.op_type == "Softmax"
        or node.name in after_softmax
        or (node.op_type != "Conv" and node.name not in after_conv)  # normalization
    }


def _after(nodes: Iterable[NodeProto], kind: str) -> set[str]:
    """Names of the nodes that come after one of that kind."""
    tainted: set[str] = set()
    found: set[str] = set()
    for node in nodes:
        comes_after = any(name in tainted for name in node.input)
        if comes_after:
            found.add(node.name)
        if comes_after or node.op_type == kind:
            tainted.update(node.output)
    return found
