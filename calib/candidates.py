"""The float model that is made INT8, and the INT8 forms of it that a search compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import ModelProto

from calib import placement, qdq
from calib.arguments import CalibrationRequest, Target
from calib.nms import Tail, add_nms, cut_nms
from calib.qdq import Layer, QdqGraph, Range
from calib.record import RECORD_KEY, CalibrationRecord
from gfl_edge.errors import InputError
from gfl_edge.files import sha256
from gfl_edge.ops.onnx_graph import copy_model
from gfl_edge.parsing.json_text import json_text
from gfl_edge.spec import PREFIX, ModelSpec, Precision, load_onnx, spec_of

PRECISION_FOR: dict[Target, Precision] = {"trt": "fp16", "cpu": "fp32"}  # of what stays float


@dataclass(frozen=True)
class FloatModel:
    """The model that is made INT8.

    Attributes:
        graph: without NMS, of its own precision.
        tail: its NMS.
        spec: its description.
        metadata: what else its file says.
        target: what the INT8 file is for.
        sha256: of its file.
    """

    graph: ModelProto
    tail: Tail
    spec: ModelSpec
    metadata: dict[str, str]
    target: Target
    sha256: str

    @classmethod
    def load(cls, request: CalibrationRequest, loaded: ModelProto | None = None) -> FloatModel:
        """The model of a request.

        Args:
            request: what to make INT8.
            loaded: the content of ``request.onnx``, where that was read before; it is not changed.

        Raises:
            InputError: NMS in the plugin, or another precision than the target's.
            CalibrationError: the model is quantized already or too old.
        """
        model = load_onnx(request.onnx) if loaded is None else copy_model(loaded)
        spec = spec_of(model, str(request.onnx))
        placement.check_quantizable(model, str(request.onnx))
        if spec.nms == "plugin":
            raise InputError(
                f"{request.onnx} was exported with --nms plugin, which nothing here can run. Export it with --nms "
                "graph, none or raw"
            )
        target = request.target or ("trt" if spec.precision == "fp16" else "cpu")
        if target == "cpu" and spec.precision == "fp16":
            model, spec = qdq.to_float32(model), replace(spec, precision="fp32")
        if spec.precision != PRECISION_FOR[target]:
            half = " --fp16" if target == "trt" else ""
            raise InputError(
                f"{request.onnx} is {spec.precision}, and what stays float for --target {target} is "
                f"{PRECISION_FOR[target]}. Export it with: python export/to_onnx.py --weights CHECKPOINT{half} "
                "-o M.onnx"
            )
        others = {prop.key: prop.value for prop in model.metadata_props if not prop.key.startswith(PREFIX)}
        tail = cut_nms(model, spec)
        return cls(model, tail, spec, others, target, sha256(request.onnx))

    def whole(self) -> ModelProto:
        """A copy with its NMS, as in the file."""
        model = copy_model(self.graph)
        add_nms(model, self.tail)
        return model


class Candidates:
    """INT8 forms of a model, by the layers that stay float.

    Args:
        model: what is made INT8.
        graph: its graph in float32, with Q/DQ pairs.
        ranges: tensor -> where it is clipped.
        channel_means: see :func:`calib.qdq.correct_biases`.
    """

    def __init__(
        self,
        model: FloatModel,
        graph: QdqGraph,
        ranges: Mapping[str, Range],
        channel_means: Mapping[str, Sequence[float]],
    ) -> None:
        self.model = model
        self._graph, self._ranges, self._means = graph, ranges, channel_means

    @property
    def layers(self) -> tuple[Layer, ...]:
        """That can be INT8, in the order of the graph."""
        return self._graph.layers

    @property
    def convolutions(self) -> int:
        """How many there are, those that stay float in any case among them."""
        return qdq.count_layers(self.model.graph)["convolutions"]

    def float32(self, float_layers: Collection[str]) -> ModelProto:
        """The float32 graph without NMS, with Q/DQ pairs except on ``float_layers``."""
        return self._graph.quantized(self._ranges, self._means, float_layers)

    def alone(self, layer: str) -> ModelProto:
        """The float32 graph in which only this layer has Q/DQ pairs."""
        return self.float32([other.name for other in self.layers if other.name != layer])

    def finished(self, float_layers: Collection[str]) -> ModelProto:
        """The model as it is shipped, except for its record."""
        return self.finish(self.float32(float_layers))

    def finish(self, model: ModelProto) -> ModelProto:
        """What :meth:`float32` or :meth:`alone` gave, as it is shipped except for its record; changes ``model``."""
        qdq.fold_weights(model)
        qdq.restore_half(model, self.model.graph)
        add_nms(model, self.model.tail)
        spec = replace(self.model.spec, quantized_layers=qdq.count_layers(model)["quantized"])
        del model.metadata_props[:]
        for key, value in {**self.model.metadata, **spec.to_metadata()}.items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model, full_check=True)
        return model


def add_record(model: ModelProto, record: CalibrationRecord) -> None:
    """Note in the metadata of ``model``, in place, how it was made."""
    model.metadata_props.add(key=RECORD_KEY, value=json_text(record.to_dict()))
