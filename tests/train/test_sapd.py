"""SAPD's objective: each formula by hand, the whole by a slow reference, gradients, chance-free ties."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.objective.maps import cell_grid, level_hw
from train.objective.sapd import (
    Claims,
    SapdConfig,
    SoftAnchorPoints,
    all_classes_focal,
    claimed_points,
    mean_by_level,
    point_weights,
    shrunken_boxes,
    smallest_win,
    soft_levels,
)
from train.structures import LevelSelection, Outputs, Target

SMALL = SapdConfig(num_classes=2, strides=(8, 16, 32))
INPUT_HW = (64, 96)


def boxes_of(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def targets_of(*boxes, labels=None, ignored=None):
    """One image each of a list of boxes."""
    return [
        Target(
            boxes_of(*rows),
            torch.tensor(labels or [i % 2 for i in range(len(rows))], dtype=torch.long)[: len(rows)],
            ignored,
        )
        for rows in boxes
    ]


def claims_of(targets, config=SMALL, input_hw=INPUT_HW):
    centers, _ = cell_grid(input_hw, config.strides, config.point_offset, torch.device("cpu"))
    return claimed_points(targets, centers, level_hw(input_hw, config.strides), config)


def random_outputs(config=SMALL, images=2, input_hw=INPUT_HW, seed=0, selection=None):
    generator = torch.Generator().manual_seed(seed)
    maps = {
        channels: [torch.randn(images, channels, *hw, generator=generator) for hw in level_hw(input_hw, config.strides)]
        for channels in (config.num_classes, 4)
    }
    return Outputs(
        [values - 2 for values in maps[config.num_classes]],
        [values.abs() + 0.3 for values in maps[4]],
        selection=selection,
    )


def selection_of(logits, is_soft=True):
    return LevelSelection(lambda boxes: logits, is_soft)


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_the_box_whose_points_learn_is_shrunken_about_its_center():
    assert shrunken_boxes(boxes_of([10, 20, 50, 100]), 0.2).tolist() == [[26, 52, 34, 68]]
    assert shrunken_boxes(boxes_of([10, 20, 50, 100]), 1.0).tolist() == [[10, 20, 50, 100]]


@pytest.mark.parametrize(("attenuation", "expected"), [(1.0, 1 / 6), (2.0, 1 / 36), (0.5, 6**-0.5), (0.0, 1.0)])
def test_the_weight_of_a_point_is_its_generalized_centerness(attenuation, expected):
    distances = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 4.0, 1.0]])  # 1 / 3 * 2 / 4, and the center
    assert point_weights(distances, attenuation).tolist() == pytest.approx([expected, 1.0])


def test_the_focal_loss_of_a_point_is_over_all_classes():
    p, q = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.5))
    expected = -0.25 * (1 - p) ** 2 * math.log(p) - 0.75 * q**2 * math.log(1 - q)
    found = all_classes_focal(torch.tensor([[0.5, -1.5], [-1.5, 0.5]]), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([expected, expected])


def test_the_loss_of_a_level_is_the_mean_over_the_points_there():
    claims = Claims(*(torch.tensor(x) for x in ([0, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 1], [0, 0, 2, 1])))
    found = mean_by_level(torch.tensor([1.0, 3.0, 5.0, 7.0]), claims, 3, 3)
    assert found.tolist() == [[2, math.inf, 5], [math.inf, 7, math.inf], [math.inf] * 3]


def test_the_weights_of_levels_are_the_largest_of_the_softmax():
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]).log()
    usable = torch.tensor([[True, True, True], [False, True, True]])
    torch.testing.assert_close(soft_levels(logits, usable, 2), torch.tensor([[0.5, 0.3, 0], [0, 0.3, 0.2]]))
    torch.testing.assert_close(soft_levels(logits, usable, 9)[0], torch.tensor([0.5, 0.3, 0.2]))


# --- which points learn which object ---------------------------------------------------------------------------------


def test_points_in_the_shrunken_box_learn_the_object():
    # Of 0..80 by 0..40 the shrunken box is 32..48 by 16..24, and points lie at 4, 12, 20 ...: two on the finest level.
    # On the others it has none, as those at 8, 24, 40 lie on its edge, and the one nearest to the center learns it
    claims = claims_of(targets_of([[0, 0, 80, 40]]))
    assert claims.levels.tolist() == [0, 0, 1, 2]
    centers, _ = cell_grid(INPUT_HW, SMALL.strides, SMALL.point_offset, torch.device("cpu"))
    assert centers[claims.points].tolist() == [[36, 20], [44, 20], [40, 24], [48, 16]]
    assert claims.points.tolist() == [2 * 12 + 4, 2 * 12 + 5, 96 + 1 * 6 + 2, 96 + 24 + 1]


def test_objects_and_images_are_counted_over_the_batch():
    big, small = [0, 0, 80, 40], [50, 10, 62, 22]
    claims = claims_of(targets_of([], [big, small], [small]))
    by_object = {(image, row) for image, row in zip(claims.images.tolist(), claims.objects.tolist(), strict=True)}
    assert by_object == {(1, 0), (1, 1), (2, 2)}


def test_an_object_between_the_points_of_a_level_is_not_learned_there():
    assert len(claims_of(targets_of([[5, 5, 7, 7]])).points) == 0
    claims = claims_of(targets_of([[2, 2, 7, 7]]))  # holds (4, 4), but neither (8, 8) nor (16, 16)
    assert (claims.levels.tolist(), claims.points.tolist()) == ([0], [0])


def test_a_box_that_reaches_beyond_the_image_has_points_inside():
    claims = claims_of(targets_of([[80, 50, 200, 200], [-60, -60, 10, 10]]))
    assert claims.points.max() < 96 + 24 + 6
    assert claims.points.min() >= 0


def test_the_smallest_object_has_the_point():
    boxes = boxes_of([0, 0, 40, 40], [10, 10, 30, 30], [10, 10, 30, 30])
    claims = Claims(*(torch.tensor(x) for x in ([0] * 4, [5, 5, 5, 7], [0, 1, 2, 0], [0] * 4)))
    everything = torch.ones(4, dtype=torch.bool)
    assert smallest_win(claims, boxes, everything, 1, 10).tolist() == [False, True, False, True]
    wanted = torch.tensor([True, False, False, False])
    assert smallest_win(claims, boxes, wanted, 1, 10).tolist() == wanted.tolist()


def test_a_point_of_one_image_is_none_of_another():
    claims = Claims(*(torch.tensor(x) for x in ([0, 1], [5, 5], [0, 1], [0, 0])))
    assert smallest_win(claims, boxes_of([0, 0, 9, 9], [0, 0, 5, 5]), torch.tensor([True, True]), 2, 10).all()


# --- the whole -------------------------------------------------------------------------------------------------------


def reference(
    outputs: Outputs, targets, config: SapdConfig, input_hw, logits: Tensor | None = None
) -> dict[str, float]:
    """The paper's loss, point by point in plain numbers; ``logits`` of the meta-selection network weigh the levels."""

    def focal(logit, is_object):
        p = 1 / (1 + math.exp(-logit))
        return -0.25 * (1 - p) ** 2 * math.log(p) if is_object else -0.75 * p**2 * math.log(1 - p)

    points = [
        (level, row, column, (column + 0.5) * stride, (row + 0.5) * stride, stride)
        for level, (stride, (rows, columns)) in enumerate(
            zip(config.strides, level_hw(input_hw, config.strides), strict=True)
        )
        for row in range(rows)
        for column in range(columns)
    ]

    def class_loss(image, point, label):
        values = outputs.cls_logits[point[0]][image, :, point[1], point[2]].tolist()
        return sum(focal(value, c == label) for c, value in enumerate(values))

    def box_loss(image, point, box):
        left, top, right, bottom = outputs.reg_logits[point[0]][image, :, point[1], point[2]].tolist()
        x, y, stride = point[3:]
        d = [(x - box[0]) / stride, (y - box[1]) / stride, (box[2] - x) / stride, (box[3] - y) / stride]
        shared = (min(d[0], left) + min(d[2], right)) * (min(d[1], top) + min(d[3], bottom))
        union = (left + right) * (top + bottom) + (d[0] + d[2]) * (d[1] + d[3]) - shared
        return -math.log((shared + 1e-6) / (union + 1e-6))

    focal_sum = box_sum = weight_sum = selection_sum = 0.0
    row = 0
    for image, target in enumerate(targets):
        learned = {}
        for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
            x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
            inside = [
                p for p in points if abs(p[3] - x) < config.shrink * w / 2 and abs(p[4] - y) < config.shrink * h / 2
            ]
            means = []
            for level in range(len(config.strides)):
                losses = [class_loss(image, p, label) + box_loss(image, p, box) for p in inside if p[0] == level]
                means.append(sum(losses) / len(losses) if losses else math.inf)
            best = means.index(min(means))
            if logits is None:
                shares = [float(level == best) for level in range(len(means))]
            else:
                soft = logits[row].softmax(0).tolist()
                selection_sum -= math.log(soft[best])
                soft = [share if math.isfinite(mean) else 0 for share, mean in zip(soft, means, strict=True)]
                least = sorted(soft, reverse=True)[: config.max_levels][-1]
                shares = [share if share >= least else 0 for share in soft]
            row += 1
            for point in inside:
                if shares[point[0]] > 0 and (point not in learned or learned[point][0] > w * h):
                    d = point[3] - box[0], point[4] - box[1], box[2] - point[3], box[3] - point[4]
                    central = min(d[0], d[2]) * min(d[1], d[3]) / max(d[0], d[2]) / max(d[1], d[3])
                    learned[point] = (w * h, box, label, shares[point[0]] * central**config.attenuation)
        for point in points:
            _, box, label, weight = learned.get(point, (0, None, -1, 1.0))
            focal_sum += weight * class_loss(image, point, label)
            if box is not None:
                box_sum += weight * box_loss(image, point, box)
                weight_sum += weight
    total = max(weight_sum, 1)
    found = {"focal": focal_sum / total, "iou": box_sum / total}
    return found if logits is None else {**found, "selection": 0.1 * selection_sum / row}


