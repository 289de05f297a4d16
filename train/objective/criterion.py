"""The training objective of GFL detectors and of the baselines: assignment, losses and how they are averaged.

Sources: Li et al., NeurIPS 2020, eq. 8; mmdetection 3.3.0, mmdet/models/dense_heads/gfl_head.py and atss_head.py;
RangiLyu/nanodet, nanodet/model/head/nanodet_plus_head.py. Boxes are compared in strides, so that all levels are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from train.models.traits import TRAITS, Family, Quality, Regression
from train.objective.atss import assign_atss
from train.objective.dynamic_soft_label import assign_dynamic_soft_labels
from train.objective.losses import (
    FOCAL_ALPHA,
    background_loss,
    centerness_loss,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    iou,
    quality_focal_loss,
)
from train.objective.maps import (
    boxes_around,
    cell_grid,
    check_maps,
    distances_to_edges,
    ignored_cells,
    level_hw,
    process_mean,
)
from train.objective.positives import Positives
from train.structures import Outputs, Target

Assigner = Literal["atss", "dynamic_soft_label"]

# Distances to learn stay that far below reg_max, where there is no bin to their right (mmdetection: bbox2distance)
LAST_BIN_MARGIN = 0.1


@dataclass(frozen=True)
class CriterionConfig:
    """What is trained, and how much each part counts. The defaults are mmdetection's for GFL on COCO.

    Attributes:
        num_classes: class logits per cell.
        reg_max: the distribution of an edge has ``reg_max + 1`` bins.
        strides: pixels of the input per cell of each level.
        point_offset: cell i of a level lies at ``(i + point_offset) * stride``.
        quality: "joint" trains the class score as the IoU (Quality Focal Loss), also where the network itself
            multiplies the two (GFLv2); "centerness" is ATSS, focal loss and a branch of its own; "none" is
            the focal loss alone, and all boxes of positives count the same.
        regression: "distribution", or "dirac" or "delta" for one distance per edge, without Distribution Focal Loss.
        assigner: "atss" by anchors, or "dynamic_soft_label" by what is predicted, as in NanoDet-Plus.
        topk: candidates per object: on each level for "atss", among all cells for "dynamic_soft_label".
        anchor_scale: sides of ATSS' anchors in strides.
        iou_factor: weight of the IoU in the costs of "dynamic_soft_label".
        cls_weight: of the Quality Focal Loss or the focal loss.
        giou_weight: of the GIoU loss.
        dfl_weight: of the Distribution Focal Loss.
        centerness_weight: of the centerness loss.

    Raises:
        ValueError: fields that do not fit together.
    """

    num_classes: int = 80
    reg_max: int = 16
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    point_offset: float = 0.0
    quality: Quality = "joint"
    regression: Regression = "distribution"
    assigner: Assigner = "atss"
    topk: int = 9
    anchor_scale: float = 8.0
    iou_factor: float = 3.0
    cls_weight: float = 1.0
    giou_weight: float = 2.0
    dfl_weight: float = 0.25
    centerness_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, choices in (("quality", Quality), ("regression", Regression), ("assigner", Assigner)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(get_args(choices))}")
        if self.quality == "centerness" and self.assigner == "dynamic_soft_label":
            raise ValueError(
                "quality centerness with assigner dynamic_soft_label: it assigns cells outside of their object, "
                "where there is no centerness. Take assigner atss or quality joint"
            )
        if self.topk < 1 or self.num_classes < 1 or self.reg_max < 1 or not self.strides:
            raise ValueError(f"expected at least one class, bin, stride and candidate, got {self}")


# RangiLyu/nanodet, config/legacy_v0.x_configs and config/nanodet-plus-m_416.yml. Of the EfficientLites, Lite1 has
# anchors of 8 strides, the others of 5
CONFIGS: dict[Family, CriterionConfig] = {
    "nanodet": CriterionConfig(
        reg_max=7, strides=(8, 16, 32), point_offset=TRAITS["nanodet"].point_offset, anchor_scale=5.0
    ),
    "nanodet-g": CriterionConfig(
        reg_max=10, strides=(8, 16, 32), point_offset=TRAITS["nanodet-g"].point_offset, anchor_scale=8.0
    ),
    "nanodet-t": CriterionConfig(
        reg_max=7, strides=(8, 16, 32), point_offset=TRAITS["nanodet-t"].point_offset, anchor_scale=5.0
    ),
    "nanodet-efficientlite": CriterionConfig(
        reg_max=7, strides=(8, 16, 32), point_offset=TRAITS["nanodet-efficientlite"].point_offset, anchor_scale=5.0
    ),
    "nanodet-repvgg": CriterionConfig(
        reg_max=10, strides=(8, 16, 32), point_offset=TRAITS["nanodet-repvgg"].point_offset, anchor_scale=8.0
    ),
    "nanodet-plus": CriterionConfig(
        reg_max=7,
        strides=(8, 16, 32, 64),
        point_offset=TRAITS["nanodet-plus"].point_offset,
        assigner="dynamic_soft_label",
        topk=13,
    ),
    "gfl": CriterionConfig(point_offset=TRAITS["gfl"].point_offset),
    "gflv2": CriterionConfig(point_offset=TRAITS["gflv2"].point_offset),
    "atss": CriterionConfig(point_offset=TRAITS["atss"].point_offset, quality="centerness", regression="delta"),
}


class Criterion:
    """Computes the losses of a batch; holds no state and no parameters."""

    def __init__(self, config: CriterionConfig) -> None:
        self.config = config

    def __call__(self, outputs: Outputs, targets: Sequence[Target], input_hw: tuple[int, int]) -> dict[str, Tensor]:
        """Weighted losses, float32 scalars, whose sum is to be minimized.

        "qfl" or "focal", "giou", "dfl" (of distributions), "centerness" (only of that quality); those of an
        auxiliary head again with the prefix "aux_". A batch without boxes gives finite losses, and zero gradients for
        boxes and centerness.

        Args:
            outputs: maps of a batch of N images.
            targets: the objects of each image, on the same device.
            input_hw: height and width in pixels of the network's input, the same for all images.

        Raises:
            ValueError: another number of targets or other shapes than the configuration asks for.
        """
        return {name: losses.sum() for name, losses in self.per_level(outputs, targets, input_hw).items()}

    def per_level(self, outputs: Outputs, targets: Sequence[Target], input_hw: tuple[int, int]) -> dict[str, Tensor]:
        """As a call, but ``[levels]`` under each name: what each level contributes."""
        config, sizes = self.config, level_hw(input_hw, self.config.strides)
        bins = config.reg_max + 1 if config.regression == "distribution" else 1
        for head in (outputs, outputs.auxiliary):
            if head is not None:
                check_maps("cls_logits", head.cls_logits, len(targets), config.num_classes, sizes)
                check_maps("reg_logits", head.reg_logits, len(targets), 4 * bins, sizes)
                if config.quality == "centerness":
                    check_maps("centerness", head.centerness or [], len(targets), 1, sizes)

        # The auxiliary head learns faster, so the assignment follows what it predicts (NanoDet-Plus)
        positives = self.assign(outputs.auxiliary or outputs, targets, input_hw)
        positive = self._to_learn(positives, targets, input_hw)
        losses = self._losses(outputs, positive)
        if outputs.auxiliary is not None:
            auxiliary = self._losses(outputs.auxiliary, positive)
            losses |= {f"aux_{name}": values for name, values in auxiliary.items()}
        return losses

    def assign(self, outputs: Outputs, targets: Sequence[Target], input_hw: tuple[int, int]) -> Positives:
        """Which cells learn which object. Only "dynamic_soft_label" looks at what ``outputs`` predict."""
        config = self.config
        if config.assigner == "atss":
            sizes = level_hw(input_hw, config.strides)
            return assign_atss(targets, sizes, config.strides, config.point_offset, config.topk, config.anchor_scale)
        with torch.no_grad():
            cls_logits = torch.cat([logits.flatten(2) for logits in outputs.cls_logits], dim=2)
            reg_logits = torch.cat([logits.flatten(2) for logits in outputs.reg_logits], dim=2)
            centers, strides = self._grid(input_hw, cls_logits.device)
            boxes = boxes_around(centers, self._distances(reg_logits.transpose(1, 2)) * strides)
        return assign_dynamic_soft_labels(targets, cls_logits, boxes, centers, config.topk, config.iou_factor)

    def _grid(self, input_hw: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Centers ``[A, 2]`` xy in pixels and strides ``[A, 1]`` of all cells."""
        return cell_grid(input_hw, self.config.strides, self.config.point_offset, device)

    def _distances(self, reg_logits: Tensor) -> Tensor:
        """Distances ``[..., 4]`` in strides: expectations of the distributions (eq. 5), or numbers as they are."""
        if self.config.regression != "distribution":
            return reg_logits.float()
        probabilities = _edges(reg_logits).float().softmax(dim=-1)
        # No matrix product, which autocast would take to FP16
        return (probabilities * torch.arange(self.config.reg_max + 1, device=reg_logits.device)).sum(dim=-1)

    def _to_learn(self, positives: Positives, targets: Sequence[Target], input_hw: tuple[int, int]) -> _PositiveTargets:
        """What the positives are to learn, ordered by level."""
        config, device = self.config, positives.cells.device
        sizes = torch.tensor([rows * columns for rows, columns in level_hw(input_hw, config.strides)], device=device)
        ends = sizes.cumsum(0)
        levels = torch.bucketize(positives.cells, ends, right=True)
        order = levels.argsort(stable=True)
        cells, objects = positives.cells[order], positives.objects[order]
        grid, steps = self._grid(input_hw, device)
        centers, strides = grid[cells], steps[cells]
        counts = positives.images.bincount(minlength=len(targets))
        if config.assigner == "atss":
            counts = counts.clamp(min=1)  # an image without positives counts as one: mmdetection, not NanoDet-Plus
        ignored = ignored_cells(targets, positives.images, positives.cells, grid)
        return _PositiveTargets(
            counts=levels.bincount(minlength=len(sizes)).tolist(),
            images=positives.images[order],
            cells=cells - (ends - sizes)[levels[order]],
            labels=torch.cat([target.labels for target in targets])[objects],
            centers=centers / strides,
            boxes=torch.cat([target.boxes for target in targets]).float()[objects] / strides,
            qualities=positives.ious[order] if config.assigner == "dynamic_soft_label" else None,
            normalizer=counts.sum().float(),
            ignored=None if ignored is None else list(torch.split(ignored, sizes.tolist(), dim=1)),
        )

    def _losses(self, outputs: Outputs, positive: _PositiveTargets) -> dict[str, Tensor]:
        """Weighted losses ``[levels]`` of one head."""
        config = self.config
        reg_logits = positive.gather(outputs.reg_logits)
        boxes = boxes_around(positive.centers, self._distances(reg_logits))
        weights = self._weights(outputs, positive)
        num_positives, total_weight = process_mean(torch.stack((positive.normalizer, weights.sum())))

        giou = positive.sum_levels(weights * giou_loss(boxes, positive.boxes)) / total_weight
        losses = {"giou": config.giou_weight * giou}
        if config.regression == "distribution":
            distances = positive.distances.clamp(0, config.reg_max - LAST_BIN_MARGIN)
            dfl = weights * distribution_focal_loss(_edges(reg_logits), distances).mean(dim=-1)
            losses["dfl"] = config.dfl_weight * positive.sum_levels(dfl) / total_weight
        if config.quality == "joint":
            qualities = iou(boxes.detach(), positive.boxes) if positive.qualities is None else positive.qualities
            qfl = _classification(outputs.cls_logits, positive, quality_focal_loss, qualities, 1.0) / num_positives
            return {"qfl": config.cls_weight * qfl, **losses}
        wanted, share = torch.ones_like(weights), 1 - FOCAL_ALPHA
        focal = _classification(outputs.cls_logits, positive, focal_loss, wanted, share) / num_positives
        if config.quality == "centerness":
            assert outputs.centerness is not None  # per_level has checked it
            centerness = centerness_loss(positive.gather(outputs.centerness).squeeze(1), weights)
            losses["centerness"] = config.centerness_weight * positive.sum_levels(centerness) / num_positives
        return {"focal": config.cls_weight * focal, **losses}

    def _weights(self, outputs: Outputs, positive: _PositiveTargets) -> Tensor:
        """How much the box of each positive counts ``[P]``: its highest score at present, its centerness, or 1."""
        if self.config.quality == "joint":
            return positive.gather(outputs.cls_logits).detach().float().sigmoid().amax(dim=1)
        if self.config.quality == "none":
            return torch.ones_like(positive.centers[:, 0])
        # Tian et al., ICCV 2019, eq. 3
        near = torch.minimum(positive.distances[:, :2], positive.distances[:, 2:])
        far = torch.maximum(positive.distances[:, :2], positive.distances[:, 2:])
        return (near / far).prod(dim=1).sqrt()


