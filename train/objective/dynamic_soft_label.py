"""Dynamic soft label assignment of NanoDet-Plus (RangiLyu/nanodet, nanodet/model/head/assigner/dsl_assigner.py).

SimOTA (Ge et al., YOLOX, 2021, section 2.1) with the Quality Focal Loss as classification cost: the better an object
is predicted already, the more cells learn it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.objective.losses import background_loss, iou, quality_focal_loss
from train.objective.positives import MAX_INDEX, Positives, sort_keys
from train.structures import Target

TINY = 1e-7  # added to an IoU before its logarithm: the cost of no overlap is 16.1 * iou_factor


@torch.no_grad()
def assign_dynamic_soft_labels(
    targets: Sequence[Target],
    cls_logits: Tensor,
    predicted_boxes: Tensor,
    centers: Tensor,
    topk: int = 13,
    iou_factor: float = 3.0,
) -> Positives:
    """Assign the objects of a batch to the cells that predict them at the least cost.

    Candidates of every object of an image are all cells whose center lies inside any of them. The cost of a pair is
    ``QFL(logits, IoU at the object's class) - iou_factor * log(IoU)``. An object takes as many cells as the sum of its
    ``topk`` highest IoUs says, at least one. A cell that several take goes to the object of the image for which its
    cost is least, be that one of them or not. Ties go to the lower index.

    Args:
        targets: objects of each of N images.
        cls_logits: ``[N, num_classes, A]``, of all cells.
        predicted_boxes: float32 ``[N, A, 4]`` xyxy in pixels.
        centers: float32 ``[A, 2]`` xy in pixels.

    Returns:
        Positives whose IoUs are those of the predicted boxes: the qualities to learn.
    """
    found, first_object = [], 0
    for image, target in enumerate(targets):
        cells, objects, ious = _assign_image(
            target, cls_logits[image], predicted_boxes[image], centers, topk, iou_factor
        )
        found.append((torch.full_like(cells, image), cells, objects + first_object, ious))
        first_object += len(target.boxes)
    images, cells, objects, ious = (torch.cat(column) for column in zip(*found, strict=True))
    return Positives(images, cells, objects, ious)


def _assign_image(
    target: Target, cls_logits: Tensor, predicted_boxes: Tensor, centers: Tensor, topk: int, iou_factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells, their objects and IoUs ``[P]`` of one image."""
    boxes = target.boxes.float()
    (x, y), (left, top, right, bottom) = centers.T, boxes.T[..., None]
    inside_any = ((x > left) & (y > top) & (x < right) & (y < bottom)).any(dim=0)
    candidates = inside_any.nonzero().squeeze(1)
    if len(candidates) == 0:  # no object, or none with a cell's center in it
        return candidates, candidates, candidates.float()
    ious = iou(predicted_boxes[candidates], boxes[:, None])

    # Quality Focal Loss [G, V] of each of V cells if it learnt object g: all classes but the object's own are those of
    # background, whichever object it is
    logits = cls_logits[:, candidates]
    background = background_loss(logits)
    own = quality_focal_loss(logits[target.labels], ious)
    cost = background.sum(dim=0) - background[target.labels] + own - iou_factor * (ious + TINY).log()

    # Each object takes its cheapest cells, as many as its highest IoUs sum up to
    count = min(topk, len(candidates))
    wanted = ious.topk(count, dim=1).values.sum(dim=1).int().clamp(min=1)
    keys = sort_keys(cost, torch.arange(len(candidates), device=cost.device))
    cheapest = keys.topk(count, dim=1, largest=False).values & MAX_INDEX
    ranks = torch.arange(count, device=cost.device)
    taken = torch.zeros_like(cost, dtype=torch.bool).scatter_(1, cheapest, ranks < wanted[:, None])

    # A cell that several took goes to the object of the image for which its cost is least
    claims = taken.sum(dim=0)
    columns = claims.nonzero().squeeze(1)
    keys = sort_keys(cost[:, columns], torch.arange(len(boxes), device=cost.device)[:, None])
    keys = keys.where(taken[:, columns] | (claims[columns] > 1), torch.iinfo(torch.int64).max)
    owners = keys.amin(dim=0) & MAX_INDEX
    return candidates[columns], owners, ious[owners, columns]