# Large enough to have points in their shrunken boxes on every level, and overlapping
OBJECTS = targets_of([[3, 2, 90, 60], [20, 10, 75, 55]], [[0, 0, 96, 64]])
WIDE = dataclasses.replace(SMALL, shrink=0.8)


@pytest.mark.parametrize("config", [WIDE, dataclasses.replace(WIDE, attenuation=0.5, max_levels=2)])
def test_losses_are_the_papers(config):
    outputs = random_outputs(config)
    found = SoftAnchorPoints(config)(outputs, OBJECTS, INPUT_HW)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        reference(outputs, OBJECTS, config, INPUT_HW), rel=1e-4
    )
    logits = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 1.0], [0.2, 0.0, -0.5]])
    found = SoftAnchorPoints(config)(dataclasses.replace(outputs, selection=selection_of(logits)), OBJECTS, INPUT_HW)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        reference(outputs, OBJECTS, config, INPUT_HW, logits), rel=1e-4
    )


def test_until_levels_are_soft_the_network_that_selects_only_learns():
    outputs = random_outputs()
    alone = SoftAnchorPoints(SMALL)(outputs, OBJECTS, INPUT_HW)
    logits = torch.zeros(3, 3, requires_grad=True)
    hard = SoftAnchorPoints(SMALL)(
        dataclasses.replace(outputs, selection=selection_of(logits, is_soft=False)), OBJECTS, INPUT_HW
    )
    assert hard["selection"].item() == pytest.approx(0.1 * math.log(3))
    assert {name: hard[name] for name in alone} == alone
    hard["selection"].backward()
    assert (logits.grad < 0).sum(dim=1).tolist() == [1, 1, 1]  # each object's best level


