"""The network of a foreign detector, from its input to the maps: cut out, of a recent opset, for batches if it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gfl_edge import optional
from gfl_edge.adopt.dry_run import Arrays, runner
from gfl_edge.adopt.foreign import Foreign, ancestors, part_of
from gfl_edge.adopt.opsets import at_opset
from gfl_edge.adopt.recognize import Head, normalized_noise
from gfl_edge.errors import ModelFileError
from gfl_edge.ops.nms_graph import OPSET
from gfl_edge.ops.onnx_graph import OnnxGraph, copy_model, remove_unused

PREFIX = "body."  # of the network's tensors and nodes, which keep their names after it
BATCH_TOLERANCE = 1e-3  # of the largest magnitude, between images in a batch and one by one


def cut_body(foreign: Foreign, head: Head) -> Any:
    """The nodes before the maps as a model of opset ``OPSET`` or newer.

    Its input is the foreign one, its outputs are the maps; all names begin with ``PREFIX``.

    Raises:
        ModelFileError: onnx cannot bring it to that opset.
    """
    maps = tensors_of(head)
    body = part_of(foreign.model, ancestors(OnnxGraph(foreign.model), maps), [foreign.image], maps)
    _inline_identities(body)
    _resize_by_one(body)
    _name_nodes(body)
    inferred = optional.load("onnx.shape_inference").infer_shapes(foreign.model).graph
    types = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    for value in body.graph.output:
        if value.name in types:
            value.CopyFrom(types[value.name])
    body = at_opset(body, OPSET, foreign.origin)
    _name_nodes(body)
    remove_unused(body)  # the converter leaves copies behind
    del body.graph.value_info[:]
    del body.metadata_props[:]
    return optional.load("onnx.compose").add_prefix(body, PREFIX)


def tensors_of(head: Head) -> list[str]:
    """The maps of a head, each once."""
    pieces = (piece for level in head.levels for piece in (level.scores, level.distributions))
    return list(dict.fromkeys(piece.tensor for piece in pieces))


def _inline_identities(model: Any) -> None:
    """Read weights where an Identity gives them under another name, as PyTorch writes shared ones, in place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(type(node).FromString(node.SerializeToString()))
    if renamed:
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _resize_by_one(model: Any) -> None:
    """Leave every Resize its sizes or its scales, in place: before opset 13 the other one was an empty tensor."""
    empty = {tensor.name for tensor in model.graph.initializer if 0 in tensor.dims}
    for node in (node for node in model.graph.node if node.op_type == "Resize" and len(node.input) == 4):
        node.input[3 if node.input[3] in empty else 2] = ""  # an empty scale may have become a Cast of one


def _name_nodes(model: Any) -> None:
    """Give every node a name of its own, in place: layers are known by it."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
        node.doc_string = ""
        del node.metadata_props[:]


def open_batch(body: Any, foreign: Foreign) -> bool:
    """Make the body take batches, in place, if it then computes of each image what it computes of it alone.

    Exporters write a batch of 1 into the shapes of reshapes; these are opened.

    Returns:
        Whether it does; else the body is as it was.
    """
    images = [normalized_noise(foreign, seed) for seed in (1, 2)]
    outputs = [value.name for value in body.graph.output]
    changed = copy_model(body)
    _open_reshapes(changed)
    value = changed.graph.input[0]
    value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for output in changed.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        alone = [runner(body, outputs, foreign.origin)({value.name: image}) for image in images]
        together = runner(changed, outputs, foreign.origin)({value.name: np.concatenate(images)})
    except ModelFileError:
        return False
    if not all(_same(alone, together, name) for name in outputs):
        return False
    remove_unused(changed)
    body.CopyFrom(changed)
    return True


def _same(alone: Sequence[Arrays], together: Arrays, name: str) -> bool:
    expected, found = np.concatenate([arrays[name] for arrays in alone]), together[name]
    limit = BATCH_TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0)))
    return expected.shape == found.shape and bool(np.abs(expected - found).max(initial=0) <= limit)


def _open_reshapes(body: Any) -> None:
    """Have reshapes whose shape begins with a constant 1 keep the first side as it is, in place."""
    helper, numpy_helper = optional.load("onnx.helper"), optional.load("onnx.numpy_helper")
    constants = {tensor.name: tensor for tensor in body.graph.initializer}
    for node in body.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]])
        keeps_zeros = any(a.name == "allowzero" and helper.get_attribute_value(a) for a in node.attribute)
        if shape.ndim == 1 and shape.size > 1 and shape[0] == 1 and not keeps_zeros:
            opened = f"{node.input[1]}_of_{node.output[0]}"
            values = np.array([0, *shape[1:].tolist()], np.int64)
            body.graph.initializer.append(numpy_helper.from_array(values, opened))
            node.input[1] = opened
