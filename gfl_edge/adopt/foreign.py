"""Reading an ONNX file of somebody else, and what of it computes from one image by operators that are known.

Post-processing that this project does itself, such as NMS, may consist of any operators, and take further inputs, such
as a scale factor. It is left out here, so that nothing of it has to be understood or run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gfl_edge import optional
from gfl_edge.adopt.beside import take_in_weights
from gfl_edge.adopt.dry_run import noise, runner
from gfl_edge.adopt.opsets import at_opset, opset_of
from gfl_edge.adopt.trace import CONVOLUTIONS, before_convolutions
from gfl_edge.errors import GflEdgeError, InputError, ModelFileError
from gfl_edge.files import read_regular
from gfl_edge.ops import no_onnx
from gfl_edge.ops.onnx_graph import OnnxGraph, copy_model
from gfl_edge.ops.onnx_limits import (
    MAX_NODES,
    MAX_ONNX_BYTES,
    MIN_OPSET,
    OPERATORS,
    LimitError,
    check_limits,
    check_nodes,
    check_text,
)
from gfl_edge.parsing.fields import MAX_SIDE
from gfl_edge.parsing.validation import repeated, shown
from gfl_edge.spec import PREFIX
from gfl_edge.terminal.printable import word

Layout = Literal["nchw", "nhwc"]
MIN_IR_VERSION = 4  # before, initializers had to be inputs as well
MIN_SIDE = 32
SELECTING = ("TopK", "GatherElements")  # before an NMS; in a network only GFLv2 has them, with convolutions after
OLD_OPSETS = range(7, MIN_OPSET)  # which ONNX Runtime can run, and nothing else here
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger")
EXPECTED = (
    "Expected a NanoDet, NanoDet-Plus, PicoDet or GFL detector: class scores and the raw distributions of four edges, "
    "4 * (reg_max + 1) channels, on each of several levels"
)
INPUT_TYPES = ("FLOAT", "FLOAT16", "UINT8")


@dataclass(frozen=True)
class Foreign:
    """The part of a foreign model that computes from one image of fixed size, by known operators.

    Attributes:
        origin: the file, for messages.
        model: ``onnx.ModelProto``; its outputs are those of the file that it computes, and what was cut off read.
        image: name of the input.
        layout: of the input, NCHW or NHWC.
        dtype: of the input, "FLOAT", "FLOAT16" or "UINT8".
        input_hw: (height, width) in pixels.
        cut_off: operators of what was left out, such as NonMaxSuppression.
        producer: who made the file, as it says.
    """

    origin: str
    model: Any
    image: str
    layout: Layout
    dtype: str
    input_hw: tuple[int, int]
    cut_off: tuple[str, ...]
    producer: str


def read_foreign(path: Path, input_hw: tuple[int, int] | None = None) -> Foreign:
    """Read a file.

    Args:
        path: of the ONNX file.
        input_hw: (height, width) in pixels, where the file leaves it open.

    Raises:
        ModelFileError: missing or unreadable, beyond the limits of :mod:`gfl_edge.ops.onnx_limits`, or it takes no
            images.
        InputError: a model of gfl_edge; an input of open size without ``input_hw``, or of another size.
        MissingDependencyError: the onnx package is not installed.
    """
    model = _parsed(path)
    if any(prop.key.startswith(PREFIX) for prop in model.metadata_props):
        raise InputError(
            f"{path} is a model of gfl_edge already. Run it with: gfl-edge detect --model {word(path)} IMAGES"
        )
    if any("ultralytics" in prop.value.lower() for prop in model.metadata_props):
        raise ModelFileError(f"{path} is a YOLO of Ultralytics, as it says. {EXPECTED}")
    if not model.graph.node or not model.graph.output:
        raise ModelFileError(f"{path} has no nodes or no outputs. Expected the ONNX file of a detector")
    model = _plain(model, path)
    image, layout, dtype, size = _image_input(model, path)
    foreign = Foreign(str(path), model, image, layout, dtype, _settled(size, input_hw, path), (), _producer(model))
    foreign = _without_post_processing(foreign)
    if not foreign.model.graph.output:
        raise ModelFileError(
            f"{path} computes nothing from its image without {', '.join(foreign.cut_off[:5])}, which no detector of "
            f"these families has. {EXPECTED}"
        )
    if any(node.op_type in QUANTIZED for node in foreign.model.graph.node):
        raise ModelFileError(
            f"{path} is INT8 already. Adopt the float file that it was made from, and calibrate that: docs/int8.md"
        )
    _fix_size(foreign)
    try:
        check_nodes(foreign.model)
        optional.load("onnx.checker").check_model(_typed(foreign.model))
        model = _renewed(foreign) if opset_of(foreign.model) in OLD_OPSETS else foreign.model
        check_limits(model)
    except GflEdgeError:
        raise
    except LimitError as error:
        raise ModelFileError(f"{path}: the model {error}") from error
    except Exception as error:  # onnx raises many types
        raise ModelFileError(f"{path} is not a valid ONNX model ({_reason(error)}). Export or copy it again") from error
    if model is not foreign.model:  # not run before it is within the limits
        _compare(foreign, model)
    return replace(foreign, model=model)


def _parsed(path: Path) -> Any:
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file. Expected the ONNX file of a detector")
    onnx = optional.load("onnx")
    try:
        content = read_regular(path, MAX_ONNX_BYTES)
    except MemoryError as error:
        raise ModelFileError(f"{path}: there is not enough memory to read it") from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}). Check path and permissions") from error
    if (other := no_onnx.recognize(content)) is not None:
        raise ModelFileError(f"{path} is {other}")
    try:
        model = onnx.load_model_from_string(content)
    except MemoryError as error:
        raise ModelFileError(f"{path}: there is not enough memory to read it") from error
    except Exception as error:  # protobuf raises many types
        hint = "Convert Paddle's models with paddle2onnx" if path.suffix == ".pdmodel" else "Copy it again"
        raise ModelFileError(f"{path} is not a readable ONNX model ({_reason(error)}). {hint}") from error
    if len(model.graph.node) + sum(len(function.node) for function in model.functions) > MAX_NODES:
        raise ModelFileError(f"{path} has more than {MAX_NODES} nodes, which no detector of these families has")
    try:
        check_text(model)
    except LimitError as error:
        raise ModelFileError(f"{path}: the model {error}. Copy it again") from error
    take_in_weights(model, path)
    return model


def _plain(model: Any, path: Path) -> Any:
    """The model without functions, without initializers among its inputs, constants being initializers."""
    if model.functions:
        try:
            check_nodes(model)  # inlining takes for ever where functions call functions
            model = optional.load("onnx.inliner").inline_local_functions(model)
        except Exception as error:
            raise ModelFileError(f"{path}: its functions cannot be put in place ({_reason(error)})") from error
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in weights]:
        graph.input.remove(value)
    for node in [node for node in graph.node if node.op_type == "Constant" and len(node.output) == 1]:
        for attribute in node.attribute:
            tensor = _constant(attribute)
            if tensor is not None:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                graph.node.remove(node)
                break
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    return model


def _constant(attribute: Any) -> Any:
    """The tensor that an attribute of a Constant is; None for text and sparse tensors."""
    if attribute.name == "value" and attribute.HasField("t"):
        return type(attribute.t).FromString(attribute.t.SerializeToString())
    dtype_of = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in dtype_of:
        return None
    found = optional.load("onnx.helper").get_attribute_value(attribute)
    return optional.load("onnx.numpy_helper").from_array(np.asarray(found, dtype_of[attribute.name]))


def _image_input(model: Any, path: Path) -> tuple[str, Layout, str, tuple[int | None, int | None]]:
    """Name, layout, type and size of the input that takes the image; None where a side is open."""
    proto = optional.load("onnx").TensorProto
    found: list[tuple[str, Layout, str, tuple[int | None, int | None]]] = []
    described = []
    for value in model.graph.input:
        tensor = value.type.tensor_type
        sides = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
        kind = proto.DataType.Name(tensor.elem_type) if tensor.elem_type in proto.DataType.values() else "?"
        described.append(f"{value.name[:40]!r} {kind.lower()} {[side or 'any' for side in sides]}")
        if len(sides) != 4 or kind not in INPUT_TYPES or sides[0] not in (None, 1):
            continue
        if sides[1] == 3:
            found.append((value.name, "nchw", kind, (sides[2], sides[3])))
        elif sides[3] == 3:
            found.append((value.name, "nhwc", kind, (sides[1], sides[2])))
        elif sides[1] is None and sides[3] is None:  # every side is open: exporters of detectors write NCHW
            found.append((value.name, "nchw", kind, (sides[2], None)))
    if len(found) != 1:
        listed = ", ".join(described[:5]) or "none"
        raise ModelFileError(
            f"{path} has the inputs {listed}: expected one image, float [1, 3, H, W] or [1, H, W, 3]. "
            "Export it with a batch of one, or one that is open"
        )
    if (twice := repeated([value.name for value in model.graph.input])) is not None:
        raise ModelFileError(f"{path} has the input {shown(twice)} twice, so the file is damaged. Copy it again")
    return found[0]


def _settled(size: tuple[int | None, int | None], given: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    height, width = (side or (given or (None, None))[axis] for axis, side in enumerate(size))
    if height is None or width is None:
        raise InputError(
            f"{path} takes images of any size. Say at which one it is to run, as it was trained: --input-size H W"
        )
    if given is not None and (height, width) != given:
        raise InputError(
            f"{path} takes images of {height} x {width} pixels, {given[0]} x {given[1]} requested (height x width). "
            "Leave out --input-size, give the --config that it was trained with, or export the model for that size"
        )
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width)):
        raise ModelFileError(f"{path} takes images of {height} x {width} pixels: expected {MIN_SIDE} to {MAX_SIDE}")
    return height, width


def _without_post_processing(foreign: Foreign) -> Foreign:
    """Keep the nodes of known operators that depend on the image and on no other input."""
    graph = foreign.model.graph
    known = {foreign.image, "", *(tensor.name for tensor in graph.initializer)}
    inner = before_convolutions(graph.node)
    kept, left_out = [], []
    for node in graph.node:
        selects = node.op_type in SELECTING and inner.isdisjoint(node.output)
        plain = node.domain in ("", "ai.onnx") and node.op_type in OPERATORS and not selects
        if plain and not any(a.HasField("g") or a.graphs for a in node.attribute) and known.issuperset(node.input):
            kept.append(node)
            known.update(node.output)
        else:
            left_out.append(node)
    lost = next((n for n in left_out if n.op_type in CONVOLUTIONS or not inner.isdisjoint(n.output)), None)
    if lost is not None:
        raise ModelFileError(
            f"{foreign.origin} has {lost.domain}{'::' if lost.domain else ''}{lost.op_type} within its network, or "
            f"another input there, which is not known here. Export it by ONNX's own operators. {EXPECTED}"
        )
    read = [name for node in left_out for name in node.input]
    made = {name for node in kept for name in node.output if name}
    ends = [name for name in dict.fromkeys([*(value.name for value in graph.output), *read]) if name in made]
    return replace(
        foreign,
        model=part_of(foreign.model, kept, [foreign.image], ends),
        cut_off=tuple(dict.fromkeys(str(node.op_type) for node in left_out)),
    )


def part_of(model: Any, nodes: Any, inputs: list[str], outputs: list[str]) -> Any:
    """A model of some of the nodes, with the initializers that they read; the outputs have no types."""
    part = type(model)(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = model.graph.name or "graph"
    part.graph.node.extend(nodes)
    used = {name for node in part.graph.node for name in node.input}
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
    part.graph.input.extend(value for value in model.graph.input if value.name in inputs)
    for name in outputs:
        part.graph.output.add().name = name
    return part


def ancestors(graph: OnnxGraph, names: list[str]) -> list[Any]:
    """The nodes that tensors are computed by, in topological order."""
    wanted, seen = list(names), set()
    while wanted:
        name = wanted.pop()
        node = graph.producers.get(name)
        if node is not None and node.output[0] not in seen:
            seen.add(node.output[0])
            wanted.extend(node.input)
    return [node for node in graph.nodes if node.output and node.output[0] in seen]


def _fix_size(foreign: Foreign) -> None:
    """Make the input of the model one image of the settled size, in place."""
    height, width = foreign.input_hw
    shape = (1, 3, height, width) if foreign.layout == "nchw" else (1, height, width, 3)
    (value,) = foreign.model.graph.input
    dtype = getattr(optional.load("onnx").TensorProto, foreign.dtype)
    value.CopyFrom(optional.load("onnx.helper").make_tensor_value_info(foreign.image, dtype, shape))


def _renewed(foreign: Foreign) -> Any:
    """The model at the oldest opset that is known here."""
    renewed = at_opset(_typed(foreign.model), MIN_OPSET, foreign.origin)
    make = optional.load("onnx.helper").make_attribute
    for node in (node for node in renewed.graph.node if node.op_type == "Resize"):  # as the older operators compute
        stated = [a for a in node.attribute if a.name not in ("coordinate_transformation_mode", "nearest_mode")]
        attributes = [*stated, make("coordinate_transformation_mode", "asymmetric"), make("nearest_mode", "floor")]
        copies = [type(a).FromString(a.SerializeToString()) for a in attributes]
        del node.attribute[:]
        node.attribute.extend(copies)
    for value in renewed.graph.output:
        value.ClearField("type")
    return renewed


def _compare(foreign: Foreign, renewed: Any) -> None:
    """Raise ModelFileError unless the model at another opset computes what it did."""
    names = [value.name for value in foreign.model.graph.output]
    height, width = foreign.input_hw
    shape = (1, 3, height, width) if foreign.layout == "nchw" else (1, height, width, 3)
    dtype = {"FLOAT": np.float32, "FLOAT16": np.float16, "UINT8": np.uint8}[foreign.dtype]
    image = {foreign.image: (noise(shape) / (1 if foreign.dtype == "UINT8" else 128)).astype(dtype)}
    before, after = (runner(model, names, foreign.origin)(image) for model in (foreign.model, renewed))
    for name in names:
        limit = 1e-3 * max(1.0, float(np.abs(before[name]).max(initial=0)))
        if before[name].shape != after[name].shape or not np.allclose(before[name], after[name], atol=limit):
            raise ModelFileError(
                f"{foreign.origin} is of opset {opset_of(foreign.model)}, and computes something else once onnx has "
                f"brought it to {MIN_OPSET}. Export it with opset {MIN_OPSET} or newer"
            )


def _typed(model: Any) -> Any:
    """A copy whose outputs have a type and a shape, any, which ONNX's checker asks for."""
    copy = copy_model(model)
    for value in copy.graph.output:
        value.type.tensor_type.elem_type = optional.load("onnx").TensorProto.FLOAT
        value.type.tensor_type.shape.Clear()
    return copy


def _producer(model: Any) -> str:
    return f"{model.producer_name} {model.producer_version}".strip()[:80]


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
