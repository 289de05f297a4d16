"""The heads of GFL (Li et al., NeurIPS 2020), GFLv2 (Li et al., CVPR 2021) and ATSS (Zhang et al., CVPR 2020).

Keys are mmdetection's (mmdet/models/dense_heads/gfl_head.py and atss_head.py) and implus/GFocalV2's (gfocal_head.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.traits import Regression
from train.structures import Outputs

HeadQuality = Literal["joint", "guided", "centerness", "none"]

PRIOR = 0.01  # score of every class before training, RetinaNet's initialization
PRIOR_BIAS = -math.log((1 - PRIOR) / PRIOR)
INIT_STD = 0.01
TOP_K = 4  # largest bins of an edge that GFLv2 looks at, beside their mean
QUALITY_CHANNELS = 64  # hidden units of GFLv2's quality predictor
SAPD_UNIT = 4.0  # strides in which SAPD predicts distances: its z (Zhu et al., ECCV 2020, section 3.1)
SAPD_EDGE_BIAS = 0.1  # of these units, before training, as in FSAF (Zhu et al., CVPR 2019)

# mmdetection 3.3.0: configs/atss (octave_base_scale, target_stds), delta_xywh_bbox_coder.py (wh_ratio_clip)
ANCHOR_SCALE = 8.0  # sides in strides of a cell's only anchor, which is square and centered at the cell
DELTA_STDS = (0.1, 0.1, 0.2, 0.2)  # of dx, dy, dw, dh; their means are 0
MAX_LOG_RATIO = -math.log(16 / 1000)  # of a box's side and its anchor's


@dataclass(frozen=True)
class HeadLayout:
    """What a head is made of.

    Attributes:
        num_classes: class logits per point.
        in_channels: of the neck's maps.
        channels: of the towers, a multiple of ``num_groups``.
        levels: number of maps, each with a scale of its own.
        reg_max: the distribution of an edge has ``reg_max + 1`` bins.
        stacked_convs: convolutions per tower.
        num_groups: of the group norms.
        quality: "joint" (GFL: the class logit is trained as the quality), "guided" (GFLv2: times a quality predicted
            from the distributions), "centerness" (ATSS: times a branch of its own) or "none" (the class
            logit is the score, whatever the box).
        regression: "distribution", "dirac" for one distance per edge, or "delta" for ATSS' difference from an anchor.
        leaky_slope: of the towers' activation; 0 is ReLU.
        rectified: distances of "dirac" are ``SAPD_UNIT * relu(x)``, as in SAPD, instead of ``exp(x)``.
    """

    num_classes: int
    in_channels: int
    channels: int
    levels: int
    reg_max: int
    stacked_convs: int = 4
    num_groups: int = 32
    quality: HeadQuality = "joint"
    regression: Regression = "distribution"
    leaky_slope: float = 0.0
    rectified: bool = False


class GroupNorm(nn.GroupNorm):
    """Group norm that is computed in float32 whatever its input: a group's sum of squares may not fit into FP16."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> the same in the dtype of ``x``."""
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class ConvGroupNorm(nn.Module):
    """3x3 convolution without bias, group norm, activation. Keys: ``conv``, ``gn``."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int, leaky_slope: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        self.gn = GroupNorm(num_groups, out_channels)
        self.act: nn.Module = nn.LeakyReLU(leaky_slope, inplace=True) if leaky_slope else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.gn(self.conv(x)))


class Scale(nn.Module):
    """A learned factor. Key: ``scale``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def joint_logits(cls_logits: Tensor, quality_logits: Tensor) -> Tensor:
    """The logit of ``sigmoid(cls) * sigmoid(quality)``, float32, without leaving the logarithmic domain.

    logit(s(c) s(q)) = c + q - log(1 + e^c + e^q) = c - softplus(softplus(c) - q), exact where the product of the
    sigmoids would already round to 0 or 1.

    Args:
        cls_logits: ``[N, C, H, W]``.
        quality_logits: ``[N, 1, H, W]``.
    """
    cls_logits, quality_logits = cls_logits.float(), quality_logits.float()
    return cls_logits - F.softplus(F.softplus(cls_logits) - quality_logits)


def distribution_statistics(reg_logits: Tensor, bins: int) -> Tensor:
    """What GFLv2 judges a box by: the four largest probabilities of each edge and their mean.

    Args:
        reg_logits: ``[N, 4 * bins, H, W]``.
        bins: per edge.

    Returns:
        ``[N, 20, H, W]`` in the dtype of ``reg_logits``; the softmax is float32.
    """
    height, width = reg_logits.shape[-2:]
    probabilities = reg_logits.float().reshape(-1, 4, bins, height, width).softmax(dim=2)
    largest = probabilities.topk(TOP_K, dim=2).values
    statistics = torch.cat((largest, largest.mean(dim=2, keepdim=True)), dim=2)
    return statistics.reshape(-1, 4 * (TOP_K + 1), height, width).to(reg_logits.dtype)


