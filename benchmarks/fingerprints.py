"""What a committed result was measured on, so that a test can name the results that today's code would change.

A result of ``benchmarks/results`` records the fingerprints of its subjects: the structure of exported graphs, networks,
losses, the kernels' source, settings, weights. What does not reach a measured number (names, comments) is
not part of them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gfl_edge import optional
from gfl_edge.errors import InputError
from gfl_edge.files import sha256
from gfl_edge.zoo.bundled import bundled_model
from train.weights.find import CHECKPOINTS, data_folder

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, TensorProto

    from gfl_edge.spec import ExportedNms, Precision
    from train.models.detector import Detector
    from train.models.traits import Family

Fingerprint: TypeAlias = str | dict[str, float]
Export: TypeAlias = "Callable[[Family, Precision, ExportedNms], ModelProto]"

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = {
    "kernels of NMS": ("common", "boxes", "candidates", "rank", "nms"),
    "kernel of resizing": ("common", "resize"),
}  # plugins/src/gfl_*.cuh
# The networks whose exported graphs are compared, small and with random weights: by precision and place of NMS
GRAPHS: dict[Family, tuple[tuple[Precision, ExportedNms], ...]] = {
    "nanodet": (("fp32", "none"),),
    "nanodet-g": (("fp32", "none"),),
    "nanodet-t": (("fp32", "none"),),
    "nanodet-efficientlite": (("fp32", "none"),),
    "nanodet-repvgg": (("fp32", "none"),),
    "nanodet-plus": (("fp32", "graph"), ("fp32", "none"), ("fp16", "graph")),
    "gfl": (("fp32", "none"),),
}
TRAINED: tuple[Family, ...] = ("nanodet", "gfl", "sapd")  # what results of training train
LOSS_TOLERANCE = 1e-3  # relative: PyTorch's kernels differ by processor
DIGITS = 16  # of a digest


def subjects(export: Export | None = None) -> dict[str, Callable[[], Fingerprint | None]]:
    """How to take each fingerprint that there is, by subject. One that gives None has no data here.

    Args:
        export: for models that :func:`export_small` exported before.
    """
    export = export or export_small
    found: dict[str, Callable[[], Fingerprint | None]] = {
        "bundled model": lambda: sha256(bundled_model())[:DIGITS],
        "groups of engines": groups,
        "identities of a clip": identities,
    }
    for name in SOURCES:
        found[name] = functools.partial(kernels, name)
    for family in GRAPHS:
        found[f"graph of {family}"] = functools.partial(graph, family, export)
    for family in TRAINED:
        found[f"losses of {family}"] = functools.partial(losses, family)
    for name in CHECKPOINTS:
        found[f"weights of {name}"] = functools.partial(weights, name)
    for path in sorted((CHECKOUT / "train/configs").rglob("*.toml")):
        found[f"settings {path.stem}"] = functools.partial(settings, path)
    return found


def take(names: Iterable[str]) -> dict[str, Fingerprint]:
    """The fingerprints of the subjects of those names, as a result records them.

    Raises:
        InputError: the data of one of them is missing.
    """
    known = subjects()
    taken = {name: known[name]() for name in names}
    if missing := [name for name, found in taken.items() if found is None]:
        raise InputError(f"there is nothing to take the fingerprint from: {', '.join(missing)} in {data_folder()}")
    return {name: found for name, found in taken.items() if found is not None}


def stale(recorded: Mapping[str, Fingerprint], export: Export | None = None) -> list[str]:
    """The subjects that are no longer what they were when these fingerprints were taken, or that are gone."""
    known = subjects(export)
    return [name for name, before in recorded.items() if name not in known or not _same(before, known[name]())]


def commit() -> str:
    """The commit that is checked out, with "+" if tracked files differ from it; "unknown" outside of a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _same(before: Fingerprint, now: Fingerprint | None) -> bool:
    if now is None:  # no data here
        return True
    if isinstance(before, dict) and isinstance(now, dict):
        close = functools.partial(math.isclose, rel_tol=LOSS_TOLERANCE)
        return before.keys() == now.keys() and all(close(before[name], now[name]) for name in before)
    return before == now


def weights(name: str) -> str | None:
    """Of a published model's checkpoint."""
    path = data_folder() / CHECKPOINTS[name]
    return sha256(path)[:DIGITS] if path.is_file() else None


def settings(path: Path) -> str:
    """Of what a TOML file says, whatever its layout and comments, and wherever its weights and images lie."""
    from train.settings import read_toml

    read = read_toml(path)
    for table, place in (("model", "weights"), ("data", "root")):
        read.get(table, {}).pop(place, None)
    return _digest([json.dumps(read, sort_keys=True)])


def kernels(name: str) -> str:
    """Of some kernels' source, see :data:`SOURCES`, without comments and white space."""
    return _digest(_code((CHECKOUT / f"plugins/src/gfl_{part}.cuh").read_text()) for part in SOURCES[name])


def _code(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL))


def groups() -> str:
    """Of how wide the groups of convolutions become in engines for a GPU before Ampere and one since."""
    from gfl_edge.engine.groups import Groups, best_joint, padded_to

    kinds = [(target, half, int8) for target in ("sm75", "sm86") for half in (False, True) for int8 in (False, True)]
    widths = [Groups(count, inputs, inputs) for count in (24, 32, 58, 96, 116, 232) for inputs in (1, 4, 8)]
    return _digest(str(best_joint(it, [padded_to(*kind)])) for it in widths for kind in kinds)


