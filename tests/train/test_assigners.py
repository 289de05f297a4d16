"""Assigners against slow references that loop over objects and cells, and against what nanodet's own code gave."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfl_edge.ops import decode
from gfl_edge.ops.boxes import pairwise_iou
from train.objective.atss import assign_atss
from train.objective.dynamic_soft_label import assign_dynamic_soft_labels
from train.objective.positives import MAX_INDEX, sort_keys
from train.structures import Target

GRIDS = {
    "gfl": {"strides": (8, 16, 32, 64, 128), "point_offset": 0.0, "anchor_scale": 8.0},
    "nanodet": {"strides": (8, 16, 32), "point_offset": 0.5, "anchor_scale": 5.0},
}
INPUT_HW = (96, 136)


def levels(input_hw, strides):
    return [(math.ceil(input_hw[0] / stride), math.ceil(input_hw[1] / stride)) for stride in strides]


def target(boxes, labels=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Target(
        torch.from_numpy(boxes), torch.from_numpy(np.zeros(len(boxes), np.int64) if labels is None else labels)
    )


def rows(positives):
    """(image, cell, object) of every positive, in order."""
    return list(zip(positives.images.tolist(), positives.cells.tolist(), positives.objects.tolist(), strict=True))


def random_target(rng, count, input_hw=INPUT_HW, whole=False):
    """Boxes of many sizes, also reaching beyond the image."""
    centers = rng.uniform(0, 1, (count, 2)) * input_hw[::-1]
    halves = 4 * 2 ** rng.uniform(-1, 4, (count, 2))
    boxes = np.concatenate((centers - halves, centers + halves), axis=1)
    return target(boxes.round() if whole else boxes)


def atss(targets, grid, input_hw=INPUT_HW, topk=9):
    strides = grid["strides"]
    return assign_atss(
        targets, levels(input_hw, strides), strides, grid["point_offset"], topk, anchor_scale=grid["anchor_scale"]
    )


# --- ATSS ------------------------------------------------------------------------------------------------------------


def slow_atss(targets, grid, input_hw=INPUT_HW, topk=9):
    """Algorithm 1 of the paper, one object after the other: (image, cell, object) of every positive."""
    found, first_object = [], 0
    for image, one in enumerate(targets):
        best = {}
        for index, box in enumerate(one.boxes.numpy()):
            for cell, iou in slow_atss_object(box, grid, input_hw, topk):
                if iou > best.get(cell, (-1.0, 0))[0]:
                    best[cell] = (iou, first_object + index)
        found += [(image, cell, best[cell][1]) for cell in sorted(best)]
        first_object += len(one.boxes)
    return found


def slow_atss_object(box, grid, input_hw, topk):
    """The positive cells of one object with their IoUs."""
    candidates, first_cell = [], 0
    for stride in grid["strides"]:
        centers, _ = decode.points(input_hw, (stride,), grid["point_offset"])
        squares = (centers - (box[:2] + box[2:]) / 2) ** 2
        order = np.argsort(squares.sum(axis=1), kind="stable")[:topk]
        half = np.float32(grid["anchor_scale"] * stride / 2)
        for cell in order:
            anchor = np.concatenate((centers[cell] - half, centers[cell] + half))
            iou = pairwise_iou(anchor[None], box[None])[0, 0]
            candidates.append((first_cell + int(cell), centers[cell], iou))
        first_cell += len(centers)
    ious = np.array([iou for _, _, iou in candidates], np.float64)
    threshold = ious.mean() + ious.std(ddof=1)
    inside = [min(*(center - box[:2]), *(box[2:] - center)) > 0.01 for _, center, _ in candidates]
    return [
        (cell, iou) for (cell, _, iou), within in zip(candidates, inside, strict=True) if within and iou >= threshold
    ]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("whole", [False, True])  # whole pixels: many distances are equal
@pytest.mark.parametrize("seed", range(4))
def test_atss_equals_the_loop(grid, whole, seed):
    rng = np.random.default_rng(seed)
    targets = [random_target(rng, count, whole=whole) for count in (3, 0, 25)]
    expected = slow_atss(targets, GRIDS[grid])
    assert len(expected) > 20
    assert rows(atss(targets, GRIDS[grid])) == expected


@pytest.mark.parametrize("input_hw", [(8, 300), (300, 8), (20, 20), (8, 8)])
@pytest.mark.parametrize("topk", [1, 4, 9])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_atss_on_levels_with_few_rows_columns_or_cells(input_hw, topk, grid):
    rng = np.random.default_rng(1)
    targets = [random_target(rng, 12, input_hw)]
    assert rows(atss(targets, grid, input_hw, topk)) == slow_atss(targets, grid, input_hw, topk)


def test_atss_wants_a_size_and_a_stride_of_every_level():
    with pytest.raises(ValueError, match="longer"):
        assign_atss([target([[8, 8, 40, 40]])], [(4, 4), (2, 2)], (8, 16, 32))


def test_atss_of_objects_beyond_the_image():
    beyond = target([[-90, -90, -60, -60], [500, 40, 560, 90], [-400, -400, 600, 600], [130, 90, 170, 130]])
    assert rows(atss([beyond], GRIDS["gfl"])) == slow_atss([beyond], GRIDS["gfl"])


@given(seed=st.integers(0, 2**32 - 1), whole=st.booleans(), grid=st.sampled_from(list(GRIDS)))
@settings(max_examples=30, deadline=None)
def test_atss_of_a_batch_is_that_of_its_images(seed, whole, grid):
    rng = np.random.default_rng(seed)
    targets = [random_target(rng, count, whole=whole) for count in rng.integers(0, 8, 3)]
    expected, first_object = [], 0
    for image, one in enumerate(targets):
        expected += [(image, cell, first_object + index) for _, cell, index in rows(atss([one], GRIDS[grid]))]
        first_object += len(one.boxes)
    assert rows(atss(targets, GRIDS[grid])) == expected


@pytest.mark.parametrize("counts", [(0,), (0, 0)])
def test_atss_without_objects(counts):
    found = atss([target([]) for _ in counts], GRIDS["gfl"])
    assert len(found.images) == len(found.cells) == len(found.objects) == len(found.ious) == 0
    assert {column.dtype for column in (found.images, found.cells, found.objects)} == {torch.int64}
    assert found.ious.dtype == torch.float32


def test_atss_assigns_by_default_as_the_paper_does_on_coco():
    """Nine candidates a level and anchors of eight strides, centered at the corners of the cells."""
    targets, strides = [random_target(np.random.default_rng(3), 25)], (8, 16, 32, 64, 128)
    assert rows(assign_atss(targets, levels(INPUT_HW, strides), strides)) == slow_atss(targets, GRIDS["gfl"], topk=9)


def test_atss_without_area_has_no_positives():
    assert rows(atss([target([[40, 40, 40, 40], [16, 16, 16, 90]])], GRIDS["gfl"])) == []


def test_atss_takes_all_candidates_where_their_ious_are_equal():
    """Anchors wholly inside of an object: no deviation, and the threshold is met exactly."""
    grid = {"strides": (8,), "point_offset": 0.5, "anchor_scale": 1.0}
    assert len(atss([target([[16, 16, 80, 80]])], grid, topk=4).cells) == 4


def test_atss_takes_no_cell_whose_center_is_a_hundredth_of_a_pixel_inside():
    """As mmdetection: it has to be more. The anchors all hold the object, so that their IoUs are equal."""
    grid = {"strides": (8,), "point_offset": 0.0, "anchor_scale": 100.0}
    assert rows(atss([target([[-0.01, -0.01, 12, 12]])], grid, (24, 24), topk=4)) == [(0, 3 + 1, 0)]
    assert len(atss([target([[-0.0101, -0.0101, 12, 12]])], grid, (24, 24), topk=4).cells) == 4


def test_atss_gives_a_contested_anchor_to_the_highest_iou_and_then_to_the_lower_index():
    small, large = target([[30, 30, 90, 90]]), target([[28, 28, 96, 96]])
    wanted_by_small, wanted_by_large = (
        {cell for _, cell, _ in rows(atss([one], GRIDS["gfl"]))} for one in (small, large)
    )
    assert wanted_by_small & wanted_by_large
    both = target(torch.cat((large.boxes, small.boxes, small.boxes)).numpy())
    found = atss([both], GRIDS["gfl"])
    assert {1} <= set(found.objects.tolist()) <= {0, 1}  # the same box again never wins
    assert rows(found) == slow_atss([both], GRIDS["gfl"])


def test_atss_reports_the_ious_of_its_anchors():
    box = np.array([20, 12, 90, 70], np.float32)
    found = atss([target([box])], GRIDS["nanodet"])
    centers, strides = decode.points(INPUT_HW, GRIDS["nanodet"]["strides"], 0.5)
    halves = strides[found.cells][:, None] * np.float32(2.5)
    anchors = np.concatenate((centers[found.cells] - halves, centers[found.cells] + halves), axis=1)
    np.testing.assert_allclose(found.ious.numpy(), pairwise_iou(anchors, box[None])[:, 0], rtol=1e-6)


# --- dynamic soft labels ---------------------------------------------------------------------------------------------


def soft_label_case(seed, num_objects=4, num_classes=3, noise=6.0, input_hw=(64, 96)):
    """Noisy predictions around random objects: boxes, labels, logits ``[C, A]``, predicted boxes and centers."""
    rng = np.random.RandomState(seed)  # a frozen stream: the literals below depend on it
    centers, _ = decode.points(input_hw, (8, 16, 32), 0.0)
    corner = rng.uniform(0, 60, (num_objects, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(8, 40, (num_objects, 2))), axis=1).astype(np.float32)
    near = rng.randint(0, max(num_objects, 1), len(centers))
    predicted = ((boxes[near] if num_objects else 0) + rng.normal(0, noise, (len(centers), 4))).astype(np.float32)
    logits = rng.normal(-2, 1.5, (num_classes, len(centers))).astype(np.float32)
    labels = np.array([0, 2, 1, 2]) if num_objects == 4 else np.arange(num_objects) % num_classes
    return boxes, labels, logits, predicted, centers


def assign_cases(*cases):
    """Assign the cases as the images of one batch."""
    stacked = [torch.from_numpy(np.stack([case[i] for case in cases])) for i in (2, 3)]
    targets = [target(case[0], case[1]) for case in cases]
    return assign_dynamic_soft_labels(targets, *stacked, torch.from_numpy(cases[0][4]))


# Cell, object and IoU that RangiLyu/nanodet's own DynamicSoftLabelAssigner gives for soft_label_case(seed), at commit
# be9b4a9, with topk 13 and iou_factor 3
NANODET = {
    0: [
        (64, 2, 0.6194), (65, 3, 0.5298), (66, 1, 0.6856), (67, 0, 0.6112), (68, 0, 0.5513), (77, 0, 0.6274),
        (80, 1, 0.6474), (90, 1, 0.5461), (91, 1, 0.5633),
    ],
    4: [
        (20, 2, 0.5817), (31, 2, 0.8037), (33, 0, 0.5706), (42, 2, 0.8136), (45, 2, 0.6344), (54, 2, 0.7179),
        (66, 3, 0.4632), (79, 0, 0.6876), (80, 2, 0.6977), (83, 3, 0.4409), (92, 1, 0.6204), (93, 0, 0.4706),
        (94, 2, 0.6862), (105, 3, 0.7938), (106, 3, 0.5042), (111, 2, 0.5657), (112, 1, 0.5676), (125, 1, 0.3602),
    ],
}  # fmt: skip


@pytest.mark.parametrize("seed", NANODET)
def test_dynamic_soft_labels_equal_nanodets(seed):
    found = assign_cases(soft_label_case(seed))
    assert rows(found) == [(0, cell, index) for cell, index, _ in NANODET[seed]]
    np.testing.assert_allclose(found.ious.numpy(), [iou for *_, iou in NANODET[seed]], atol=5e-5)


def slow_soft_labels(boxes, labels, logits, predicted, centers, topk=13, iou_factor=3.0, claimants_alone=False):
    """The costs of every pair one by one; the (cell, object) pairs that result, in order of cells.

    A cell that several objects claim goes to the one of all, not of those several, that it costs least.
    """
    candidates = [cell for cell, point in enumerate(centers) if any(is_inside(point, box) for box in boxes)]
    ious = {
        (c, g): pairwise_iou(predicted[c, None], boxes[g, None])[0, 0] for c in candidates for g in range(len(boxes))
    }
    costs = {}
    for (cell, index), iou in ious.items():
        qualities = [iou if k == labels[index] else 0 for k in range(len(logits))]
        cls_cost = sum(slow_qfl(float(x), y) for x, y in zip(logits[:, cell], qualities, strict=True))
        costs[cell, index] = cls_cost - iou_factor * math.log(iou + 1e-7)
    claims = {}
    for index in range(len(boxes)):
        wanted = max(int(sum(sorted((ious[c, index] for c in candidates), reverse=True)[:topk])), 1)
        for cell in sorted(candidates, key=lambda c, g=index: (costs[c, g], c))[:wanted]:
            claims.setdefault(cell, []).append(index)
    everyone = range(len(boxes))
    owners = {
        c: min(by if len(by) == 1 or claimants_alone else everyone, key=lambda g, c=c: (costs[c, g], g))
        for c, by in claims.items()
    }
    return sorted(owners.items())


def is_inside(point, box):
    return min(*(point - box[:2]), *(box[2:] - point)) > 0


def slow_qfl(logit, quality):
    score = 1 / (1 + math.exp(-logit))
    return -((quality - score) ** 2) * ((1 - quality) * math.log(1 - score) + quality * math.log(score))


@pytest.mark.parametrize("noise", [1.0, 6.0, 30.0])
@pytest.mark.parametrize("num_objects", [1, 4, 15])
def test_dynamic_soft_labels_equal_the_loop(noise, num_objects):
    cases = [soft_label_case(seed, num_objects, noise=noise) for seed in (10, 11)]
    expected = [
        (image, cell, image * num_objects + index)
        for image, case in enumerate(cases)
        for cell, index in slow_soft_labels(*case)
    ]
    assert rows(assign_cases(*cases)) == expected


def test_dynamic_soft_labels_may_give_a_contested_cell_to_an_object_that_did_not_claim_it():
    cases = [soft_label_case(seed, 15, noise=3.0) for seed in range(20, 32)]
    expected = [slow_soft_labels(*case) for case in cases]
    assert expected != [slow_soft_labels(*case, claimants_alone=True) for case in cases]  # it does happen here
    assert [[row[1:] for row in rows(assign_cases(case))] for case in cases] == expected


def test_dynamic_soft_labels_go_to_cells_with_their_center_inside_of_an_object():
    """Where every prediction is right, an object takes all of its candidates: not the cells on its edges."""
    centers, _ = decode.points((40, 40), (8,), 0.0)
    box = np.array([[8, 8, 24, 32]], np.float32)
    perfect = (box, np.array([0]), np.zeros((1, 25), np.float32), np.repeat(box, 25, axis=0), centers)
    found = assign_cases(perfect)
    assert centers[found.cells.numpy()].tolist() == [[16, 16], [16, 24]]
    assert found.ious.tolist() == [1, 1]


def test_dynamic_soft_labels_of_an_object_that_no_prediction_overlaps_go_to_the_least_score():
    centers, _ = decode.points((40, 40), (8,), 0.0)
    logits = np.where((centers == [16, 24]).all(axis=1), -1, 1).astype(np.float32)[None]
    elsewhere = np.repeat(np.array([[100, 100, 108, 108]], np.float32), 25, axis=0)
    found = assign_cases((np.array([[8, 8, 24, 32]], np.float32), np.array([0]), logits, elsewhere, centers))
    assert centers[found.cells.numpy()].tolist() == [[16, 24]]


def test_dynamic_soft_labels_count_objects_over_all_images_of_a_batch():
    cases = [soft_label_case(0, count) for count in (3, 1, 4, 2)]
    expected, first_object = [], 0
    for image, case in enumerate(cases):
        expected += [(image, cell, first_object + index) for cell, index in slow_soft_labels(*case)]
        first_object += len(case[0])
    assert rows(assign_cases(*cases)) == expected


def test_better_predictions_make_more_positives():
    few, many = (len(assign_cases(soft_label_case(3, noise=noise)).cells) for noise in (25.0, 1.0))
    assert few < many


def test_dynamic_soft_labels_without_objects_and_with_objects_between_the_cells():
    empty, full = soft_label_case(0, 0), soft_label_case(0)
    found = assign_cases(empty, full)
    assert {image for image, _, _ in rows(found)} == {1}
    assert [row[1:] for row in rows(found)] == [(cell, index) for cell, index, _ in NANODET[0]]
    assert rows(assign_cases(empty)) == []
    between = (np.array([[1, 1, 7, 7]], np.float32), np.array([1]), *full[2:])
    assert rows(assign_cases(between)) == []


def test_no_gradient_passes_through_an_assignment():
    boxes, labels, logits, predicted, centers = soft_label_case(0)
    maps = [torch.from_numpy(values)[None].requires_grad_() for values in (logits, predicted)]
    found = assign_dynamic_soft_labels([target(boxes, labels)], *maps, torch.from_numpy(centers))
    assert not found.ious.requires_grad


def test_an_assignment_stays_what_it_is():
    found = assign_cases(soft_label_case(0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.cells = found.objects


@pytest.mark.parametrize("counts", [(4,), (0, 4), (0,)])
def test_assignments_are_made_on_the_device_of_their_objects(counts):
    """What would be made on the default device instead could not be computed with here."""
    cases = [soft_label_case(0, count) for count in counts]
    targets = [target(boxes, labels) for boxes, labels, *_ in cases]
    expected = rows(atss(targets, GRIDS["nanodet"])), rows(assign_cases(*cases))
    logits, predicted = (torch.from_numpy(np.stack([case[i] for case in cases])) for i in (2, 3))
    centers = torch.from_numpy(cases[0][4])
    with torch.device("meta"):
        found = atss(targets, GRIDS["nanodet"]), assign_dynamic_soft_labels(targets, logits, predicted, centers)
    assert tuple(map(rows, found)) == expected


# --- order -----------------------------------------------------------------------------------------------------------


def test_sort_keys_order_by_value_and_then_by_index():
    values = torch.tensor([0.5, -1.0, 0.5, 0.0, -1.5, torch.inf, -torch.inf, 1e-30, -1e-30])
    indices = torch.tensor([7, 3, 2, MAX_INDEX, 0, 1, 4, 5, 6])
    keys = sort_keys(values, indices)
    expected = sorted(range(len(values)), key=lambda i: (values[i].item(), indices[i].item()))
    assert keys.argsort().tolist() == expected
    assert torch.equal(keys & MAX_INDEX, indices)