def delta_distances(deltas: Tensor) -> Tensor:
    """Distances of the edges from the cell that mmdetection's DeltaXYWHBBoxCoder decodes, before it clips to the image.

    The box's center is that of the anchor, moved by ``(dx, dy)`` times the anchor's sides; its sides are the anchor's
    times ``exp(dw)`` and ``exp(dh)``. A distance is negative where the cell lies outside of the box.

    Args:
        deltas: ``[N, 4, H, W]`` dx, dy, dw, dh, in standard deviations.

    Returns:
        float32 ``[N, 4, H, W]`` left, top, right, bottom, in strides.
    """
    shifts, log_ratios = deltas.float().chunk(2, dim=1)
    shifts = shifts * (DELTA_STDS[0] * ANCHOR_SCALE)
    log_ratios = (log_ratios * DELTA_STDS[2]).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    half_sides = log_ratios.exp() * (ANCHOR_SCALE / 2)
    return torch.cat((half_sides - shifts, half_sides + shifts), dim=1)


class GFLHead(nn.Module):
    """Two towers that all levels share; one predicts classes, the other edges.

    The final convolutions are called ``atss_cls`` and ``atss_reg`` where deltas are predicted, else ``gfl_cls`` and
    ``gfl_reg``.
    """

    def __init__(self, layout: HeadLayout) -> None:
        super().__init__()
        self.layout = layout
        self.cls_convs = _tower(layout)
        self.reg_convs = _tower(layout)
        edge_outputs = layout.reg_max + 1 if layout.regression == "distribution" else 1
        self._method = "atss" if layout.regression == "delta" else "gfl"
        self.add_module(f"{self._method}_cls", nn.Conv2d(layout.channels, layout.num_classes, 3, 1, 1))
        self.add_module(f"{self._method}_reg", nn.Conv2d(layout.channels, 4 * edge_outputs, 3, 1, 1))
        self.scales = nn.ModuleList(Scale() for _ in range(layout.levels))
        if layout.quality == "guided":
            self.reg_conf = nn.Sequential(
                nn.Conv2d(4 * (TOP_K + 1), QUALITY_CHANNELS, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(QUALITY_CHANNELS, 1, 1),
            )
        if layout.quality == "centerness":
            self.atss_centerness = nn.Conv2d(layout.channels, 1, 3, 1, 1)

    def init_weights(self) -> None:
        """For training: small weights, and every class starts with the score ``PRIOR``."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        cls, reg = (self.get_submodule(f"{self._method}_{kind}").bias for kind in ("cls", "reg"))
        assert isinstance(cls, Tensor)
        assert isinstance(reg, Tensor)
        nn.init.constant_(cls, PRIOR_BIAS)
        if self.layout.rectified:
            nn.init.constant_(reg, SAPD_EDGE_BIAS)

    def forward(self, features: Sequence[Tensor]) -> Outputs:
        """One map ``[N, in_channels, H_i, W_i]`` per level -> their logits, see :class:`train.structures.Outputs`."""
        outputs = Outputs([], [], [] if self.layout.quality == "centerness" else None)
        cls, reg = (self.get_submodule(f"{self._method}_{kind}") for kind in ("cls", "reg"))
        for x, scale in zip(features, self.scales, strict=True):
            tower = self.reg_convs(x)
            reg_logits = scale(reg(tower))
            cls_logits = cls(self.cls_convs(x))
            if self.layout.quality == "guided":
                statistics = distribution_statistics(reg_logits, self.layout.reg_max + 1)
                cls_logits = joint_logits(cls_logits, self.reg_conf(statistics))
            if self.layout.rectified:
                reg_logits = SAPD_UNIT * reg_logits.float().relu()
            elif self.layout.regression == "dirac":
                reg_logits = reg_logits.float().exp()  # distances are positive, as in FCOS (Tian et al., ICCV 2019)
            elif self.layout.regression == "delta":
                reg_logits = delta_distances(reg_logits)
            if outputs.centerness is not None:
                outputs.centerness.append(self.atss_centerness(tower))
            outputs.cls_logits.append(cls_logits)
            outputs.reg_logits.append(reg_logits)
        return outputs


def _tower(layout: HeadLayout) -> nn.Sequential:
    inputs = [layout.in_channels] + [layout.channels] * (layout.stacked_convs - 1)
    return nn.Sequential(
        *(ConvGroupNorm(channels, layout.channels, layout.num_groups, layout.leaky_slope) for channels in inputs)
    )
