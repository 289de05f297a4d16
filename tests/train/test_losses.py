"""Losses, one element at a time: their equations by hand, their minima, extreme inputs and half precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gfl_edge.ops.boxes import pairwise_iou
from train.objective.losses import (
    background_loss,
    centerness_loss,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    iou,
    iou_loss,
    quality_focal_loss,
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def gradient(loss, logits, *rest):
    logits = logits.clone().requires_grad_()
    loss(logits, *rest).sum().backward()
    return logits.grad


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 2.0, 2.5])
@pytest.mark.parametrize(("logit", "quality"), [(-2.0, 0.0), (0.3, 0.7), (1.5, 1.0), (4.0, 0.2)])
def test_quality_focal_loss_is_equation_2(logit, quality, beta):
    s = sigmoid(logit)
    expected = -(abs(quality - s) ** beta) * ((1 - quality) * math.log(1 - s) + quality * math.log(s))
    found = quality_focal_loss(torch.tensor(logit), torch.tensor(quality), beta)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_quality_focal_loss_is_least_where_the_score_is_the_quality():
    qualities = torch.tensor([0.1, 0.5, 0.9])
    logits = torch.logit(qualities)
    torch.testing.assert_close(quality_focal_loss(logits, qualities), torch.zeros(3), atol=1e-12, rtol=0)
    for step in (-0.5, 0.5):
        assert (gradient(quality_focal_loss, logits + step, qualities).sign() == math.copysign(1, step)).all()


def test_focal_loss_is_the_quality_focal_loss_of_0_and_1_but_for_alpha():
    logits = torch.linspace(-6, 6, 25)
    for target, share in ((0.0, 0.75), (1.0, 0.25)):
        targets = torch.full_like(logits, target)
        torch.testing.assert_close(focal_loss(logits, targets), share * quality_focal_loss(logits, targets))


def test_focal_loss_by_hand():
    p = sigmoid(-1.0)
    assert focal_loss(torch.tensor(-1.0), torch.tensor(1.0)).item() == pytest.approx(-0.25 * (1 - p) ** 2 * math.log(p))
    expected = -0.75 * p**2 * math.log(1 - p)
    assert focal_loss(torch.tensor(-1.0), torch.tensor(0.0)).item() == pytest.approx(expected)


def test_background_loss_is_both_losses_without_an_object():
    logits = torch.linspace(-30, 30, 61)
    nothing = torch.zeros_like(logits)
    torch.testing.assert_close(background_loss(logits), quality_focal_loss(logits, nothing))
    torch.testing.assert_close(0.75 * background_loss(logits), focal_loss(logits, nothing))
    torch.testing.assert_close(gradient(background_loss, logits), gradient(quality_focal_loss, logits, nothing))


def test_centerness_loss_is_binary_cross_entropy():
    s, target = sigmoid(0.4), 0.3
    expected = -(target * math.log(s) + (1 - target) * math.log(1 - s))
    assert centerness_loss(torch.tensor(0.4), torch.tensor(target)).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [quality_focal_loss, focal_loss, centerness_loss])
def test_extreme_scores_give_finite_losses_and_gradients(loss):
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]).repeat(2, 1)
    targets = torch.tensor([[0.0], [1.0]]).expand_as(logits)
    assert loss(logits, targets).isfinite().all()
    assert gradient(loss, logits, targets).isfinite().all()
    assert gradient(background_loss, logits).isfinite().all()


# --- edges -----------------------------------------------------------------------------------------------------------


def test_distribution_focal_loss_is_equation_6():
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    p = logits.softmax(0).tolist()
    expected = -((2 - 1.3) * math.log(p[1]) + (1.3 - 1) * math.log(p[2]))
    assert distribution_focal_loss(logits, torch.tensor(1.3)).item() == pytest.approx(expected, rel=1e-6)


def test_distribution_focal_loss_of_a_whole_distance_is_cross_entropy():
    logits = torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(0))
    distances = torch.arange(24).reshape(6, 4) % 7
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), distances.flatten(), reduction="none")
    torch.testing.assert_close(distribution_focal_loss(logits, distances.float()).flatten(), expected)


def test_distribution_focal_loss_is_least_where_the_two_bins_hold_the_distance():
    distance = torch.tensor(4.25)
    best = torch.full((8,), -40.0)
    best[4], best[5] = math.log(0.75), math.log(0.25)
    torch.testing.assert_close(gradient(distribution_focal_loss, best, distance), torch.zeros(8), atol=1e-6, rtol=0)
    assert (best.softmax(0) * torch.arange(8)).sum().item() == pytest.approx(4.25)


# --- boxes -----------------------------------------------------------------------------------------------------------


GIOU_BY_HAND = [
    ([0, 0, 4, 4], [0, 0, 4, 4], 0.0),
    ([0, 0, 4, 4], [2, 0, 6, 4], 1 - 8 / 24),  # the hull is the union
    ([0, 0, 2, 2], [4, 0, 6, 2], 1 + 4 / 12),  # apart: the gap counts
    ([0, 0, 4, 4], [1, 1, 3, 3], 1 - 4 / 16),  # one inside of the other
    ([0, 0, 2, 2], [2, 2, 4, 4], 1 + 8 / 16),  # touching corners
]


@pytest.mark.parametrize(("box", "other", "expected"), GIOU_BY_HAND)
def test_giou_loss_by_hand(box, other, expected):
    box, other = torch.tensor(box), torch.tensor(other)  # integers are taken, too
    assert giou_loss(box, other).item() == pytest.approx(expected, abs=1e-6)
    assert giou_loss(other, box).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("box", "other", "expected"), GIOU_BY_HAND)
@pytest.mark.parametrize("side", [1 / 16, 1.0])  # of a unit; of boxes in strides, areas are far below 1
def test_giou_loss_is_the_same_anywhere_and_in_any_unit(box, other, expected, side):
    box, other = ((torch.tensor(corners) + torch.tensor([50, 30, 50, 30])) * side for corners in (box, other))
    assert giou_loss(box, other).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("side", [0.01, 1.0, 1000.0])
def test_a_box_overlaps_itself_wholly_however_small_it_is(side):
    box = torch.tensor([0.0, 0.0, side, side])
    assert iou(box, box).item() == pytest.approx(1)
    assert iou(box, box / 2).item() == pytest.approx(1 / 4)


def test_giou_loss_pulls_a_box_onto_another():
    box = torch.tensor([3.0, 3.0, 4.0, 4.0], requires_grad=True)
    giou_loss(box, torch.tensor([0.0, 0.0, 2.0, 2.0])).backward()
    assert (box.grad[:2] > 0).all()


def test_empty_boxes_have_no_overlap_and_finite_gradients():
    empty = torch.zeros(1, 4)
    assert iou(empty, empty).item() == 0
    assert giou_loss(empty, empty).isfinite().all()
    assert gradient(giou_loss, empty, empty).isfinite().all()


def test_iou_loss_is_the_logarithm_of_the_iou():
    box = torch.tensor([0.0, 0.0, 4.0, 4.0])
    for other, expected in (([2, 0, 6, 4], math.log(3)), ([0, 0, 4, 4], 0), ([1, 1, 3, 3], math.log(4))):
        assert iou_loss(box, torch.tensor(other)).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert iou_loss(torch.tensor(other), box).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_iou_loss_is_finite_where_nothing_overlaps_and_of_empty_boxes():
    box = torch.tensor([0.0, 0.0, 4.0, 4.0])
    assert iou_loss(box, torch.tensor([5, 5, 6, 6])).item() == pytest.approx(math.log(17 / 1e-6), rel=1e-4)
    empty = torch.zeros(1, 4)
    assert iou_loss(empty, empty).isfinite().all()
    assert gradient(iou_loss, empty, empty).isfinite().all()


def test_iou_is_that_of_the_numpy_reference():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (2, 40, 2))
    boxes, others = np.concatenate((corner, corner + rng.exponential(20, corner.shape)), axis=2).astype(np.float32)
    found = iou(torch.from_numpy(boxes)[:, None], torch.from_numpy(others))
    np.testing.assert_allclose(found.numpy(), pairwise_iou(boxes, others), rtol=1e-6)


# --- precision and shapes --------------------------------------------------------------------------------------------

LOSSES = {
    quality_focal_loss: ((5, 3), (5, 3)),
    focal_loss: ((5, 3), (5, 3)),
    centerness_loss: ((5,), (5,)),
    distribution_focal_loss: ((5, 4, 8), (5, 4)),
    giou_loss: ((5, 4), (5, 4)),
    iou: ((5, 4), (5, 4)),
    iou_loss: ((5, 4), (5, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_half_precision_is_left_before_anything_is_computed(loss, dtype):
    generator = torch.Generator().manual_seed(0)
    logits, targets = (torch.rand(shape, generator=generator).to(dtype) for shape in LOSSES[loss])
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits, targets)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(logits.float(), targets.float()))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_one_loss_per_element_and_none_of_nothing(loss):
    shapes = LOSSES[loss]
    generator = torch.Generator().manual_seed(0)
    elements = shapes[0] if loss in (quality_focal_loss, focal_loss, centerness_loss) else shapes[0][:-1]
    assert loss(*(torch.rand(shape, generator=generator) for shape in shapes)).shape == elements
    assert loss(*(torch.zeros(0, *shape[1:]) for shape in shapes)).shape == (0, *elements[1:])
