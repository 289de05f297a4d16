"""The ONNX graph of a detector: uint8 frames in, decoded boxes and scores out."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import onnx
import onnxsim
import torch
from onnx import ModelProto
from torch import Tensor, nn

from export.arguments import DeformForm
from export.deform import DEFORM_OPSET, TRANSLATIONS, use_deform_operator
from export.half import HalfPlan, float_layers, node_scopes, to_half
from export.negligible import drop_negligible
from export.plugin import append_plugin, plugin_attributes
from export.unshuffle import unshuffle
from gfl_edge import optional
from gfl_edge._version import __version__
from gfl_edge.errors import InputError, ParityError
from gfl_edge.ops import decode
from gfl_edge.ops.nms_graph import OPSET, append_nms
from gfl_edge.spec import CANDIDATE_NAMES, INPUT_NAME, RAW_NAMES, SIGMAS, SIZE_STEP, ModelSpec, Precision, set_spec
from train.models.batch_norm import fuse_batch_norm
from train.models.detector import Detector, swap_red_and_blue
from train.models.nanodet import NanoDet
from train.models.shufflenet_v2 import ShuffleNetV2
from train.models.traits import TRAITS

TRACED_BATCH = 2  # a batch of 1 would be baked in as a constant
BF16_OPSET = 22  # the first whose Conv takes bfloat16


BODY_DTYPE: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class ExportedDetector(nn.Module):
    """A detector with everything around it that belongs into the graph.

    uint8 ``[N, H, W, 3]`` BGR -> boxes float32 ``[N, A, 4]`` xyxy in input pixels, scores float32 ``[N, A, C]``, 0..1;
    with ``spec.edge_sigma`` also the standard deviations of the edges, float32 ``[N, A, 4]`` in input pixels.
    Normalization, sigmoid and decode are float32 in any precision; in "fp16" the network between them is FP16, except
    for what ``plan`` keeps, in "bf16" bfloat16. So the decode cannot overflow: the logits that enter it fit into the
    network's precision, softmax does not exceed 1, and edges not the input's sides plus ``reg_max`` strides.
    Boxes of ATSS may lie outside of the input, where clipping leaves nothing of them: their scores are 0, as
    mmdetection drops them.
    Where NMS takes raw maps, in the plugin or after the model, it ends with the network: cls_logits ``[N, A, C]`` and
    reg_logits ``[N, A, 4 * (reg_max + 1)]``, FP16 in "fp16", else float32, as the kernels take them.
    With ``rewritten`` the network is changed into one that computes the same in less time, as it is exported.
    """

    mean: Tensor
    inverse_std: Tensor
    bins: Tensor

    def __init__(
        self,
        detector: Detector,
        spec: ModelSpec,
        dcn: DeformForm = "gridsample",
        plan: HalfPlan | None = None,
        rewritten: bool = True,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.outside_possible = detector.config.regression == "delta"
        self.body_dtype = BODY_DTYPE[spec.precision]
        body = fuse_batch_norm(detector)
        if TRAITS[detector.config.family].channel_order == "rgb":
            swap_red_and_blue(body)
        if rewritten:
            _rewrite(body)
        if dcn == "deform":
            use_deform_operator(body)
        self.body = to_half(body, plan) if spec.precision == "fp16" else body.to(self.body_dtype)
        self.register_buffer("mean", torch.tensor(spec.mean_bgr))
        self.register_buffer("inverse_std", 1 / torch.tensor(spec.std_bgr))
        self.register_buffer("bins", torch.arange(spec.reg_max + 1.0))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        # Cast before the transpose: TensorRT has no uint8 transpose. Whole rows at once: CPUs compute in vectors along
        # the last axis, and 3 channels fill none
        rows = images.to(torch.float32).flatten(2)
        width = images.shape[2]
        x = (rows - self.mean.repeat(width)) * self.inverse_std.repeat(width)
        x = x.reshape(images.shape).permute(0, 3, 1, 2)
        cls_logits, reg_logits = self.body(x.to(self.body_dtype))
        if traced_names(self.spec) == RAW_NAMES:
            # GFLv2 joins its two logits in float32
            dtype = torch.float16 if self.spec.precision == "fp16" else torch.float32
            return _rows(cls_logits).to(dtype), _rows(reg_logits).to(dtype)
        scores = _rows([level.to(torch.float32).sigmoid() for level in cls_logits])

        # The anchors come last until the end: along them CPUs compute in vectors, along the bins and edges not
        edges, deviations = self._edges(_columns(reg_logits).to(torch.float32), *self._grid(reg_logits))
        limits = torch.tensor([images.shape[2], images.shape[1]] * 2, dtype=torch.float32)[:, None]
        clipped = torch.minimum(edges.clamp(min=0), limits)
        if self.outside_possible:
            low, high = clipped.chunk(2, dim=1)
            # Not "has an area, or else": of NaN, every comparison is False, and it is NMS that counts such boxes
            empty = ((high - low).amin(dim=1) <= 0)[..., None]
            scores = torch.where(empty, torch.zeros_like(scores), scores)
        boxes = clipped.transpose(1, 2)
        return (boxes, scores) if deviations is None else (boxes, scores, deviations.transpose(1, 2))

    def _edges(self, edge_logits: Tensor, centers: Tensor, cell_strides: Tensor) -> tuple[Tensor, Tensor | None]:
        """``[N, 4 * (reg_max + 1), A]``, or distances in strides ``[N, 4, A]`` -> edges ``[N, 4, A]`` in pixels, and
        their standard deviations where the spec has them.
        """
        if self.spec.reg_max == 0:
            signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
            return centers.repeat(2, 1) + edge_logits * signs * cell_strides, None
        # Integral decode, eq. 5 of the paper; Mul + ReduceSum because TensorRT-RTX has no FP32 MatMul on sm75
        distribution = edge_logits.reshape(-1, 4, len(self.bins), centers.shape[1]).softmax(dim=2)
        signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
        signed_bins = signs[..., None] * self.bins[:, None]
        tiled = centers.repeat(2, 1)
        means = (distribution * signed_bins).sum(dim=2)
        edges = tiled + means * cell_strides
        if not self.spec.edge_sigma:
            return edges, None
        apart = signed_bins - means.unsqueeze(2)  # the squares of these are the same whatever the signs
        return edges, (distribution * (apart * apart)).sum(dim=2).sqrt() * cell_strides

    def _grid(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Centers ``[2, A]`` and strides ``[A]`` of all points: constants, or computed from the maps of any size."""
        if self.spec.short_long is None:
            points, of_points = decode.points(self.spec.input_hw, self.spec.strides, self.spec.point_offset)
            return torch.from_numpy(points.T.copy()), torch.from_numpy(of_points)
        centers, strides = [], []
        for level, stride in zip(maps, self.spec.strides, strict=True):
            rows, columns = ((torch.arange(size) + self.spec.point_offset) * stride for size in level.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centers.append(torch.stack((x, y)).flatten(1))
            strides.append(torch.full_like(centers[-1][0], stride))
        return torch.cat(centers, dim=1), torch.cat(strides)


def _rewrite(body: Detector) -> None:
    """Make a network with folded batch norms faster, in place and to the same effect."""
    drop_negligible(body)
    if isinstance(body, NanoDet):
        body.head.separate()
        if isinstance(body.backbone, ShuffleNetV2):
            unshuffle(body)


def _columns(maps: list[Tensor]) -> Tensor:
    """Maps ``[N, X, H_i, W_i]`` of all levels -> ``[N, X, A]``."""
    return torch.cat([level.flatten(2) for level in maps], dim=2)


def _rows(maps: list[Tensor]) -> Tensor:
    """Maps ``[N, X, H_i, W_i]`` of all levels -> ``[N, A, X]``."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], dim=1)


def traced_names(spec: ModelSpec) -> tuple[str, ...]:
    """The outputs of the traced network, before any NMS is added."""
    return RAW_NAMES if spec.nms in ("raw", "plugin") else spec.candidate_names


def build_graph(
    detector: Detector, spec: ModelSpec, dcn: DeformForm = "gridsample", plan: HalfPlan | None = None
) -> ModelProto:
    """Export ``detector`` as described by ``spec`` (precision, NMS) to a simplified, self-describing ONNX model.

    Args:
        detector: in eval mode, float32.
        spec: its description; ``precision`` and ``nms`` are what the graph becomes.
        dcn: how deformable convolutions are written: "gridsample" in plain operators, which TensorRT, TensorRT-RTX and
            OpenVINO take, or "deform" as ONNX's DeformConv of opset 19, for ONNX Runtime.
        plan: with precision "fp16", what stays float32; None: nothing. The file's spec lists it as ``float_layers``.

    Returns:
        A checked model of the contract in :mod:`gfl_edge.spec`, batch dynamic.

    Raises:
        InputError: NMS is to run in the plugin, which does not take this model; or "deform" with "bf16".
        ParityError: simplifying changed what the graph computes.
        PrecisionError: a layer came out as float32 that ``plan`` does not name.
    """
    if spec.nms == "plugin":
        plugin_attributes(spec)  # what the plugin cannot do is said before minutes of tracing, not after
    if spec.precision == "bf16" and dcn == "deform":
        raise InputError("--dcn deform is for ONNX Runtime, which has no bfloat16. Leave out --dcn, or --bf16")
    opset = BF16_OPSET if spec.precision == "bf16" else DEFORM_OPSET if dcn == "deform" else OPSET
    model = _trace(ExportedDetector(detector, spec, dcn, plan).eval(), spec, opset)
    scopes = node_scopes(model)
    model, same = onnxsim.simplify(model)
    if not same:
        raise ParityError(f"{spec.name}: onnxsim changed what the graph computes. Export with another onnxsim version")
    _tidy(model, spec)
    if plan is not None and plan.kept_float:
        spec = replace(spec, float_layers=float_layers(model, scopes, plan))
    if spec.nms == "graph":
        append_nms(model, spec, opset=opset)
    elif spec.nms == "plugin":
        append_plugin(model, spec)
    set_spec(model, spec)
    onnx.checker.check_model(model, full_check=True)
    return model


def _trace(module: nn.Module, spec: ModelSpec, opset: int) -> ModelProto:
    height, width = spec.input_hw
    example = torch.zeros(TRACED_BATCH, height, width, 3, dtype=torch.uint8)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if spec.short_long is not None:
        low, high = (size[0] // SIZE_STEP for size in spec.size_range)
        dynamic[1] = SIZE_STEP * torch.export.Dim("rows", min=low, max=high)
        dynamic[2] = SIZE_STEP * torch.export.Dim("columns", min=low, max=high)
    # Its remarks on torchvision and on its own deprecations
    with optional.quiet(logging.WARNING), torch.no_grad(), _frozen_garbage():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT_NAME],
            output_names=list(traced_names(spec)),
            dynamic_shapes={INPUT_NAME: dynamic},
            opset_version=opset,
            custom_translation_table=TRANSLATIONS if opset == DEFORM_OPSET else None,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Let the collector look at new objects only: the million of PyTorch's take it a sixth of the time of a trace."""
    if gc.get_freeze_count():  # by the caller, who keeps it so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _tidy(model: ModelProto, spec: ModelSpec) -> None:
    """Drop what the tracer noted down about the machine it ran on, and say who made the file and what it takes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.name = spec.name
    model.graph.doc_string = model.doc_string = ""
    model.producer_name, model.producer_version = "gfl_edge", __version__

    # Open dimensions of inputs and outputs get names that a reader understands
    size: list[int | str] = ["height", "width"] if spec.short_long else list(spec.input_hw)
    anchors = "anchors" if spec.short_long else spec.num_anchors
    shapes: dict[str, list[int | str]] = {
        INPUT_NAME: ["batch", *size, 3],
        CANDIDATE_NAMES[0]: ["batch", anchors, 4],
        CANDIDATE_NAMES[1]: ["batch", anchors, spec.num_classes],
        SIGMAS: ["batch", anchors, 4],
        RAW_NAMES[0]: ["batch", anchors, spec.num_classes],
        RAW_NAMES[1]: ["batch", anchors, 4 * (spec.reg_max + 1)],
    }
    for value in (*model.graph.input, *model.graph.output):
        dtype = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, dtype, shapes[value.name]))
