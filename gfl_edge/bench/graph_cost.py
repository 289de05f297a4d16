"""What a graph costs by itself: multiplications and bytes, counted from the ONNX file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfl_edge import optional
from gfl_edge.report.bounds import Cost, Precision

_CONVOLUTIONS = ("Conv", "DeformConv")
_PRODUCTS = ("MatMul", "Gemm")
_SHAPES_ONLY = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant")  # move no bytes
_QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class GraphCost:
    """Of one image.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products by the precision that they compute in: "fp32",
            "fp16", "bf16", "int8". mmdetection's pages call them FLOPs, NanoDet's call FLOPs twice as many.
        weight_bytes: of the file's constants.
        input_bytes: of the input.
        output_bytes: of the outputs.
        traffic_bytes: of every operation's inputs and outputs, as if each went through memory; operations that only
            name a shape are left out, and a pair of QuantizeLinear and DequantizeLinear counts as what it stands for.
        unknown_tensors: whose size shape inference does not find; they count as 0 bytes.
    """

    macs: Mapping[Precision, int]
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    traffic_bytes: int
    unknown_tensors: int

    @property
    def gmacs(self) -> float:
        """All multiply-accumulates, in 10^9."""
        return sum(self.macs.values()) / 1e9

    def row(self) -> Cost:
        """For the report."""
        return Cost(
            macs=sum(self.macs.values()),
            weight_bytes=self.weight_bytes,
            input_bytes=self.input_bytes,
            output_bytes=self.output_bytes,
            traffic_bytes=self.traffic_bytes,
            unknown_tensors=self.unknown_tensors,
            fp32_macs=self.macs.get("fp32", 0),
            bf16_macs=self.macs.get("bf16", 0),
            fp16_macs=self.macs.get("fp16", 0),
            int8_macs=self.macs.get("int8", 0),
        )


def graph_cost(model: Any, input_hw: tuple[int, int]) -> GraphCost:
    """Count a graph (``onnx.ModelProto``, left unchanged) at batch 1 and an input of ``input_hw`` pixels.

    Functions such as GflNms are counted by their bodies; the branches of If and the bodies of Loop are not.
    """
    onnx = optional.load("onnx")
    # A copy with functions inlined and, where it can be found, the shape of every tensor at that size
    flat = optional.load("onnx.inliner").inline_local_functions(model)
    del flat.graph.value_info[:]
    for dim, size in zip(flat.graph.input[0].type.tensor_type.shape.dim, (1, *input_hw, 3), strict=True):
        dim.dim_value = size
    for output in flat.graph.output:
        output.type.tensor_type.ClearField("shape")
    return _Counter(onnx.shape_inference.infer_shapes(flat, data_prop=True)).cost()


class _Counter:
    """Looks up shapes and types of a graph's tensors while it counts."""

    def __init__(self, model: Any) -> None:
        onnx = optional.load("onnx")
        self._graph = model.graph
        self._type_names: dict[int, Precision] = {
            onnx.TensorProto.FLOAT: "fp32",
            onnx.TensorProto.FLOAT16: "fp16",
            onnx.TensorProto.BFLOAT16: "bf16",
        }
        self._item_bytes = onnx.helper.tensor_dtype_to_np_dtype
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, int] = {}
        self._made_by = {name: node for node in self._graph.node for name in node.output}
        self._constants = {tensor.name for tensor in self._graph.initializer}
        for tensor in self._graph.initializer:
            self._shapes[tensor.name], self._types[tensor.name] = tuple(tensor.dims), tensor.data_type
        for value in (*self._graph.input, *self._graph.value_info, *self._graph.output):
            kind = value.type.tensor_type
            self._types[value.name] = kind.elem_type
            dims = kind.shape.dim
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                self._shapes[value.name] = tuple(dim.dim_value for dim in dims)

    def cost(self) -> GraphCost:
        macs: dict[Precision, int] = defaultdict(int)
        traffic, unknown = 0, set()
        for node in self._graph.node:
            if node.op_type in (*_CONVOLUTIONS, *_PRODUCTS):
                macs[self._precision(node)] += self._macs(node)
            if node.op_type in (*_SHAPES_ONLY, *_QDQ):
                continue
            for name in {*node.input, *node.output} - {""}:
                maker = self._made_by.get(name)
                if maker is not None and maker.op_type == "DequantizeLinear" and name in node.input:
                    traffic += self._bytes(maker.input[0])  # what is read is the quantized tensor
                else:
                    traffic += self._bytes(name)
                if name not in self._shapes:
                    unknown.add(name)
        return GraphCost(
            macs=dict(macs),
            weight_bytes=sum(self._bytes(name) for name in self._constants),
            input_bytes=self._bytes(self._graph.input[0].name),
            output_bytes=sum(self._bytes(value.name) for value in self._graph.output),
            traffic_bytes=traffic,
            unknown_tensors=len(unknown),
        )

    def _bytes(self, name: str) -> int:
        shape = self._shapes.get(name)
        if shape is None:
            return 0
        return math.prod(shape) * int(np.dtype(self._item_bytes(self._types[name])).itemsize)

    def _macs(self, node: Any) -> int:
        """Outputs times the products that each takes; 0 where a shape is not known."""
        result, weights = self._shapes.get(node.output[0]), self._shapes.get(node.input[1])
        first = self._shapes.get(node.input[0])
        if result is None or weights is None or first is None:
            return 0
        if node.op_type in _CONVOLUTIONS:
            return math.prod(result) * math.prod(weights[1:])
        if node.op_type == "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return math.prod(result) * first[0 if transposed else 1]
        return math.prod(result) * first[-1]

    def _precision(self, node: Any) -> Precision:
        makers = [self._made_by.get(name) for name in node.input[:2]]
        if all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
            return "int8"
        return self._type_names.get(self._types.get(node.input[0], 0), "fp32")
