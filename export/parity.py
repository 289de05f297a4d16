"""Does the exported graph compute what PyTorch computes? Compared on other inputs and another batch size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper

from export.graph import TRACED_BATCH, ExportedDetector, traced_names
from export.nms import NAME, plugin_attributes
from gfl_edge import decode, postprocess
from gfl_edge.boxes import multiclass_nms
from gfl_edge.errors import ParityError
from gfl_edge.spec import (
    CANDIDATE_NAMES,
    DETECTION_NAMES,
    INPUT_NAME,
    RAW_NAMES,
    SIZE_STEP,
    SMALLEST_SIDE,
    ModelSpec,
    Precision,
)
from train.models.detector import Detector

BATCH = TRACED_BATCH + 1
LARGE_PIXELS = 640 * 640  # from here on one image is compared, which is another batch than traced as well


@dataclass(frozen=True)
class Tolerance:
    """Largest differences from PyTorch in float32 that pass."""

    score: float  # 0..1
    edge: float  # of a box, in strides of its anchor's level: half errs by a fraction of a bin, whatever the stride


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(score=1e-4, edge=1e-3),
    "fp16": Tolerance(score=0.02, edge=0.15),
}


@dataclass(frozen=True)
class Parity:
    """Largest differences found."""

    images: int
    score: float
    edge: float
    detections_differing: (
        int  # images whose in-graph detections are not those of greedy NMS over the graph's candidates
    )
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether everything is within tolerance."""
        within = self.score <= self.tolerance.score and self.edge <= self.tolerance.edge
        return within and not self.detections_differing

    def __str__(self) -> str:
        """One line per quantity, with its tolerance."""
        return (
            f"largest difference from PyTorch float32 on {self.images} other images: "
            f"score {self.score:.2e} (tolerance {self.tolerance.score:g}), "
            f"box edge {self.edge:.2e} strides (tolerance {self.tolerance.edge:g}), "
            f"images whose detections differ from greedy NMS: {self.detections_differing}"
        )


def random_images(count: int, input_hw: tuple[int, int], seed: int = 1) -> NDArray[np.uint8]:
    """Pictures of coloured rectangles, uint8 ``[count, H, W, 3]``: unlike noise, they make a detector answer."""
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
    """Run PyTorch in float32 and the exported ``model`` in ONNX Runtime on the same pictures.

    Raises:
        ParityError: beyond the tolerance of the spec's precision.
    """
    height, width = input_hw = _compared_size(spec)
    images = random_images(BATCH if height * width < LARGE_PIXELS else 1, input_hw)
    reference = ExportedDetector(detector, replace(spec, precision="fp32", nms="none")).eval()
    with torch.no_grad():
        boxes, scores = (value.numpy() for value in reference(torch.from_numpy(images)))
    if spec.nms == "plugin":
        model = _without_plugin(model, spec)
    found = _run_with_candidates(model, images, traced_names(spec))
    if traced_names(spec) == RAW_NAMES:
        found = _decoded(found, spec, input_hw)
    _, cell_strides = decode.points(input_hw, spec.strides, spec.point_offset)
    parity = Parity(
        images=len(images),
        score=float(np.abs(found["scores"] - scores).max()),
        edge=float((np.abs(found["boxes"] - boxes) / cell_strides[:, None]).max()),
        detections_differing=_differing_images(found, spec) if spec.nms == "graph" else 0,
        tolerance=TOLERANCES[spec.precision],
    )
    if not parity.passed:
        raise ParityError(f"{spec.name}: the exported graph disagrees with PyTorch: {parity}. Nothing was written")
    return parity


def _compared_size(spec: ModelSpec) -> tuple[int, int]:
    """The model's own size or, where that is dynamic, one that was not traced, on its side."""
    height, width = spec.input_hw
    return (height, width) if spec.short_long is None else (width - SIZE_STEP, max(SMALLEST_SIDE, height - SIZE_STEP))


def _without_plugin(model: ModelProto, spec: ModelSpec) -> ModelProto:
    """A copy of ``model`` that ends before the plugin's node, which nothing but TensorRT runs.

    Raises:
        ParityError: the node's attributes are not those of ``spec``.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    node = model.graph.node.pop()
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    written = helper.make_node(NAME, (), (), **plugin_attributes(spec))  # floats and strings as ONNX has them
    expected = {attribute.name: helper.get_attribute_value(attribute) for attribute in written.attribute}
    if (node.op_type, *node.input) != (NAME, *RAW_NAMES) or found != expected:
        raise ParityError(
            f"{spec.name}: the node behind the network is {node.op_type} of {', '.join(node.input)} with {found}, "
            f"expected {NAME} of {', '.join(RAW_NAMES)} with {expected}. Nothing was written"
        )
    del model.graph.output[:]
    return model


def _decoded(
    found: dict[str, NDArray[np.float32]], spec: ModelSpec, input_hw: tuple[int, int]
) -> dict[str, NDArray[np.float32]]:
    """Scores and boxes of raw maps, by the reference in NumPy."""
    cls_logits, reg_logits = (found[name].astype(np.float32) for name in RAW_NAMES)
    return {
        "boxes": decode.decode(reg_logits, input_hw, spec.strides, spec.point_offset),
        "scores": postprocess.sigmoid(cls_logits),
    }


def _run_with_candidates(
    model: ModelProto, images: NDArray[np.uint8], candidates: tuple[str, ...] = CANDIDATE_NAMES
) -> dict[str, NDArray[np.float32]]:
    """All outputs of ``model`` by name, and what enters its NMS, by the names ``candidates``."""
    import onnxruntime

    model = onnx.ModelProto.FromString(model.SerializeToString())
    present = {output.name for output in model.graph.output}
    for name in candidates:
        if name not in present:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
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
        differing += not all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
    return differing
