"""What do assigning the objects of an image and computing its losses cost on a CPU?

Where mmdetection is installed, beside the same in mmdetection, with the greatest difference of any loss of any level.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from train.objective.criterion import Criterion, CriterionConfig
from train.structures import Outputs, Target

INPUT_HW = (800, 1344)
THREADS = 2
WARM_UPS, RUNS = 5, 30

# Milliseconds of assignment and loss of GFLHead for one image of this size, by its number of boxes
REFERENCE_MS = {1: 16, 10: 21, 100: 79, 500: 548}
REFERENCE_SOURCE = "mmdetection 3.3.0, measured apart on 2 cores"

# configs/gfl/gfl_r50_fpn_1x_coco.py of mmdetection 3.3.0; channels are of no account, as the maps are given
MMDETECTION_HEAD: dict[str, Any] = {
    "num_classes": 80,
    "in_channels": 32,
    "feat_channels": 32,
    "stacked_convs": 1,
    "anchor_generator": {
        "type": "AnchorGenerator",
        "ratios": [1.0],
        "octave_base_scale": 8,
        "scales_per_octave": 1,
        "strides": [8, 16, 32, 64, 128],
    },
    "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
    "loss_dfl": {"type": "DistributionFocalLoss", "loss_weight": 0.25},
    "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
    "reg_max": 16,
    "train_cfg": {"assigner": {"type": "ATSSAssigner", "topk": 9}, "allowed_border": -1, "pos_weight": -1},
}


def measure(folder: Path) -> dict[str, Any]:
    """Times of GFL's criterion at 80 classes by the number of boxes; writes nothing to ``folder``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        rows = [_measure_boxes(count) for count in REFERENCE_MS]
    finally:
        torch.set_num_threads(threads)
    return {
        "input_hw": INPUT_HW,
        "threads": THREADS,
        "runs": RUNS,
        "reference": REFERENCE_SOURCE,
        "by_boxes": rows,
    }


def _measure_mmdetection(outputs: Outputs, target: Target, losses: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Time of mmdetection's own GFLHead on the same input, and how far ``losses`` are from its; nothing without it."""
    try:
        head_class = importlib.import_module("mmdet.models.dense_heads").GFLHead
        instance_class = importlib.import_module("mmengine.structures").InstanceData
    except ImportError:
        return {}
    head = head_class(**MMDETECTION_HEAD)
    found: dict[str, list[torch.Tensor]] = {}

    def forward() -> None:
        instances = [instance_class(bboxes=target.boxes, labels=target.labels)]
        shape = {"img_shape": INPUT_HW, "pad_shape": INPUT_HW}
        found.update(head.loss_by_feat(outputs.cls_logits, outputs.reg_logits, instances, [shape]))

    forward_ms = _median_ms(forward)
    pairs = zip(losses.values(), (found[name] for name in ("loss_cls", "loss_bbox", "loss_dfl")), strict=True)
    difference = max((mine - torch.stack(theirs)).abs().max().item() for mine, theirs in pairs)
    return {"mmdetection_ms": round(forward_ms, 2), "largest_difference_to_mmdetection": difference}


def _measure_boxes(count: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(count)
    criterion = Criterion(CriterionConfig())
    outputs, targets = _outputs(criterion.config, generator), [random_target(count, INPUT_HW, 80, generator)]

    def forward() -> torch.Tensor:
        return torch.stack(list(criterion(outputs, targets, INPUT_HW).values())).sum()

    assign_ms = _median_ms(lambda: criterion.assign(outputs, targets, INPUT_HW))
    forward_ms = _median_ms(forward)
    return {
        "boxes": count,
        "positive_cells": len(criterion.assign(outputs, targets, INPUT_HW).cells),
        "assignment_ms": round(assign_ms, 2),
        "assignment_and_loss_ms": round(forward_ms, 2),
        "with_gradients_ms": round(_median_ms(lambda: torch.autograd.backward(forward())), 2),
        "reference_assignment_and_loss_ms": REFERENCE_MS[count],
        "times_faster": round(REFERENCE_MS[count] / forward_ms, 1),
        **_measure_mmdetection(outputs, targets[0], criterion.per_level(outputs, targets, INPUT_HW)),
    }


def _outputs(config: CriterionConfig, generator: torch.Generator) -> Outputs:
    """Random maps as of an untrained network: all scores are near 0.01."""
    maps: dict[int, list[torch.Tensor]] = {}
    for channels, mean in ((config.num_classes, -4.6), (4 * (config.reg_max + 1), 0.0)):
        shapes = [(1, channels, -(-INPUT_HW[0] // stride), -(-INPUT_HW[1] // stride)) for stride in config.strides]
        maps[channels] = [(torch.randn(shape, generator=generator) + mean).requires_grad_() for shape in shapes]
    cls_logits, reg_logits = maps.values()
    return Outputs(cls_logits, reg_logits)


def random_target(count: int, input_hw: tuple[int, int], num_classes: int, generator: torch.Generator) -> Target:
    """``count`` boxes of 8 to 512 pixels a side, evenly over the octaves, clipped to the image."""
    height, width = input_hw
    limits = torch.tensor((width, height, width, height))
    centers = torch.rand(count, 2, generator=generator) * limits[:2]
    halves = 4 * 2 ** (6 * torch.rand(count, 2, generator=generator))
    boxes = torch.cat((centers - halves, centers + halves), dim=1).clamp(min=0).minimum(limits)
    return Target(boxes, torch.randint(num_classes, (count,), generator=generator))


def _median_ms(work: Callable[[], object]) -> float:
    for _ in range(WARM_UPS):
        work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
