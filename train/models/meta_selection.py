"""SAPD's meta-selection network (Zhu et al., Soft Anchor-Point Object Detection, ECCV 2020, section 3.3).

It exists only in training: from what each level of the pyramid holds where an object is, it predicts how much each
level is to learn of the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLED = 7  # cells per side that RoIAlign takes from each level
SAMPLES = 2  # points per side of such a cell, whose mean it is
INIT_STD = 0.01


class MetaSelection(nn.Module):
    """RoIAlign from all levels, three 3x3 convolutions without padding (7, 5, 3, 1 cells), a linear layer.

    Args:
        strides: pixels of the input per cell of each level.
        channels: of the pyramid's maps, and of the convolutions.
    """

    def __init__(self, strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.strides = tuple(strides)
        inputs = (len(strides) * channels, channels, channels)
        self.convs = nn.ModuleList(nn.Conv2d(count, channels, 3) for count in inputs)
        self.levels = nn.Linear(channels, len(strides))
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """How well each level suits each object.

        Args:
            features: the pyramid's maps ``[N, channels, H_i, W_i]``.
            boxes: of each image ``[n, 4]`` xyxy in pixels of the input.

        Returns:
            Logits ``[sum of n, levels]``, float32: by image, then as the boxes of an image.
        """
        levels = zip(features, self.strides, strict=True)
        x = torch.cat([roi_align(maps.float(), boxes, stride) for maps, stride in levels], dim=1)
        for conv in self.convs:
            x = conv(x).relu()
        logits: Tensor = self.levels(x.flatten(1))
        return logits


def roi_align(features: Tensor, boxes: Sequence[Tensor], stride: int, size: int = POOLED) -> Tensor:
    """What maps hold inside of boxes, at ``size`` x ``size`` places (He et al., Mask R-CNN, ICCV 2017, section 3).

    Each place is the mean of ``SAMPLES`` x ``SAMPLES`` evenly spaced values, bilinear between the centers of the cells,
    which lie at ``(i + 0.5) * stride``; beyond the outermost centers a map goes on as it ends.

    Args:
        features: ``[N, C, H, W]`` float32.
        boxes: of each image ``[n, 4]`` xyxy in pixels of the input.
        stride: pixels per cell.

    Returns:
        ``[sum of n, C, size, size]`` float32. Gradients flow to the features, not to the boxes.
    """
    height, width = features.shape[-2:]
    count = size * SAMPLES
    steps = (torch.arange(count, device=features.device) + 0.5) / count
    extent = torch.tensor([width, height], device=features.device) * stride
    pooled = []
    for maps, of_image in zip(features, boxes, strict=True):
        corners = torch.unflatten(of_image.detach().float(), 1, (2, 2))
        corners = 2 * corners / extent - 1  # -1..1 from edge to edge of a map
        x, y = (corners[:, 0] + steps[:, None, None] * (corners[:, 1] - corners[:, 0])).unbind(2)  # [count, n]
        grid = torch.stack((x.T[:, None].expand(-1, count, -1), y.T[..., None].expand(-1, -1, count)), dim=3)
        # As rows of one grid: grid_sample takes a grid per map, not many of one map
        values = F.grid_sample(maps[None], grid.flatten(0, 1)[None], padding_mode="border", align_corners=False)
        values = torch.unflatten(values[0], 1, (len(of_image), count)).transpose(0, 1)
        pooled.append(F.avg_pool2d(values, SAMPLES))
    return torch.cat(pooled)
