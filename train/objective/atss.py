"""Adaptive Training Sample Selection (Zhang et al., CVPR 2020, algorithm 1) of a whole batch at once.

The paper's distance and IoU of every anchor with every object are not needed: anchors lie on a grid, so the nearest
of a level are found in a small window around an object's center, and only the candidates' IoUs are looked at. The cost
grows only with the number of objects, by a few hundred anchors each, not with the 22 000 anchors of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.objective.losses import iou
from train.objective.positives import MAX_INDEX, Positives, sort_keys
from train.structures import Target

INSIDE = 0.01  # pixels by which an anchor's center lies inside its object (mmdetection 3.3.0, atss_assigner.py)


@torch.no_grad()
def assign_atss(
    targets: Sequence[Target],
    level_hw: Sequence[tuple[int, int]],
    strides: Sequence[int],
    point_offset: float = 0.0,
    topk: int = 9,
    anchor_scale: float = 8.0,
) -> Positives:
    """Assign the objects of a batch to square anchors, one per cell.

    On every level the ``topk`` anchors whose centers are nearest to an object's are its candidates; those with an IoU
    of at least mean + standard deviation of its candidates' IoUs and with their center inside the object are positive.
    An anchor of several objects goes to the one with the highest IoU. Ties go to the lower index.

    Args:
        targets: objects of each image.
        level_hw: rows and columns of each level's map, the same for all images.
        strides: pixels per cell of each level; the anchor of cell i is centered at ``(i + point_offset) * stride``.
        anchor_scale: sides of an anchor in strides.
    """
    boxes = torch.cat([target.boxes for target in targets]).float()
    if len(boxes) == 0:  # std() warns of it
        nothing = torch.zeros(0, dtype=torch.int64, device=boxes.device)
        return Positives(nothing, nothing, nothing, boxes[:, 0])
    cells, centers, anchors = _candidates(boxes, level_hw, strides, point_offset, topk, anchor_scale)
    ious = iou(anchors, boxes)
    positive = ious >= ious.mean(dim=0) + ious.std(dim=0)
    margins = torch.cat((centers - boxes[:, :2], boxes[:, 2:] - centers), dim=-1)
    positive &= margins.amin(dim=-1) > INSIDE

    # Of the objects that want a cell of an image, the one with the highest IoU gets it
    counts = torch.tensor([len(target.boxes) for target in targets], device=boxes.device)
    num_cells = sum(rows * columns for rows, columns in level_hw)
    first_cells = torch.arange(len(targets), device=boxes.device).repeat_interleave(counts) * num_cells
    objects = torch.arange(len(boxes), device=boxes.device).expand_as(cells)[positive]
    keys = sort_keys(ious[positive], MAX_INDEX - objects)  # the largest key has the lower object
    best = torch.full((len(targets) * num_cells,), -1, dtype=torch.int64, device=boxes.device)
    best.scatter_reduce_(0, (cells + first_cells)[positive], keys, "amax")
    taken = (best >= 0).nonzero().squeeze(1)
    keys = best[taken]
    won_ious = (keys >> 32).int().view(torch.float32)
    return Positives(taken // num_cells, taken % num_cells, MAX_INDEX - (keys & MAX_INDEX), won_ious)


def _candidates(
    boxes: Tensor,
    level_hw: Sequence[tuple[int, int]],
    strides: Sequence[int],
    point_offset: float,
    topk: int,
    anchor_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of G boxes: their K candidates' cells ``[K, G]``, centers ``[K, G, 2]`` and anchors ``[K, G, 4]`` xyxy.

    On a level they lie in the ``topk`` nearest columns: from a cell further out, so many in its own row are nearer. The
    same goes for rows.
    """
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    all_cells, all_centers, all_anchors, first_cell = [], [], [], 0
    for (rows, columns), stride in zip(level_hw, strides, strict=True):
        column = _nearest_indices(x / stride - point_offset, columns, topk)
        row = _nearest_indices(y / stride - point_offset, rows, topk)
        dx = (column + point_offset) * stride - x[:, None]
        dy = (row + point_offset) * stride - y[:, None]
        squared_distances = dx[:, None, :] ** 2 + dy[:, :, None] ** 2
        window = row[:, :, None] * columns + column[:, None, :]
        keys = sort_keys(squared_distances, window).flatten(1)
        cells = keys.topk(min(topk, rows * columns), dim=1, largest=False).values.T & MAX_INDEX

        indices = torch.stack((cells % columns, cells.div(columns, rounding_mode="floor")), dim=-1)
        centers = (indices + point_offset) * stride
        half = anchor_scale * stride / 2
        all_cells.append(cells + first_cell)
        all_centers.append(centers)
        all_anchors.append(torch.cat((centers - half, centers + half), dim=-1))
        first_cell += rows * columns
    return torch.cat(all_cells), torch.cat(all_centers), torch.cat(all_anchors)


def _nearest_indices(positions: Tensor, size: int, topk: int) -> Tensor:
    """Of 0 to size - 1, the ``topk`` integers nearest to each position: ``[G]`` -> int64 ``[G, min(topk, size)]``."""
    count = min(topk, size)
    first = (positions - count / 2).ceil().long().clamp(0, size - count)
    return first[:, None] + torch.arange(count, device=positions.device)
