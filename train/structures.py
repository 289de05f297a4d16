"""What networks, losses and data hand to each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The objects of one training image.

    Attributes:
        boxes: float32 ``[n, 4]`` xyxy in pixels of the network's input.
        labels: int64 ``[n]``, class indices.
    """

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Outputs:
    """What a detector computes in training, one map per level, from fine to coarse.

    Attributes:
        cls_logits: ``[N, num_classes, H_i, W_i]``; their sigmoid is the score, joint with quality where QFL is used.
        reg_logits: ``[N, 4 * (reg_max + 1), H_i, W_i]`` edge distributions, left, top, right, bottom; ``[N, 4, ...]``
            distances in strides for the Dirac delta baseline.
        centerness: ``[N, 1, H_i, W_i]`` logits of the ATSS baseline, else None.
        auxiliary: outputs of NanoDet-Plus' auxiliary head, which exists only in training, else None.
    """

    cls_logits: list[Tensor]
    reg_logits: list[Tensor]
    centerness: list[Tensor] | None = None
    auxiliary: Outputs | None = None