def test_weights_scale_a_loss():
    outputs = random_outputs(selection=selection_of(torch.zeros(3, 3)))
    plain = SoftAnchorPoints(SMALL)(outputs, OBJECTS, INPUT_HW)
    for field, name in (("cls_weight", "focal"), ("iou_weight", "iou"), ("selection_weight", "selection")):
        doubled = dataclasses.replace(SMALL, **{field: 2 * getattr(SMALL, field)})
        found = SoftAnchorPoints(doubled)(outputs, OBJECTS, INPUT_HW)
        for other, value in plain.items():
            assert found[other].item() == pytest.approx(value.item() * (2 if other == name else 1))


def test_a_batch_without_objects_has_finite_losses():
    outputs = random_outputs(selection=selection_of(torch.zeros(0, 3)))
    for values in (*outputs.cls_logits, *outputs.reg_logits):
        values.requires_grad_()
    found = SoftAnchorPoints(SMALL)(outputs, targets_of([], []), INPUT_HW)
    assert all(map(torch.isfinite, found.values()))
    assert (found["iou"].item(), found["selection"].item()) == (0, 0)
    sum(found.values()).backward()
    assert all((values.grad == 0).all() for values in outputs.reg_logits)
    assert all((values.grad != 0).all() for values in outputs.cls_logits)


