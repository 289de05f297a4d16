"""Whether what goes into an ONNX model and comes out of it is what its description says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gfl_edge import optional
from gfl_edge.ops.onnx_limits import LimitError

if TYPE_CHECKING:
    from gfl_edge.spec import ModelSpec

Sides = tuple[int | None, ...]  # of a tensor; None where it may have any


def check_ports(model: Any, graph: Any, spec: ModelSpec, input_name: str) -> None:
    """Refuse another input or other outputs.

    Args:
        model: ``onnx.ModelProto``.
        graph: the same with types and shapes, of :func:`gfl_edge.ops.onnx_limits.check_limits`. What could not be
            inferred is let pass, as the outputs of TensorRT's plugin.
        spec: the model's description.
        input_name: the input that every model has.

    Raises:
        LimitError: it has.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in weights]
    if names != [input_name]:
        listed = ", ".join(repr(name[:40]) for name in names[:5]) or "none"
        raise LimitError(f"has other inputs ({listed}) than {input_name!r}")
    (images,) = (value for value in graph.input if value.name == input_name)
    check_tensor(images, ("UINT8",), (None, *((None, None) if spec.short_long else spec.input_hw), 3))
    outputs = {value.name: value for value in graph.output}
    for name, (kinds, shape) in output_shapes(spec).items():
        if name not in outputs:
            raise LimitError(f"has no output {name!r}, which its description says that it has (nms {spec.nms})")
        check_tensor(outputs[name], kinds, shape)


def output_shapes(spec: ModelSpec) -> dict[str, tuple[tuple[str, ...], Sides]]:
    """Element types of each output, any of them, and its shape; the first side is the batch."""
    anchors = None if spec.short_long else spec.num_anchors
    floats, rows = ("FLOAT", "FLOAT16"), (None, None)  # a small input has fewer rows than max_detections
    if spec.has_nms:
        sigmas: dict[str, tuple[tuple[str, ...], Sides]] = {"det_sigmas": (("FLOAT",), (*rows, 4))}
        return {
            "num_dets": (("INT32",), (None, 1)),
            "det_boxes": (("FLOAT",), (*rows, 4)),
            "det_scores": (("FLOAT",), rows),
            "det_classes": (("INT32",), rows),
            **(sigmas if spec.edge_sigma else {}),
        }
    if spec.nms == "raw":
        widths = {"cls_logits": spec.num_classes, "reg_logits": 4 * (spec.reg_max + 1)}
    else:
        widths = {"scores": spec.num_classes, "boxes": 4, **({"sigmas": 4} if spec.edge_sigma else {})}
    return {name: (floats, (None, anchors, width)) for name, width in widths.items()}


def check_tensor(value: Any, kinds: tuple[str, ...], shape: Sides) -> None:
    """Raise LimitError where the type or shape of a tensor is known and another one."""
    proto, tensor = optional.load("onnx").TensorProto, value.type.tensor_type
    kind = proto.DataType.Name(tensor.elem_type) if tensor.elem_type in proto.DataType.values() else "?"
    found = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    known_kind, known_shape = tensor.elem_type != 0, tensor.HasField("shape")
    if (known_kind and kind not in kinds) or (known_shape and not _fits(found, shape)):
        given = _text(kind if known_kind else "?", found)
        raise LimitError(f"has {value.name} of {given}, its description says {_text(kinds[0], shape)}")


def _fits(found: list[int | None], expected: Sides) -> bool:
    return len(found) == len(expected) and all(
        a is None or b is None or a == b for a, b in zip(found, expected, strict=True)
    )


def _text(kind: str, shape: Sides | list[int | None]) -> str:
    return f"{kind.lower()} [{', '.join('any' if side is None else str(side) for side in shape)}]"
