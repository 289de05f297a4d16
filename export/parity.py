"""Does the exported graph compute what PyTorch computes? Compared on other inputs and another batch size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from export.graph import TRACED_BATCH, ExportedDetector, traced_names
from export.plugin import plugin_attributes
from gfl_edge.errors import ParityError
from gfl_edge.ops import decode, postprocess
from gfl_edge.ops.boxes import areas, multiclass_nms
from gfl_edge.ops.onnx_graph import copy_model, open_session
from gfl_edge.ops.onnx_limits import NMS_OP
from gfl_edge.ops.tolerances import TOLERANCES, Parity, Tolerance
from gfl_edge.spec import (
    CANDIDATE_NAMES,
    DET_SIGMAS,
    DETECTION_NAMES,
    INPUT_NAME,
    MIN_INPUT_SIDE,
    RAW_NAMES,
    SIGMAS,
    SIZE_STEP,
    ModelSpec,
)
from train.models.detector import Detector

BATCH = TRACED_BATCH + 1
LARGE_PIXELS = 640 * 640  # from here on one image is compared, which is another batch than traced as well


def random_images(count: int, input_hw: tuple[int, int], seed: int = 1) -> NDArray[np.uint8]:
    """Images of colored rectangles, uint8 ``[count, H, W, 3]``: unlike noise, they make a detector answer."""
    rng = np.random.default_rng(seed)
    height, width = input_hw
    images = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8).repeat(height, 1).repeat(width, 2)
    for image in images:
        for _ in range(24):
            y, x = rng.integers(0, height), rng.integers(0, width)
            h, w = rng.integers(8, height // 2), rng.integers(8, width // 2)
            image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    noise = rng.integers(-16, 17, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def compare(detector: Detector, model: ModelProto, spec: ModelSpec) -> Parity:
    """Run PyTorch in float32 and the exported ``model`` in ONNX Runtime on the same images.

    ONNX Runtime computes no bfloat16 on a CPU. A "bf16" model is run with every type widened to float32: its weights
    are those of the file, rounded to bfloat16, but its activations are not rounded. So it also has to equal PyTorch in
    float32 with the same rounded weights, within the tolerance of "fp32", which finds faults that rounding would hide.

    Raises:
        ParityError: beyond the tolerance of the spec's precision.
    """
    images = compared_images(spec)
    input_hw = (images.shape[1], images.shape[2])
    reference = ExportedDetector(detector, replace(spec, precision="fp32", nms="none"), rewritten=False).eval()
    if spec.nms == "plugin":
        model = _without_plugin(model, spec)
    if spec.precision == "bf16":
        model = widened(model)
    found = _run_with_candidates(model, images, traced_names(spec))
    if traced_names(spec) == RAW_NAMES:
        cls_logits, reg_logits = (found[name].astype(np.float32) for name in RAW_NAMES)
        found = postprocess.decoded(postprocess.sigmoid(cls_logits), reg_logits, spec, input_hw)
    differing = _differing_images(found, spec) if spec.nms == "graph" else 0
    parity = _parity(found, reference, images, differing, TOLERANCES[spec.precision])
    checked = [parity]
    if spec.precision == "bf16":
        reference.body.bfloat16().float()
        checked.append(_parity(found, reference, images, differing, TOLERANCES["fp32"]))
    for result in checked:
        if not result.passed:
            raise ParityError(f"{spec.name}: the exported graph disagrees with PyTorch: {result}. Nothing was written")
    return parity


def _parity(
    found: dict[str, NDArray[np.float32]],
    reference: ExportedDetector,
    images: NDArray[np.uint8],
    differing: int,
    tolerance: Tolerance,
) -> Parity:
    """Between what a graph gave and ``reference``; ``differing`` are the images whose detections are not its own."""
    score, edge, sigma = _differences(found, reference, images)
    return Parity("PyTorch float32", len(images), score, edge, differing, tolerance, sigma)


def _differences(
    found: dict[str, NDArray[np.float32]], reference: ExportedDetector, images: NDArray[np.uint8]
) -> tuple[float, float, float | None]:
    """The largest of scores, and of edges and sigmas in strides, between what a graph gave and ``reference``."""
    spec, input_hw = reference.spec, (images.shape[1], images.shape[2])
    expected = _computed(reference, images)
    _, cell_strides = decode.points(input_hw, spec.strides, spec.point_offset)
    apart = {name: np.abs(found[name] - value) for name, value in expected.items()}
    if reference.outside_possible:
        # Where one box is clipped to nothing, and so has no score, and the other just not: it is the edges that tell
        apart["scores"][(areas(found["boxes"]) > 0) != (areas(expected["boxes"]) > 0)] = 0
    edge, sigma = (
        float((apart[name] / cell_strides[:, None]).max()) if name in apart else None for name in ("boxes", SIGMAS)
    )
    assert edge is not None
    return float(apart["scores"].max()), edge, sigma


def _computed(network: ExportedDetector, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    with torch.no_grad():
        values = network(torch.from_numpy(images))
    return {name: value.numpy() for name, value in zip(network.spec.candidate_names, values, strict=True)}


def rounding(detector: Detector, spec: ModelSpec) -> tuple[float, float]:
    """How far PyTorch's own network of that precision, its activations rounded as well, is from float32.

    Returns:
        The largest difference of scores, and of edges in strides.
    """
    images = compared_images(spec)
    reference = ExportedDetector(detector, replace(spec, precision="fp32", nms="none"), rewritten=False).eval()
    rounded = ExportedDetector(detector, replace(spec, nms="none")).eval()
    return _differences(_computed(rounded, images), reference, images)[:2]


def compared_images(spec: ModelSpec) -> NDArray[np.uint8]:
    """What is compared, uint8 ``[N, H, W, 3]``."""
    height, width = spec.input_hw
    if spec.short_long is not None:  # a size that was not traced, on its side
        height, width = width - SIZE_STEP, max(MIN_INPUT_SIDE, height - SIZE_STEP)
    return random_images(BATCH if height * width < LARGE_PIXELS else 1, (height, width))


def widened(model: ModelProto) -> ModelProto:
    """A copy of ``model`` in which float32 stands for every bfloat16."""
    model = copy_model(model)
    graph = model.graph
    constants = [a.t for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    for tensor in (*graph.initializer, *constants):
        if tensor.data_type == TensorProto.BFLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _without_plugin(model: ModelProto, spec: ModelSpec) -> ModelProto:
    """A copy of ``model`` that ends before the plugin's node, which nothing but TensorRT runs.

    Raises:
        ParityError: the node's attributes are not those of ``spec``.
    """
    model = copy_model(model)
    node = model.graph.node.pop()
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    written = helper.make_node(NMS_OP, (), (), **plugin_attributes(spec))  # floats and strings as ONNX has them
    expected = {attribute.name: helper.get_attribute_value(attribute) for attribute in written.attribute}
    if (node.op_type, *node.input) != (NMS_OP, *RAW_NAMES) or found != expected:
        raise ParityError(
            f"{spec.name}: the node after the network is {node.op_type} of {', '.join(node.input)} with {found}, "
            f"expected {NMS_OP} of {', '.join(RAW_NAMES)} with {expected}. Nothing was written"
        )
    del model.graph.output[:]
    return model


def _run_with_candidates(
    model: ModelProto, images: NDArray[np.uint8], candidates: tuple[str, ...] = CANDIDATE_NAMES
) -> dict[str, NDArray[np.float32]]:
    """All outputs of ``model`` by name, and what enters its NMS, by the names ``candidates``."""
    session = open_session(model, candidates)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT_NAME: images}), strict=True))


def _differing_images(found: dict[str, NDArray[np.float32]], spec: ModelSpec) -> int:
    """In how many images the graph's detections are not exactly those of greedy NMS over the same candidates."""
    differing = 0
    counts, det_boxes, det_scores, det_classes = (found[name] for name in DETECTION_NAMES)
    for i, count in enumerate(counts[:, 0]):
        expected = multiclass_nms(
            found["boxes"][i],
            found["scores"][i],
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            max_candidates=spec.max_candidates,
            max_detections=spec.max_detections,
        )
        got = (det_boxes[i, :count], det_scores[i, :count], det_classes[i, :count])
        same = all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
        if same and spec.edge_sigma:
            same = _are_of_anchors(found["boxes"][i], found[SIGMAS][i], got[0], found[DET_SIGMAS][i, :count])
        differing += not same
    return differing


def _are_of_anchors(
    boxes: NDArray[np.float32],
    sigmas: NDArray[np.float32],
    det_boxes: NDArray[np.float32],
    det_sigmas: NDArray[np.float32],
) -> bool:
    """Whether each detection has the sigmas of an anchor whose box it has."""
    pairs = np.concatenate((boxes, sigmas), axis=1)
    found = np.concatenate((det_boxes, det_sigmas), axis=1)
    return all(bool((pairs == one).all(axis=1).any()) for one in found)