@dataclass(frozen=True)
class _PositiveTargets:
    """P positives and what they are to learn, ordered by level; lengths in strides of their level.

    Attributes:
        counts: positives on each level.
        images: int64 ``[P]``, index in the batch.
        cells: int64 ``[P]``, index within the level.
        labels: int64 ``[P]``.
        centers: ``[P, 2]`` xy.
        boxes: ``[P, 4]`` xyxy.
        qualities: ``[P]``, to be learnt by the score; None where they are those of the predicted boxes.
        normalizer: what classification losses are divided by on this process.
        ignored: bool ``[N, A_i]`` per level, the cells that are neither positive nor background; None: there are none.
    """

    counts: list[int]
    images: Tensor
    cells: Tensor
    labels: Tensor
    centers: Tensor
    boxes: Tensor
    qualities: Tensor | None
    normalizer: Tensor
    ignored: list[Tensor] | None = None

    @property
    def distances(self) -> Tensor:
        """From the centers to the edges of the boxes ``[P, 4]``: left, top, right, bottom."""
        return distances_to_edges(self.centers, self.boxes)

    def gather(self, maps: Sequence[Tensor]) -> Tensor:
        """From one map ``[N, C, H_i, W_i]`` per level, the positives' values ``[P, C]``."""
        places = zip(maps, torch.split(self.images, self.counts), torch.split(self.cells, self.counts), strict=True)
        return torch.cat([values.flatten(2)[images, :, cells] for values, images, cells in places])

    def sum_levels(self, values: Tensor) -> Tensor:
        """``[P]`` -> ``[levels]``."""
        return torch.stack([part.sum() for part in torch.split(values, self.counts)])


