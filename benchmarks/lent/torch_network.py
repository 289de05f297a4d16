"""Networks in PyTorch as they stand in an engine: uint8 frames in, raw maps out, batch norms folded."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfl_edge.spec import ModelSpec
from train.describe import describe, find_preset
from train.models.batch_norm import fuse_batch_norm
from train.models.build import Architecture, build_network
from train.models.deform_conv import KERNEL_SIZE, DeformConv2d, DeformOperator, deform_conv2d, sample_points
from train.models.detector import Detector, swap_red_and_blue
from train.models.nanodet import NanoDet, NanoDetConfig
from train.models.traits import TRAITS

CANDIDATES = 1200  # pairs above the threshold, of random weights: more than the 1000 that enter NMS
SPREAD = 2.0  # standard deviation of random logits, about what trained ones have
CLOSE = 1e-3  # logits, of the weakest candidate to the threshold
SETTLING_HW = (256, 256)  # of the images that random batch norms take their statistics from
Part = tuple[Tensor, Tensor]  # weight and bias of a layer, or of some of its outputs
SAMPLED_GROUPS = 32  # at most, of channels
TORCHVISION = "torchvision"
OFFSET_CELLS = 0.05  # of random deformable convolutions; larger ones amplify rounding as trained networks do not
BRANCH = 0.3  # of the strength of a residual branch, which would be 0 in a fresh network


class RawNetwork(nn.Module):
    """A detector from frames to the raw maps that the kernels take.

    uint8 ``[N, H, W, 3]`` BGR -> cls_logits ``[N, A, C]`` and reg_logits ``[N, A, 4 * (reg_max + 1)]``, in ``dtype``,
    in which the network computes, too. Normalization is float32.

    Args:
        detector: in eval mode, float32; what becomes of it is a copy.
        spec: its description.
        dtype: float16 or float32.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, detector: Detector, spec: ModelSpec, dtype: torch.dtype) -> None:
        super().__init__()
        body = fuse_batch_norm(detector)
        if TRAITS[detector.config.family].channel_order == "rgb":
            swap_red_and_blue(body)
        if isinstance(body, NanoDet):
            body.head.separate()
        self.dtype = dtype
        self.body = body.to(dtype)
        for weight in self.body.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        device = next(body.parameters()).device
        self.register_buffer("mean", torch.tensor(spec.mean_bgr, device=device))
        self.register_buffer("inverse_std", 1 / torch.tensor(spec.std_bgr, device=device))

    def half_copy(self) -> RawNetwork:
        """The same in FP16."""
        copied = copy.deepcopy(self)
        copied.body.half()
        copied.dtype = torch.float16
        return copied

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = ((images.to(torch.float32) - self.mean) * self.inverse_std).to(self.dtype)
        cls_logits, reg_logits = self.body(x.permute(0, 3, 1, 2))  # whose memory is channels last without a copy
        return self._rows(cls_logits), self._rows(reg_logits)

    def _rows(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``[N, X, H_i, W_i]`` of all levels -> ``[N, A, X]``; GFLv2 joins its two logits in float32."""
        levels = [level.to(self.dtype).permute(0, 2, 3, 1) for level in maps]
        return torch.cat([level.reshape(len(level), -1, level.shape[-1]) for level in levels], dim=1)


def use_operator(network: nn.Module, operator: DeformOperator) -> bool:
    """Let every deformable convolution be computed by ``operator``, in place; whether there is one."""
    deformed = [module for module in network.modules() if isinstance(module, DeformConv2d)]
    for module in deformed:
        module.operator = operator
    return bool(deformed)


def operators() -> dict[str, DeformOperator]:
    """What computes a deformable convolution here, what should be the fastest first.

    torchvision's works on the default stream alone (its issue 9513, version 0.26): on another it neither waits for what
    comes before it nor enters a graph. In FP16 it computes in FP16 where it samples, too, to 1/16 of a cell from cell
    64 on.
    """
    found: dict[str, DeformOperator] = {"grid_sample of groups": _by_groups, "grid_sample": deform_conv2d}
    try:
        theirs = importlib.import_module("torchvision.ops").deform_conv2d
    except ImportError:
        return found

    def by_torchvision(
        x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, **settings: int
    ) -> Tensor:
        del settings["groups"]  # which torchvision takes from the shape of the weight
        return theirs(x, offset, weight, bias, mask=mask, **settings)

    return {**found, TORCHVISION: by_torchvision}


def _by_groups(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, **settings: int
) -> Tensor:
    """:func:`train.models.deform_conv.deform_conv2d` of one image, sampled as a batch of images of fewer channels.

    A thread of PyTorch's grid_sample samples all channels at a point of an image, and one image has too few points for
    a large GPU. Neighboring threads read neighboring pixels, which lie side by side only with the channels first.
    """
    channels, *size = x.shape[1:]
    many = math.gcd(channels, SAMPLED_GROUPS)
    groups = x.float().contiguous().reshape(many, channels // many, *size)
    offsets, masks = (None if part is None else part.expand(many, -1, -1, -1) for part in (offset, mask))
    assert offsets is not None
    points = sample_points(groups, offsets, masks, stride=settings["stride"], padding=settings["padding"])
    points = points.reshape(1, channels, *points.shape[-2:]).to(x.dtype, memory_format=torch.channels_last)
    return F.conv2d(points, weight, bias, stride=KERNEL_SIZE, groups=settings["groups"])


def architecture_of(name: str) -> Architecture:
    """The network of a published model."""
    preset = find_preset(name)
    return preset.architecture or NanoDetConfig(preset.family)


def random_detector(
    architecture: Architecture, input_hw: tuple[int, int], device: torch.device
) -> tuple[Detector, ModelSpec]:
    """A network of random weights whose activations keep their size, in eval mode, and its spec for raw FP16 maps."""
    torch.manual_seed(0)
    with device:
        detector = build_network(architecture)
    _strengthen(detector)
    _settle(detector, device)
    spec = replace(describe(detector, input_hw=input_hw), precision="fp16", nms="raw")
    return detector.eval(), spec


def _strengthen(detector: Detector) -> None:
    """Give residual branches and offsets, which start as zero, something to do."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.constant_(module.weight, BRANCH)
        if isinstance(module, DeformConv2d):
            weight = module.conv_offset.weight
            nn.init.normal_(weight, std=OFFSET_CELLS / math.sqrt(weight[0].numel()))


@torch.no_grad()
def _settle(detector: Detector, device: torch.device) -> None:
    """Let batch norms take the statistics of two random images: otherwise values grow from block to block."""
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    detector.train()
    detector(torch.randn(2, 3, *SETTLING_HW, device=device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def give_candidates(network: RawNetwork, score_threshold: float, images: Tensor) -> None:
    """Spread the logits of a random network as a trained one's, so that ``CANDIDATES`` pairs pass the threshold.

    Args:
        network: in float32; its last layers are changed in place.
        score_threshold: of the spec.
        images: uint8 ``[1, H, W, 3]`` BGR, for which that holds.
    """
    classes, edges = _last_layers(network.body)
    for part, logits in zip((classes, edges), network(images), strict=True):
        for weight, _ in part:
            weight.mul_(SPREAD / logits.std())
    wanted = math.log(score_threshold / (1 - score_threshold))
    for _ in range(4):  # GFLv2's second logit makes it other than a shift
        logits = network(images)[0].flatten()
        missing = wanted - float(logits.topk(min(CANDIDATES, len(logits) // 4)).values[-1])
        if abs(missing) < CLOSE:
            break
        for _, bias in classes:
            bias.add_(missing)


def _last_layers(body: nn.Module) -> tuple[list[Part], list[Part]]:
    """Weights and biases that give class logits, and those that give edges, to be changed in place."""
    if isinstance(body, NanoDet):  # whose levels have two layers each, see NanoDetHead.separate
        levels = [list(level.children()) for level in body.head.gfl_cls]
        return [_tensors(classes) for classes, _ in levels], [_tensors(edges) for _, edges in levels]
    names = ("bbox_head.gfl_cls", "bbox_head.gfl_reg")
    classes, edges = ([_tensors(body.get_submodule(name))] for name in names)
    return classes, edges


def _tensors(layer: nn.Module) -> Part:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return layer.weight.data, layer.bias.data
