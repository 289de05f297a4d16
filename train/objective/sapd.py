"""The training objective of SAPD: Zhu et al., Soft Anchor-Point Object Detection, ECCV 2020 (arXiv 1911.12448).

An anchor point, the center of a cell, learns an object that has it in its shrunken box, on the levels that the object
is assigned to (section 3.1). It counts by how central it lies (3.2) and by how well its level suits the object (3.3).
The level that suits best is FSAF's: the one of the least loss (Zhu et al., CVPR 2019, section 3.3); a network that
exists only in training learns to foresee it, and what it predicts is the weight of each level.

Where the paper leaves something open: an object without a point in its shrunken box on some level has the nearest point
there, if that lies in its box; a point that several objects want goes to the smallest; the weights of levels take part
in the loss as numbers, so that the network which predicts them learns from its own loss alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.models.traits import TRAITS
from train.objective.losses import FOCAL_ALPHA, background_loss, focal_loss, iou_loss
from train.objective.maps import (
    boxes_around,
    cell_grid,
    check_maps,
    distances_to_edges,
    ignored_cells,
    inside,
    level_hw,
    process_mean,
)
from train.objective.positives import MAX_INDEX, sort_keys
from train.structures import LevelSelection, Outputs, Target


@dataclass(frozen=True)
class SapdConfig:
    """What is trained, and how much each part counts. The defaults are the paper's.

    Attributes:
        num_classes: class logits per point.
        strides: pixels of the input per cell of each level.
        point_offset: the point of cell i lies at ``(i + point_offset) * stride``.
        shrink: sides of the box whose points learn an object, in parts of the object's: epsilon.
        attenuation: exponent of the weight of a point: eta. 0: all points count the same.
        max_levels: that learn an object, those with the largest weights: k.
        cls_weight: of the focal loss.
        iou_weight: of the IoU loss.
        selection_weight: of the loss of the meta-selection network: lambda.

    Raises:
        ValueError: impossible values.
    """

    num_classes: int = 80
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    point_offset: float = TRAITS["sapd"].point_offset
    shrink: float = 0.2
    attenuation: float = 1.0
    max_levels: int = 3
    cls_weight: float = 1.0
    iou_weight: float = 1.0
    selection_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.max_levels < 1 or not self.strides:
            raise ValueError(f"expected at least one class and level, got {self}")
        if not 0 < self.shrink <= 1:
            raise ValueError(f"shrink {self.shrink}: expected more than 0, and 1 at most")
        if self.attenuation < 0:
            raise ValueError(f"attenuation {self.attenuation}: expected 0 or more")

    @property
    def assigner(self) -> str:
        """What messages call the rule by which points learn objects."""
        return "SAPD"


@dataclass(frozen=True)
class Claims:
    """Points and the objects that they may learn, P pairs.

    Attributes:
        images: int64 ``[P]``, index in the batch.
        points: int64 ``[P]``, index over the cells of all levels.
        objects: int64 ``[P]``, row in the boxes of all images, one image after the other.
        levels: int64 ``[P]``.
    """

    images: Tensor
    points: Tensor
    objects: Tensor
    levels: Tensor

    def where(self, chosen: Tensor) -> Claims:
        """Those of a bool ``[P]``."""
        return Claims(self.images[chosen], self.points[chosen], self.objects[chosen], self.levels[chosen])


class SoftAnchorPoints:
    """Computes the losses of a batch; holds no state and no parameters."""

    def __init__(self, config: SapdConfig) -> None:
        self.config = config

    def __call__(self, outputs: Outputs, targets: Sequence[Target], input_hw: tuple[int, int]) -> dict[str, Tensor]:
        """Weighted losses, float32 scalars, whose sum is to be minimized: "focal", "iou", "selection".

        Without ``outputs.selection`` there is no "selection", and an object is learned only by the level of its least
        loss. A batch without boxes gives finite losses, and zero gradients for boxes and levels.

        Args:
            outputs: maps of a batch of N images.
            targets: the objects of each image, on the same device.
            input_hw: height and width in pixels of the network's input, the same for all images.

        Raises:
            ValueError: another number of targets or other shapes than the configuration asks for.
        """
        config, sizes = self.config, level_hw(input_hw, self.config.strides)
        check_maps("cls_logits", outputs.cls_logits, len(targets), config.num_classes, sizes)
        check_maps("reg_logits", outputs.reg_logits, len(targets), 4, sizes)
        cls_logits, distances = (
            torch.cat([level.float().flatten(2) for level in maps], dim=2)
            for maps in (outputs.cls_logits, outputs.reg_logits)
        )
        boxes = torch.cat([target.boxes for target in targets]).float()
        labels = torch.cat([target.labels for target in targets])
        centers, strides = cell_grid(input_hw, config.strides, config.point_offset, boxes.device)

        claims = claimed_points(targets, centers, sizes, config)
        points = (centers / strides)[claims.points]
        to_learn = boxes[claims.objects] / strides[claims.points]
        predicted = boxes_around(points, distances[claims.images, :, claims.points])
        box_losses = iou_loss(predicted, to_learn)
        with torch.no_grad():
            classes = all_classes_focal(cls_logits[claims.images, :, claims.points], labels[claims.objects])
            losses = mean_by_level(classes + box_losses, claims, len(boxes), len(sizes))
        level_weights, selection = self._levels(outputs.selection, targets, losses)

        shares = level_weights[claims.objects, claims.levels]
        weights = shares * point_weights(distances_to_edges(points, to_learn), config.attenuation)
        won = smallest_win(claims, boxes, shares > 0, len(targets), len(centers))
        weights, learned = weights[won], claims.where(won)
        total, objects = process_mean(torch.stack((weights.sum(), losses.isfinite().any(dim=1).sum().float())))
        focal = _weighted_focal(cls_logits, learned, labels[learned.objects], weights, targets, centers)
        found = {
            "focal": config.cls_weight * focal / total,
            "iou": config.iou_weight * (weights * box_losses[won]).sum() / total,
        }
        if selection is not None:
            found["selection"] = config.selection_weight * selection.sum() / objects
        return found

    def _levels(
        self, selection: LevelSelection | None, targets: Sequence[Target], losses: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """How much each level learns of each object ``[M, levels]``, and the losses ``[M]`` of who predicts it.

        ``losses`` are those of :func:`mean_by_level`.
        """
        best = losses.argmin(dim=1)
        hard = F.one_hot(best, losses.shape[1]).float()
        if selection is None:
            return hard, None
        logits = selection.logits([target.boxes for target in targets]).float()
        found = F.cross_entropy(logits, best, reduction="none") * losses.isfinite().any(dim=1)
        if not selection.is_soft:
            return hard, found
        return soft_levels(logits.detach(), losses.isfinite(), self.config.max_levels), found


def shrunken_boxes(boxes: Tensor, shrink: float) -> Tensor:
    """The valid box of section 3.1, ``(c, x, y, shrink * w, shrink * h)``: ``[..., 4]`` xyxy both."""
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = shrink * (boxes[..., 2:] - boxes[..., :2]) / 2
    return torch.cat((center - half, center + half), dim=-1)


def claimed_points(
    targets: Sequence[Target], centers: Tensor, sizes: Sequence[tuple[int, int]], config: SapdConfig
) -> Claims:
    """The points in the shrunken boxes, by image, object and point.

    Args:
        targets: objects of each image.
        centers: of all cells ``[A, 2]`` xy in pixels.
        sizes: rows and columns of each level.
        config: which boxes are taken, and where points lie.
    """
    counts = torch.tensor([rows * columns for rows, columns in sizes], device=centers.device)
    level_of = torch.arange(len(sizes), device=centers.device).repeat_interleave(counts)
    found, first = [], 0
    for image, target in enumerate(targets):
        claims = inside(centers, shrunken_boxes(target.boxes.float(), config.shrink))
        _add_nearest(claims, target.boxes.float(), centers, sizes, config)
        objects, points = claims.nonzero(as_tuple=True)
        found.append(torch.stack((torch.full_like(points, image), points, objects + first, level_of[points])))
        first += len(target.boxes)
    return Claims(*torch.cat(found, dim=1))


def _add_nearest(
    claims: Tensor, boxes: Tensor, centers: Tensor, sizes: Sequence[tuple[int, int]], config: SapdConfig
) -> None:
    """Give objects without a point on a level the one nearest to their center, if it lies in their box, in place."""
    first = 0
    for (rows, columns), stride in zip(sizes, config.strides, strict=True):
        cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride - config.point_offset).round().long()
        nearest = first + cells[:, 1].clamp(0, rows - 1) * columns + cells[:, 0].clamp(0, columns - 1)
        lonely = ~claims[:, first : first + rows * columns].any(dim=1)
        margins = distances_to_edges(centers[nearest], boxes).amin(dim=1)
        claims[torch.arange(len(boxes), device=boxes.device), nearest] |= lonely & (margins > 0)
        first += rows * columns


def point_weights(distances: Tensor, attenuation: float) -> Tensor:
    """The generalized centerness of section 3.2: ``(min(l, r) min(t, b) / (max(l, r) max(t, b))) ^ attenuation``.

    Args:
        distances: positive, from points to the edges of their object ``[..., 4]``: left, top, right, bottom.

    Returns:
        ``[...]``, 1 at the center of the object.
    """
    near = torch.minimum(distances[..., :2], distances[..., 2:])
    far = torch.maximum(distances[..., :2], distances[..., 2:])
    return (near / far).prod(dim=-1).pow(attenuation)


def all_classes_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """The focal loss of points, over all classes: ``[P, C]`` and the class of each ``[P]`` -> float32 ``[P]``."""
    return focal_loss(logits, F.one_hot(labels, logits.shape[1])).sum(dim=1)


def mean_by_level(losses: Tensor, claims: Claims, num_objects: int, levels: int) -> Tensor:
    """The loss that each level has of each object, FSAF's eq. 1: the mean over the object's points there.

    Args:
        losses: of the points ``[P]``, of classes and box.

    Returns:
        ``[num_objects, levels]``, infinite where an object has no point.
    """
    places = claims.objects * levels + claims.levels
    sums = losses.new_zeros(num_objects * levels).index_add_(0, places, losses)
    means = sums / places.bincount(minlength=num_objects * levels)  # 0 / 0 without points
    return means.nan_to_num(nan=torch.inf).reshape(num_objects, levels)


def soft_levels(logits: Tensor, usable: Tensor, max_levels: int) -> Tensor:
    """The weights of levels of section 3.3: the largest ``max_levels`` of the softmax, 0 for the others.

    Args:
        logits: ``[M, levels]`` of the meta-selection network.
        usable: bool ``[M, levels]``, whether a level has points of the object; the others are passed over.
    """
    weights = logits.softmax(dim=1) * usable
    chosen = weights.topk(min(max_levels, weights.shape[1]), dim=1)
    return torch.zeros_like(weights).scatter(1, chosen.indices, chosen.values)


def smallest_win(claims: Claims, boxes: Tensor, wanted: Tensor, num_images: int, num_points: int) -> Tensor:
    """Which claims win: of those ``wanted``, bool ``[P]``, the one of the smallest box has the point; bool ``[P]``.

    Of equal boxes the first wins.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    keys = sort_keys(sides.prod(dim=1)[claims.objects], claims.objects)
    nobody = sort_keys(keys.new_tensor(torch.inf, dtype=torch.float32), keys.new_tensor(MAX_INDEX))
    keys = torch.where(wanted, keys, nobody)
    places = claims.images * num_points + claims.points
    least = nobody.repeat(num_images * num_points).scatter_reduce_(0, places, keys, "amin")
    return wanted & (keys == least[places])


def _weighted_focal(
    cls_logits: Tensor, learned: Claims, labels: Tensor, weights: Tensor, targets: Sequence[Target], centers: Tensor
) -> Tensor:
    """The sum of the focal loss over all points and classes, those that learn an object weighted, others by 1.

    Ignored cells have no part in it.
    """
    shares = torch.ones_like(cls_logits[:, 0])
    shares[learned.images, learned.points] = weights
    ignored = ignored_cells(targets, learned.images, learned.points, centers)
    if ignored is not None:
        shares = shares.masked_fill(ignored, 0)
    losses = (1 - FOCAL_ALPHA) * background_loss(cls_logits) * shares[:, None]
    own = (learned.images, labels, learned.points)
    losses[own] = weights * focal_loss(cls_logits[own], torch.ones_like(weights))
    return losses.sum()
