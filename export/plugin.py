"""Class-wise NMS as the node ``gfl_edge::GflNms`` of TensorRT's plugin, which has no body in the file.

The plugin (plugins/tensorrt) takes the raw maps and decodes only the survivors; its node runs in full TensorRT only.
NMS as a function of plain operations is in :mod:`gfl_edge.ops.nms_graph`.
"""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, helper

from gfl_edge.cuda.kernels import LOGITS, MAX_CANDIDATES, MAX_LEVELS
from gfl_edge.engine import plugin
from gfl_edge.errors import InputError
from gfl_edge.ops.nms_graph import declare_detections
from gfl_edge.ops.onnx_limits import DOMAIN, NMS_OP
from gfl_edge.spec import RAW_NAMES, ModelSpec


def append_plugin(model: ModelProto, spec: ModelSpec) -> ModelProto:
    """Add TensorRT's plugin GflNms after the outputs of ``RAW_NAMES`` of ``model``, in place.

    The new outputs are those of :func:`gfl_edge.ops.nms_graph.append_nms`.

    Raises:
        InputError: the size of the input is dynamic, or beyond what the kernels take.
    """
    model.graph.node.append(
        helper.make_node(NMS_OP, RAW_NAMES, spec.detection_names, name=NMS_OP, domain=DOMAIN, **plugin_attributes(spec))
    )
    declare_detections(model, spec, spec.max_detections)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def plugin_attributes(spec: ModelSpec) -> dict[str, Any]:
    """The node's attributes, which TensorRT's parser hands to the plugin as its fields (plugins/tensorrt/README.md).

    Raises:
        InputError: see :func:`append_plugin`.
    """
    if spec.short_long is not None:
        raise InputError(
            "--nms plugin with --dynamic: the plugin clips boxes to an input of fixed size, which is one of its "
            "attributes. Leave one of them out, or take --nms graph"
        )
    if spec.max_candidates > MAX_CANDIDATES or len(spec.strides) > MAX_LEVELS:
        raise InputError(
            f"{spec.max_candidates} candidates of {len(spec.strides)} levels: the plugin takes {MAX_CANDIDATES} of "
            f"{MAX_LEVELS} at most. Take --nms graph"
        )
    height, width = spec.input_hw
    return {
        "plugin_version": plugin.VERSION,
        "plugin_namespace": plugin.NAMESPACE,
        "score_kind": LOGITS,
        "score_threshold": float(spec.score_threshold),
        "iou_threshold": float(spec.iou_threshold),
        "max_candidates": spec.max_candidates,
        "max_detections": spec.max_detections,
        "class_agnostic": 0,
        "per_level": 0,
        "input_height": height,
        "input_width": width,
        "has_quality": 0,
        "reg_max": spec.reg_max,
        "point_offset": float(spec.point_offset),
        "strides": list(spec.strides),
        **({"edge_sigma": 1} if spec.edge_sigma else {}),
    }
