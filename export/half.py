"""Which modules of a network FP16 cannot hold, and the network in which only those stay float32.

Values beyond the largest of FP16, 65504, become infinite. The float32 network is run on images, and every module whose
own operations read or give more than half of that, or that has such a weight, computes in float32, and its children do.
What it returns is FP16 again as soon as it fits; what does not, travels on as float32, and whatever reads it is
float32 by the same rule. Normalization and decode are float32 in any case (:class:`export.graph.ExportedDetector`).
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from export.magnitudes import Magnitudes, is_activation
from gfl_edge.errors import PrecisionError
from gfl_edge.ops.onnx_graph import tensor_types
from gfl_edge.spec import ModelSpec

MAX_FP16 = 65504.0
SAFETY_FACTOR = 2.0  # other images give larger values than those that were looked at; also makes any sum of two fit
LIMIT = MAX_FP16 / SAFETY_FACTOR
_ALLOWED = f"{LIMIT:.0f} allowed"
_CHECKED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize")  # what build.check_precision looks at
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes a node's module


@dataclass(frozen=True)
class FloatModule:
    """A module that stays float32 with all of its children.

    Attributes:
        name: in the body, "backbone.layer3.0".
        magnitude: the largest of a weight or an activation of its own.
        narrowed: positions of its results that fit into FP16 and leave as such.
    """

    name: str
    magnitude: float
    narrowed: frozenset[int]


@dataclass(frozen=True)
class HalfPlan:
    """What becomes FP16 and what does not.

    Attributes:
        kept_float: disjoint modules, in the order in which the body registers them.
        passing: modules that hand a float32 argument on to their children without touching it.
        largest: the module of the largest magnitude, and that.
    """

    kept_float: tuple[FloatModule, ...]
    passing: frozenset[str]
    largest: tuple[str, float]

    def __str__(self) -> str:
        """One line per module that stays float32, or one that says that none does."""
        if not self.kept_float:
            name, magnitude = self.largest
            return (
                f"fp16: every layer fits, the largest magnitude is {magnitude:.4g} in {name or 'the body'} ({_ALLOWED})"
            )
        lines = (f"fp16: {m.name} stays float32, it reaches {m.magnitude:.4g} ({_ALLOWED})" for m in self.kept_float)
        return "\n".join(lines)

    def covers(self, name: str) -> bool:
        """Whether the module of that name is, or lies in, one that stays float32."""
        return any(f"{name}.".startswith(f"{module.name}.") for module in self.kept_float)


def make_plan(ranges: dict[str, Magnitudes], spec: ModelSpec) -> HalfPlan:
    """Decide what stays float32.

    Args:
        ranges: see :func:`export.magnitudes.measure`.
        spec: of the model; raw maps leave it as FP16.

    Raises:
        PrecisionError: FP16 is no precision for this network: the body as a whole would stay float32, or its raw maps
            do not fit.
    """
    advice = "Export it without --fp16, or with --bf16 for GPUs from sm80 on"
    whole = ranges[""]
    if whole.magnitude > LIMIT:
        raise PrecisionError(
            f"{spec.name}: values of {whole.magnitude:.4g} are computed outside of any layer, {LIMIT:.0f} is allowed "
            f"in FP16, so that the whole network would have to stay float32. {advice}"
        )
    raw = max(whole.leaving.values())
    if spec.nms in ("raw", "plugin") and raw > LIMIT:
        raise PrecisionError(
            f"{spec.name}: raw maps of --nms {spec.nms} are FP16 and would have to hold {raw:.4g}, {LIMIT:.0f} is "
            f"allowed. Take --nms graph or none, which decode in float32. {advice}"
        )
    kept: list[FloatModule] = []
    for name, found in ranges.items():  # parents come before their children
        if found.magnitude > LIMIT and not any(name.startswith(f"{module.name}.") for module in kept):
            narrowed = frozenset(position for position, value in found.leaving.items() if value <= LIMIT)
            inside = (other.magnitude for path, other in ranges.items() if path.startswith(f"{name}."))
            kept.append(FloatModule(name, max(found.magnitude, *inside, 0.0), narrowed))
    passing = frozenset(name for name, found in ranges.items() if found.entering > LIMIT)
    largest = max(ranges, key=lambda name: (ranges[name].magnitude, name.count(".")))  # of equals the innermost
    return HalfPlan(tuple(kept), passing, (largest, ranges[largest].magnitude))


def to_half(body: nn.Module, plan: HalfPlan | None = None) -> nn.Module:
    """Make ``body`` FP16 in place, except for what ``plan`` keeps; returns it."""
    kept = [(module, body.get_submodule(module.name)) for module in plan.kept_float] if plan else []
    for stays, _ in kept:
        body.set_submodule(stays.name, nn.Identity())  # its weights must not pass through FP16
    body.half()
    for stays, module in kept:
        body.set_submodule(stays.name, module)
        module.register_forward_pre_hook(_entering(torch.float32))
        module.register_forward_hook(_leaving(stays.narrowed))
    if plan is not None and kept:
        for name, module in body.named_modules():
            if not plan.covers(name) and name not in plan.passing:
                module.register_forward_pre_hook(_entering(torch.float16))
    return body


def node_scopes(model: ModelProto) -> dict[str, str]:
    """The innermost module of every node, by the node's name, as the exporter notes it down."""
    scopes = {}
    for node in model.graph.node:
        for entry in node.metadata_props:
            if entry.key == _SCOPES:
                scopes[node.name] = str(ast.literal_eval(entry.value)[-2])
    return scopes


def float_layers(model: ModelProto, scopes: dict[str, str], plan: HalfPlan, prefix: str = "body.") -> tuple[str, ...]:
    """The names of the layers of ``model`` that compute in float32, of the kinds that the build checks.

    Args:
        model: simplified, without NMS.
        scopes: see :func:`node_scopes`.
        plan: what may be float32.
        prefix: of the body's modules in ``scopes``.

    Raises:
        PrecisionError: a layer is float32 and ``plan`` does not say so.
    """
    types = tensor_types(model)
    layers = [
        node for node in model.graph.node if node.op_type in _CHECKED and types[node.input[0]] == onnx.TensorProto.FLOAT
    ]
    for node in layers:
        module = scopes.get(node.name, "").removeprefix(prefix)
        if not plan.covers(module):
            raise PrecisionError(
                f"{node.op_type} {node.name} of {module or 'no known module'} came out as float32, although it fits "
                "into FP16. Export without --fp16"
            )
    return tuple(node.name for node in layers)


def _entering(dtype: torch.dtype) -> Callable[[nn.Module, Any], Any]:
    """A hook that takes a module's arguments to ``dtype``."""
    return lambda _, arguments: _changed(arguments, lambda value: value.to(dtype))


def _leaving(narrowed: Collection[int]) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that takes a module's results at the positions ``narrowed`` to FP16."""

    def narrow(_: nn.Module, __: Any, results: Any) -> Any:
        position = itertools.count()
        return _changed(results, lambda value: value.half() if next(position) in narrowed else value)

    return narrow


def _changed(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``values`` with every activation in it changed, in order."""
    if type(values) in (list, tuple):
        return type(values)(_changed(value, change) for value in values)
    return change(values) if is_activation(values) else values