def identities() -> str | None:
    """Of whom is who in a short clip, with sigmas and without."""
    if not optional.available("norfair"):
        return None
    from benchmarks.tracking.tracking import short_tracks

    return _digest(map(str, short_tracks()))


@functools.cache
def losses(family: Family) -> dict[str, float]:
    """What the objective of a family says of random maps, two objects and none, float32."""
    import torch

    from train.objective.criterion import CONFIGS, Criterion
    from train.objective.sapd import SapdConfig, SoftAnchorPoints
    from train.structures import Outputs, Target

    criterion: Criterion | SoftAnchorPoints
    if family == "sapd":
        criterion, edges = SoftAnchorPoints(SapdConfig(num_classes=3)), 4
    else:
        config = dataclasses.replace(CONFIGS[family], num_classes=3)
        criterion, edges = Criterion(config), 4 * (config.reg_max + 1)
    strides = criterion.config.strides
    side = 4 * strides[-1]
    generator = torch.Generator().manual_seed(0)
    maps = [
        [
            torch.randn((2, channels, side // stride, side // stride), generator=generator, dtype=torch.float64).float()
            for stride in strides
        ]
        for channels in (3, edges)
    ]
    if family == "sapd":
        maps[1] = [distances.abs() for distances in maps[1]]
    boxes = side * torch.tensor([[0.1, 0.2, 0.5, 0.7], [0.45, 0.4, 0.95, 0.9]])
    targets = [Target(boxes, torch.tensor([0, 2])), Target(boxes[:0], torch.zeros(0, dtype=torch.long))]
    found = criterion(Outputs(maps[0], maps[1]), targets, (side, side))
    return {name: float(f"{value.item():.6g}") for name, value in found.items()}


def graph(family: Family, export: Export) -> str:
    """Of the structure of a small network of that family as it is exported, see ``GRAPHS``."""
    return _digest(structure(export(family, precision, nms)) for precision, nms in GRAPHS[family])


@functools.cache
def export_small(family: Family, precision: Precision, nms: ExportedNms) -> ModelProto:
    """A small network of a family with random weights and 3 classes, exported at 64x96 pixels."""
    import torch

    from export.graph import build_graph
    from train import describe
    from train.models.gfl import GFL, GFLConfig
    from train.models.nanodet import PUBLISHED, NanoDet

    torch.manual_seed(0)
    detector: Detector
    if family == "gfl":
        stages = (False, False, False, True)
        config = GFLConfig(
            num_classes=3, base_channels=8, neck_channels=32, stacked_convs=1, dcn="v2", dcn_stages=stages
        )
        detector = GFL(dataclasses.replace(config, head_channels=32))
    else:
        published = PUBLISHED[family]
        small = dataclasses.replace(published, num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
        if published.attention_hw is not None:
            small = dataclasses.replace(small, attention_hw=(4, 6))
        detector = NanoDet(small)
    spec = describe.describe(detector.eval(), input_hw=(64, 96), class_names=("a", "b", "c"))
    return build_graph(detector, dataclasses.replace(spec, precision=precision, nms=nms))


def structure(model: ModelProto) -> str:
    """Of a model's operators, their attributes and connections and the shapes and types of its constants.

    Neither names nor the values of real constants count, nor does the order of nodes that do not need one another.
    """
    opsets = sorted((entry.domain, entry.version) for entry in model.opset_import)
    functions = sorted(_function_lines(function) for function in model.functions)
    return _digest(map(str, (opsets, functions, *_graph_lines(model.graph, {}))))


def _function_lines(function: FunctionProto) -> list[str]:
    values = {name: f"input {i}" for i, name in enumerate(function.input)}
    return [function.domain, function.name, *_node_lines(function.node, values, function.output)]


def _graph_lines(graph: GraphProto, outer: Mapping[str, str]) -> Iterator[str]:
    values = dict(outer)
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    values.update(constants)
    inputs = [value for value in graph.input if value.name not in constants]
    for i, value in enumerate(inputs):
        values[value.name] = f"input {i} {_digest([value.type.SerializeToString(deterministic=True).hex()])}"
        yield values[value.name]
    yield from _node_lines(graph.node, values, [value.name for value in graph.output])


def _node_lines(nodes: Iterable[Any], values: dict[str, str], outputs: Iterable[str]) -> Iterator[str]:
    """A line for each output, which stands for all that it is computed from."""
    for node in nodes:
        said = [node.domain, node.op_type, *(values[name] if name else "" for name in node.input)]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        line = _digest([*said, *(_attribute(attribute, values) for attribute in attributes)])
        values.update({name: f"{line} {i}" for i, name in enumerate(node.output)})
    yield from (values[name] for name in outputs)


def _attribute(attribute: AttributeProto, values: Mapping[str, str]) -> str:
    if attribute.HasField("g"):
        return f"{attribute.name} {_digest(_graph_lines(attribute.g, values))}"
    if attribute.HasField("t"):
        return f"{attribute.name} {_constant(attribute.t)}"
    return attribute.SerializeToString(deterministic=True).hex()


def _constant(tensor: TensorProto) -> str:
    """Its type and shape; of integers, which are sizes and axes, the values too."""
    import numpy as np
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    integers = np.issubdtype(array.dtype, np.integer) and array.size <= 64
    return f"{array.dtype} {array.shape} {array.tolist() if integers else ''}"


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGITS]