def test_an_object_that_no_level_can_learn_is_left_out():
    targets = targets_of([[3, 2, 90, 60], [5, 5, 7, 7]], [[0, 0, 96, 64]])
    without = targets_of([[3, 2, 90, 60]], [[0, 0, 96, 64]])
    outputs = random_outputs()
    for is_soft in (True, False):
        logits = torch.tensor([[0.0, 1.0, 2.0], [9.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        found = SoftAnchorPoints(SMALL)(
            dataclasses.replace(outputs, selection=selection_of(logits, is_soft)), targets, INPUT_HW
        )
        expected = SoftAnchorPoints(SMALL)(
            dataclasses.replace(outputs, selection=selection_of(logits[[0, 2]], is_soft)), without, INPUT_HW
        )
        assert {name: value.item() for name, value in found.items()} == pytest.approx(
            {name: value.item() for name, value in expected.items()}
        )


def test_ignored_regions_are_no_background():
    outputs = random_outputs(images=1)
    region = boxes_of([0, 0, 96, 64])
    everywhere = targets_of([], ignored=region)
    assert SoftAnchorPoints(SMALL)(outputs, everywhere, INPUT_HW)["focal"].item() == 0
    objects = targets_of([[3, 2, 90, 60]], ignored=region)
    free = targets_of([[3, 2, 90, 60]])
    found, expected = (SoftAnchorPoints(SMALL)(outputs, targets, INPUT_HW) for targets in (objects, free))
    assert 0 < found["focal"] < expected["focal"]
    assert found["iou"] == expected["iou"]


def test_gradients_are_the_slopes_of_the_losses():
    logits = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 1.0], [0.2, 0.0, -0.5]])
    outputs = random_outputs(WIDE, selection=selection_of(logits))
    maps = [*outputs.cls_logits, *outputs.reg_logits]

    def total():
        return sum(SoftAnchorPoints(WIDE)(outputs, OBJECTS, INPUT_HW).values())

    for values in maps:
        values.requires_grad_()
    total().backward()
    generator = torch.Generator().manual_seed(1)
    for values in maps:
        direction = torch.randn(values.shape, generator=generator)
        slope = (values.grad * direction).sum().item()
        with torch.no_grad():
            values += 1e-3 * direction
            above = total().item()
            values -= 2e-3 * direction
            below = total().item()
            values += 1e-3 * direction
        assert (above - below) / 2e-3 == pytest.approx(slope, rel=0.03, abs=3e-3)


def test_only_its_own_loss_trains_the_network_that_selects():
    logits = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 1.0], [0.2, 0.0, -0.5]], requires_grad=True)
    outputs = random_outputs(selection=selection_of(logits))
    found = SoftAnchorPoints(SMALL)(outputs, OBJECTS, INPUT_HW)
    assert not (found["focal"] + found["iou"]).requires_grad
    found["selection"].backward()
    wanted = logits.detach().softmax(dim=1) - logits.grad * 3 / 0.1  # the one-hot targets of the cross entropy
    assert wanted.sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    torch.testing.assert_close(wanted, F.one_hot(wanted.argmax(dim=1), 3).float(), atol=1e-5, rtol=0)


def test_half_precision_maps_give_the_losses_of_their_values():
    outputs = random_outputs()
    half = Outputs([x.bfloat16() for x in outputs.cls_logits], [x.bfloat16() for x in outputs.reg_logits])
    same = Outputs([x.float() for x in half.cls_logits], [x.float() for x in half.reg_logits])
    found, expected = (SoftAnchorPoints(SMALL)(maps, OBJECTS, INPUT_HW) for maps in (half, same))
    assert found == expected
    assert all(value.dtype == torch.float32 for value in found.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"shrink": 0.0}, "shrink 0.0"), ({"attenuation": -1.0}, "attenuation -1.0"), ({"max_levels": 0}, "at least one")],
)
def test_impossible_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        SapdConfig(**fields)


def test_maps_of_other_shapes_are_refused():
    outputs = random_outputs()
    with pytest.raises(ValueError, match=r"reg_logits .*: expected"):
        SoftAnchorPoints(SMALL)(dataclasses.replace(outputs, reg_logits=outputs.reg_logits[:2]), OBJECTS, INPUT_HW)
