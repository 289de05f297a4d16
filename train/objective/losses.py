"""The losses of Generalized Focal Loss (Li et al., NeurIPS 2020) and of the baselines it is compared with.

Each function returns one float32 loss per element, unreduced and unweighted: the criterion weighs, sums and averages.
Inputs of any float type are taken to float32 first, so that autocast to FP16 or BF16 does not reach a loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # pixels or strides squared; keeps 0 / 0 of empty boxes at IoU 0
FOCAL_ALPHA = 0.25  # share of the objects in the focal loss; background has the rest


def quality_focal_loss(logits: Tensor, qualities: Tensor, beta: float = 2.0) -> Tensor:
    """Quality Focal Loss, eq. 2: ``|y - s|^beta * BCE(s, y)`` with ``s = sigmoid(logits)``.

    Args:
        logits: ``[...]``, a joint score of class and quality per element.
        qualities: ``[...]`` y in [0, 1]: the IoU of the box where the class is the object's, 0 everywhere else.

    Returns:
        float32 ``[...]``. The gradient flows through the modulating factor, too.
    """
    logits, qualities = logits.float(), qualities.float()
    modulation = (qualities - logits.sigmoid()).abs().pow(beta)
    return modulation * F.binary_cross_entropy_with_logits(logits, qualities, reduction="none")


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution Focal Loss, eq. 6: cross entropy with the two bins around the true distance.

    ``-((y_right - y) log p_left + (y - y_left) log p_right)``: its minimum has all mass on these two bins, with
    expectation y.

    Args:
        logits: ``[..., reg_max + 1]``, the distribution of an edge before its softmax.
        distances: ``[...]`` y in strides, in [0, reg_max).

    Returns:
        float32 ``[...]``.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    distances = distances.float()
    left = distances.long()
    right_share = distances - left
    log_left = log_probabilities.gather(-1, left.unsqueeze(-1)).squeeze(-1)
    log_right = log_probabilities.gather(-1, left.unsqueeze(-1) + 1).squeeze(-1)
    return -((1 - right_share) * log_left + right_share * log_right)


def background_loss(logits: Tensor, exponent: float = 2.0) -> Tensor:
    """``s^exponent * -log(1 - s)``, to which both QFL and focal loss come down where there is no object.

    That is QFL with y = 0, and focal loss with target 0 divided by ``1 - alpha``. Nearly all elements are background,
    and this takes half the passes over memory.

    Args:
        logits: ``[...]``.
        exponent: beta of QFL, gamma of focal loss.

    Returns:
        float32 ``[...]``.
    """
    logits = logits.float()
    return logits.sigmoid().pow(exponent) * F.softplus(logits)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = FOCAL_ALPHA, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017, eq. 5): ``-alpha_t (1 - p_t)^gamma log p_t``.

    Args:
        logits: ``[...]``, a score per element.
        targets: ``[...]``, 1 where the class is the object's, else 0.

    Returns:
        float32 ``[...]``.
    """
    logits, targets = logits.float(), targets.float()
    modulation = (targets - logits.sigmoid()).abs().pow(gamma)  # 1 - p_t, as targets are 0 or 1
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return balance * modulation * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def centerness_loss(logits: Tensor, centerness: Tensor) -> Tensor:
    """Binary cross entropy with the centerness (Tian et al., ICCV 2019): ``[...]`` each -> float32 ``[...]``."""
    return F.binary_cross_entropy_with_logits(logits.float(), centerness.float(), reduction="none")


def giou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """``1 - GIoU`` (Rezatofighi et al., CVPR 2019, algorithm 1) of boxes ``[..., 4]`` xyxy -> float32 ``[...]``.

    The unit of the boxes is free. A box with negative sides has a negative area, which still pulls it open.
    """
    boxes, others = boxes.float(), others.float()
    intersection, union = _intersection_and_union(boxes, others)
    top_left = torch.minimum(boxes[..., :2], others[..., :2])
    bottom_right = torch.maximum(boxes[..., 2:], others[..., 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    hull = (sides[..., 0] * sides[..., 1]).clamp(min=EPSILON)
    return 1 - (intersection / union - (hull - union) / hull)


def iou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """``-log(IoU)`` (Yu et al., UnitBox, ACM MM 2016) of boxes ``[..., 4]`` xyxy -> float32 ``[...]``, finite at 0."""
    intersection, union = _intersection_and_union(boxes.float(), others.float())
    return -((intersection + EPSILON) / (union + EPSILON)).log()


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes ``[..., 4]`` xyxy, broadcasting -> float32 ``[...]``; 0 where both are empty."""
    intersection, union = _intersection_and_union(boxes.float(), others.float())
    return intersection / union


def _intersection_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    sides = sides.clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = _areas(boxes) + _areas(others) - intersection
    return intersection, union.clamp(min=EPSILON)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
