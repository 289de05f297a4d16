"""The input that DeepStream's nvinfer can feed: float planes instead of bytes of pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gfl_edge import optional
from gfl_edge.errors import InputError, ModelFileError
from gfl_edge.ops.onnx_graph import OnnxGraph, copy_model, fixed_batch
from gfl_edge.spec import CANDIDATE_NAMES, DETECTION_NAMES, INPUT_NAME, SIZE_STEP, ModelSpec, set_spec

PIXELS = "images_pixels"  # float32 [N, H, W, 3], what the graph took as bytes


def planar(model: Any, spec: ModelSpec, input_hw: tuple[int, int] | None = None) -> tuple[Any, ModelSpec]:
    """A copy that takes float32 ``[N, 3, H, W]`` BGR gray levels of 0..255 as ``images`` and computes the same.

    Normalization stays in the graph: nvinfer knows one factor for all channels, our models one for each. The NMS
    function is put in its place, and sigmas, for which DeepStream has no room, are not among the outputs.

    Args:
        model: ``onnx.ModelProto`` of the contract in :mod:`gfl_edge.spec`; it is not changed.
        spec: its description.
        input_hw: height and width in pixels, of a model of dynamic size; None: the one that it is fastest at.

    Returns:
        The copy, with a description of a fixed size, and that description. It is no model for gfl_edge.

    Raises:
        InputError: a size that the model does not take; see also :func:`check_size`.
        ModelFileError: ``images`` is read by something else than a Cast, as no exported model's is.
    """
    spec = replace(spec, input_hw=check_size(spec, input_hw), short_long=None)
    model = optional.load("onnx.inliner").inline_local_functions(copy_model(model))
    _put_planes(model, spec)
    _fix_outputs(model, spec)
    set_spec(model, spec)
    optional.load("onnx.checker").check_model(model, full_check=True)
    return model, spec


def check_size(spec: ModelSpec, input_hw: tuple[int, int] | None) -> tuple[int, int]:
    """The fixed height and width of the input; raises InputError where the model does not take ``input_hw``."""
    if input_hw is None or input_hw == spec.input_hw:
        return spec.input_hw
    if spec.short_long is None:
        found = "{} x {}".format(*input_hw)
        raise InputError(f"size {found}: this model takes {spec.input_hw[0]} x {spec.input_hw[1]} only")
    low, high = spec.size_range
    if any(side % SIZE_STEP or not low[0] <= side <= high[0] for side in input_hw):  # height and width have one range
        raise InputError(
            f"size {input_hw[0]} x {input_hw[1]}: expected multiples of {SIZE_STEP} from {low[0]} to {high[0]}"
        )
    return input_hw


def _put_planes(model: Any, spec: ModelSpec) -> None:
    """Transposed planes in the place of the cast bytes, in place."""
    batch = fixed_batch(model) or "batch"
    helper, proto = optional.load("onnx.helper"), optional.load("onnx").TensorProto
    readers = OnnxGraph(model).readers.get(INPUT_NAME, [])
    if not readers or any(node.op_type != "Cast" for node in readers):
        found = ", ".join(node.op_type for node in readers) or "nothing"
        raise ModelFileError(f"the model reads {INPUT_NAME} by {found}, expected Cast. Export it again")
    for node in readers:
        node.input[0] = PIXELS
    planes = helper.make_node("Transpose", [INPUT_NAME], [PIXELS], name=PIXELS, perm=[0, 2, 3, 1])
    model.graph.node.insert(0, planes)
    (images,) = (value for value in model.graph.input if value.name == INPUT_NAME)
    images.CopyFrom(helper.make_tensor_value_info(INPUT_NAME, proto.FLOAT, [batch, 3, *spec.input_hw]))


def _fix_outputs(model: Any, spec: ModelSpec) -> None:
    """No sigmas, and sizes that follow from the input's, in place."""
    outputs = {value.name: value for value in model.graph.output}
    for name in outputs.keys() - {*DETECTION_NAMES, *CANDIDATE_NAMES}:
        model.graph.output.remove(outputs.pop(name))
    if not spec.has_nms:
        for value in outputs.values():
            value.type.tensor_type.shape.dim[1].dim_value = spec.num_anchors
    del model.graph.value_info[:]  # of other sizes