def _classification(
    cls_logits: Sequence[Tensor],
    positive: _PositiveTargets,
    loss: Callable[[Tensor, Tensor], Tensor],
    scores: Tensor,
    background_share: float,
) -> Tensor:
    """Sums ``[levels]`` of a loss over all classes of all cells, where positives learn ``scores`` ``[P]``, others 0.

    Ignored cells have no part in it. Only the positives' own classes go through ``loss`` itself; its value at 0 is
    ``background_share`` times :func:`train.objective.losses.background_loss`.
    """
    parts = (
        torch.split(values, positive.counts) for values in (positive.images, positive.labels, positive.cells, scores)
    )
    sums = []
    ignored: Sequence[Tensor | None] = positive.ignored or [None] * len(cls_logits)
    for level, images, labels, cells, wanted, left_out in zip(cls_logits, *parts, ignored, strict=True):
        logits, own = level.flatten(2), (images, labels, cells)
        losses = background_loss(logits) * background_share
        if left_out is not None:
            losses = losses.masked_fill(left_out[:, None], 0)
        losses[own] = loss(logits[own], wanted)
        sums.append(losses.sum())
    return torch.stack(sums)


def _edges(reg_logits: Tensor) -> Tensor:
    """``[..., 4 * (reg_max + 1)]`` -> ``[..., 4, reg_max + 1]``."""
    return torch.unflatten(reg_logits, -1, (4, -1))
