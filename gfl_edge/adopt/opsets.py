"""Bringing a graph to a newer opset of ONNX."""

from __future__ import annotations

from typing import Any

from gfl_edge import optional
from gfl_edge.errors import ModelFileError

COUNTED_SPLITS = 18  # opset from which on a Split says the number of its parts, unless their sizes are given


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators; 0: the model names none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def at_opset(model: Any, wanted: int, origin: str) -> Any:
    """The model at opset ``wanted``, or as it is where its own is newer.

    Raises:
        ModelFileError: onnx cannot bring it to that opset.
    """
    found = opset_of(model)
    if found >= wanted:
        return model
    for entry in [entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx")]:
        model.opset_import.remove(entry)  # nothing of it is in the model
    try:
        converted = optional.load("onnx.version_converter").convert_version(model, wanted)
    except Exception as error:  # its exception types are many
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{origin} is of opset {found}, which onnx cannot bring to {wanted} ({reason}). Export it with opset "
            f"{wanted}"
        ) from error
    if wanted >= COUNTED_SPLITS:
        _count_splits(converted)
    return converted


def _count_splits(model: Any) -> None:
    """Have every Split into equal parts say how many, in place, which old versions of onnx leave out."""
    for node in model.graph.node:
        if node.op_type == "Split" and len(node.input) == 1 and all(a.name != "num_outputs" for a in node.attribute):
            node.attribute.append(optional.load("onnx.helper").make_attribute("num_outputs", len(node.output)))
