"""FP16 for a foreign network, without PyTorch: its graph rewritten, except for what FP16 cannot hold.

Values beyond the largest of FP16, 65504, become infinite. The float32 network is run on images; every node that reads
or gives more than half of that stays float32, and what lies between the two precisions is cast. Normalization and
decode are float32 in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.adopt.body import PREFIX
from gfl_edge.adopt.dry_run import runner
from gfl_edge.adopt.trace import CONVOLUTIONS
from gfl_edge.errors import PrecisionError
from gfl_edge.ops.onnx_graph import copy_model, remove_unused, tensor_types
from gfl_edge.spec import INPUT_NAME, Precision

MAX_FP16 = 65504.0
LIMIT = MAX_FP16 / 2  # other images give larger values than those that were looked at
CHECKED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize")  # what the build of an engine looks at
# By operator, inputs that are not of the type of the first one
_OF_OWN_TYPE = {"Resize": (1, 2, 3), "Upsample": (1,)}


@dataclass(frozen=True)
class HalfPlan:
    """What stays float32.

    Attributes:
        beyond: tensors of the body whose values FP16 cannot hold.
        largest: the tensor of the largest magnitude, and that.
    """

    beyond: frozenset[str]
    largest: tuple[str, float]

    def __str__(self) -> str:
        """One line."""
        name, magnitude = self.largest
        kept = f"{len(self.beyond)} tensors stay float32" if self.beyond else "every layer fits"
        return f"fp16: {kept}, the largest magnitude is {magnitude:.4g} in {name} ({LIMIT:.0f} allowed)"


def plan(model: Any, images: Iterable[NDArray[np.uint8]]) -> HalfPlan:
    """Look for what FP16 cannot hold.

    Args:
        model: wrapped, float32.
        images: uint8 ``[1, H, W, 3]``.

    Raises:
        PrecisionError: a value is not finite in float32.
    """
    of_image = _computed_from(model, INPUT_NAME)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [name for name in _floats(model) if name.startswith(PREFIX) and (name in of_image or name in weights)]
    magnitudes = dict.fromkeys(names, 0.0)
    measuring, scalars = _measuring(model, names)
    run = runner(measuring, list(scalars.values()), "the adopted model")
    for image in images:
        found = run({INPUT_NAME: image})
        for name, scalar in scalars.items():
            magnitudes[name] = max(magnitudes[name], float(np.nan_to_num(found[scalar], nan=np.inf)))
    to_array = optional.load("onnx.numpy_helper").to_array
    for tensor in model.graph.initializer:
        if tensor.name in magnitudes and tensor.dims:
            magnitudes[tensor.name] = float(np.abs(to_array(tensor)).max(initial=0))
    largest = max(magnitudes, key=magnitudes.__getitem__)
    if not np.isfinite(magnitudes[largest]):
        raise PrecisionError(f"{largest} is not finite in float32, before any FP16. Are the weights whole?")
    beyond = frozenset(name for name, value in magnitudes.items() if value > LIMIT)
    return HalfPlan(beyond, (largest, magnitudes[largest]))


def _floats(model: Any) -> list[str]:
    proto = optional.load("onnx").TensorProto
    return [name for name, kind in tensor_types(model).items() if kind == proto.FLOAT]


def _measuring(model: Any, names: list[str]) -> tuple[Any, dict[str, str]]:
    """A copy that gives the largest magnitude of each tensor that is computed, and these outputs by tensor."""
    copy, make = copy_model(model), optional.load("onnx.helper").make_node
    made = {name for node in copy.graph.node for name in node.output}
    scalars = {}
    for name in (name for name in names if name in made):
        scalars[name] = f"{name}_largest"
        copy.graph.node.append(make("Abs", [name], [f"{name}_magnitude"]))
        copy.graph.node.append(make("ReduceMax", [f"{name}_magnitude"], [scalars[name]], keepdims=0))
    return copy, scalars


def to_half(body: Any, chosen: HalfPlan) -> Any:
    """A copy of a body in FP16, except for what ``chosen`` keeps."""
    rewriting = _Rewriting(copy_model(body), chosen.beyond)
    rewriting.rewrite()
    return rewriting.body


def float_layers(body: Any) -> tuple[str, ...]:
    """The names of the layers of an FP16 body that compute in float32, of the kinds that the build checks."""
    types, proto = tensor_types(body), optional.load("onnx").TensorProto
    return tuple(n.name for n in body.graph.node if n.op_type in CHECKED and types.get(n.input[0]) == proto.FLOAT)


def precision_of(body: Any, origin: str) -> Precision:
    """The precision of a body as it was exported: "fp32", or "fp16" where convolutions are; others may be float32.

    Raises:
        PrecisionError: some are of another.
    """
    types, proto = tensor_types(body), optional.load("onnx").TensorProto
    found = {types.get(node.input[0]) for node in body.graph.node if node.op_type in CONVOLUTIONS}
    if found <= {proto.FLOAT}:
        return "fp32"
    if found <= {proto.FLOAT, proto.FLOAT16}:
        return "fp16"
    raise PrecisionError(
        f"{origin} computes neither in float32 nor in FP16. Export it in float32, and take --fp16 here"
    )


def _computed_from(model: Any, name: str) -> set[str]:
    """The tensor and all whose values depend on its values; sizes do not."""
    found = {name}
    for node in model.graph.node:
        if node.op_type not in ("Shape", "Size") and not found.isdisjoint(node.input):
            found.update(node.output)
    return found


class _Rewriting:
    def __init__(self, body: Any, beyond: frozenset[str]) -> None:
        self.body, self._beyond = body, beyond
        self._helper, self._proto = optional.load("onnx.helper"), optional.load("onnx").TensorProto
        self._numpy = optional.load("onnx.numpy_helper")
        self._floats = set(_floats(body))
        self._weights = {tensor.name: tensor for tensor in body.graph.initializer}
        self._of_image = _computed_from(body, body.graph.input[0].name)
        self._cast: dict[tuple[str, int], str] = {}  # tensor and type -> the same in that type
        self._halved: dict[str, str] = {}  # weights -> the same in FP16

    def rewrite(self) -> None:
        """See :func:`to_half`."""
        nodes = [new for node in self.body.graph.node for new in self._rewritten(node)]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del self.body.graph.node[:], self.body.graph.value_info[:]
        self.body.graph.node.extend(copies)
        remove_unused(self.body)
        for value in (*self.body.graph.input, *self.body.graph.output):
            tensor_type = value.type.tensor_type
            if tensor_type.elem_type == self._proto.FLOAT and value.name not in self._beyond:
                tensor_type.elem_type = self._proto.FLOAT16

    def _rewritten(self, node: Any) -> Iterator[Any]:
        if self._of_image.isdisjoint(node.output):  # sizes, which exporters compute in float32: FP16 cannot count them
            yield node
            return
        own = _OF_OWN_TYPE.get(node.op_type, ())
        inputs = [i for i, name in enumerate(node.input) if name in self._floats and i not in own]
        touched = [*(node.input[i] for i in inputs), *(name for name in node.output if name in self._floats)]
        if not self._beyond.isdisjoint(touched):
            yield from self._as_float(node, inputs)
            return
        for i in inputs:
            name = node.input[i]
            if name in self._weights:
                node.input[i] = self._half_weights(name)
            elif name not in self._of_image:
                yield from self._read_as(node, i, self._proto.FLOAT16)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == self._proto.FLOAT:
                attribute.i = self._proto.FLOAT16
            if attribute.HasField("t") and attribute.t.data_type == self._proto.FLOAT:
                attribute.t.CopyFrom(self._half_tensor(attribute.t, attribute.t.name))
        yield node

    def _as_float(self, node: Any, inputs: list[int]) -> Iterator[Any]:
        """The node in float32, with casts around it."""
        for i in inputs:
            name = node.input[i]
            if name in self._of_image and name not in self._beyond:
                yield from self._read_as(node, i, self._proto.FLOAT)
        narrowed = []
        for i, name in enumerate(node.output):
            if name in self._floats and name not in self._beyond:
                node.output[i] = f"{name}_wide"
                narrowed.append(self._make_cast(f"{name}_wide", name, self._proto.FLOAT16))
        yield node
        yield from narrowed

    def _read_as(self, node: Any, index: int, kind: int) -> Iterator[Any]:
        """Have the node read an input in another type; the cast, unless there is one."""
        key = (node.input[index], kind)
        if key not in self._cast:
            self._cast[key] = f"{key[0]}_as_{'float' if kind == self._proto.FLOAT else 'half'}"
            yield self._make_cast(key[0], self._cast[key], kind)
        node.input[index] = self._cast[key]

    def _make_cast(self, source: str, target: str, kind: int) -> Any:
        return self._helper.make_node("Cast", [source], [target], f"{target}_cast", to=kind)

    def _half_weights(self, name: str) -> str:
        if name not in self._halved:
            self._halved[name] = f"{name}_half"
            self.body.graph.initializer.append(self._half_tensor(self._weights[name], self._halved[name]))
        return self._halved[name]

    def _half_tensor(self, tensor: Any, name: str) -> Any:
        values = self._numpy.to_array(tensor)
        return self._numpy.from_array(np.clip(values, -MAX_FP16, MAX_FP16).astype(np.float16), name)
