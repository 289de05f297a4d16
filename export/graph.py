"""The ONNX graph of a detector: uint8 frames in, decoded boxes and scores out."""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxsim
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.nms import OPSET, append_nms
from gfl_edge import decode
from gfl_edge._version import __version__
from gfl_edge.errors import ParityError
from gfl_edge.spec import CANDIDATE_NAMES, INPUT_NAME, ModelSpec
from train.models import NanoDet

TRACED_BATCH = 2  # a batch of 1 would be baked in as a constant


class ExportedDetector(nn.Module):
    """A detector with everything around it that belongs into the graph.

    uint8 ``[N, H, W, 3]`` BGR -> boxes float32 ``[N, A, 4]`` xyxy in input pixels, scores float32 ``[N, A, C]``, 0..1.
    Normalisation, sigmoid and decode are float32 in either precision; in "fp16" the network between them is half.
    """

    mean: Tensor
    inverse_std: Tensor
    centres: Tensor
    cell_strides: Tensor
    bins: Tensor
    limit: Tensor

    def __init__(self, detector: NanoDet, spec: ModelSpec) -> None:
        super().__init__()
        self.half_body = spec.precision == "fp16"
        body = fuse_batch_norm(detector)
        self.body = body.half() if self.half_body else body
        centres, cell_strides = decode.points(spec.input_hw, spec.strides, spec.point_offset)
        height, width = spec.input_hw
        constants = {
            "mean": torch.tensor(spec.mean_bgr),
            "inverse_std": 1 / torch.tensor(spec.std_bgr),
            "centres": torch.from_numpy(centres),
            "cell_strides": torch.from_numpy(cell_strides)[:, None],
            "bins": torch.arange(spec.reg_max + 1.0),
            "limit": torch.tensor([width, height, width, height], dtype=torch.float32),
        }
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        # Cast before the transpose: TensorRT has no uint8 transpose
        x = (images.to(torch.float32) - self.mean) * self.inverse_std
        x = x.permute(0, 3, 1, 2)
        cls_logits, reg_logits = self.body(x.half() if self.half_body else x)
        scores = _rows(cls_logits).sigmoid()
        return self._decode(_rows(reg_logits)), scores

    def _decode(self, reg_logits: Tensor) -> Tensor:
        """Integral decode, eq. 6 of the paper; Mul + ReduceSum because TensorRT-RTX has no FP32 MatMul on sm75."""
        distribution = reg_logits.reshape(-1, len(self.centres), 4, len(self.bins)).softmax(dim=-1)
        distances = (distribution * self.bins).sum(dim=-1) * self.cell_strides
        corners = torch.cat((self.centres - distances[..., :2], self.centres + distances[..., 2:]), dim=-1)
        return torch.minimum(corners.clamp(min=0), self.limit)


def _rows(maps: list[Tensor]) -> Tensor:
    """Maps ``[N, X, H_i, W_i]`` of all levels -> float32 ``[N, A, X]``."""
    return torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2).to(torch.float32)


def fuse_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in eval mode whose batch norms are folded into the convolutions before them.

    Done in float32: the statistics of a batch norm may not fit into half. Every batch norm of our networks is
    registered right behind its convolution.
    """
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    return model


def build_graph(detector: NanoDet, spec: ModelSpec) -> ModelProto:
    """Export ``detector`` as described by ``spec`` (precision, NMS) to a simplified, self-describing ONNX model.

    Args:
        detector: in eval mode, float32.
        spec: its description; ``precision`` and ``nms`` are what the graph becomes.

    Returns:
        A checked model of the contract in :mod:`gfl_edge.spec`, batch dynamic.
    """
    model = _trace(ExportedDetector(detector, spec).eval(), spec)
    model, same = onnxsim.simplify(model)
    if not same:
        raise ParityError(f"{spec.name}: onnxsim changed what the graph computes. Export with another onnxsim version")
    _tidy(model, spec)
    if spec.nms == "graph":
        append_nms(model, spec)
    for key, value in spec.to_metadata().items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    return model


def _trace(module: nn.Module, spec: ModelSpec) -> ModelProto:
    height, width = spec.input_hw
    example = torch.zeros(TRACED_BATCH, height, width, 3, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT_NAME],
            output_names=list(CANDIDATE_NAMES),
            dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on torchvision and on its own deprecations out of the log."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tidy(model: ModelProto, spec: ModelSpec) -> None:
    """Drop what the tracer noted down about the machine it ran on, and say who made the file."""
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
