"""What networks, losses and data hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The objects of one training image.

    Attributes:
        boxes: float32 ``[n, 4]`` xyxy in pixels of the network's input.
        labels: int64 ``[n]``, class indices.
        ignored: float32 ``[m, 4]`` xyxy, regions in which objects are not told apart, such as COCO's crowds: what no
            object claims there is no background. None: there are none.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Target:
        """With each tensor as ``change`` gives it, such as on another device."""
        ignored = None if self.ignored is None else change(self.ignored)
        return Target(change(self.boxes), change(self.labels), ignored)


@dataclass(frozen=True)
class LevelSelection:
    """How much each level is to learn of each object, which SAPD's meta-selection network says.

    Attributes:
        logits: boxes ``[n_i, 4]`` xyxy of each image in pixels of the input -> ``[sum of n_i, levels]`` whose softmax
            are the weights, float32.
        is_soft: take these weights; otherwise the network only learns to predict them.
    """

    logits: Callable[[Sequence[Tensor]], Tensor]
    is_soft: bool = True


@dataclass(frozen=True)
class Outputs:
    """What a detector computes in training, one map per level, from fine to coarse.

    Attributes:
        cls_logits: ``[N, num_classes, H_i, W_i]``; their sigmoid is the score, joint with quality where QFL is used.
        reg_logits: ``[N, 4 * (reg_max + 1), H_i, W_i]`` edge distributions, left, top, right, bottom; ``[N, 4, ...]``
            distances in strides where edges are numbers.
        centerness: ``[N, 1, H_i, W_i]`` logits of ATSS and the baseline like it, else None.
        auxiliary: outputs of NanoDet-Plus' auxiliary head, which exists only in training, else None.
        selection: of SAPD in training, else None.
    """

    cls_logits: list[Tensor]
    reg_logits: list[Tensor]
    centerness: list[Tensor] | None = None
    auxiliary: Outputs | None = None
    selection: LevelSelection | None = None
