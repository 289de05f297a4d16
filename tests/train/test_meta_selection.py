"""RoIAlign by hand, and the network that selects levels by it."""

from __future__ import annotations

import pytest
import torch

from train.models.meta_selection import MetaSelection, roi_align


def ramps(rows, columns, stride):
    """``[1, 2, rows, columns]``: at every cell the x and the y of its center in pixels."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) * stride, (torch.arange(columns) + 0.5) * stride, indexing="ij")
    return torch.stack((x, y))[None]


def boxes_of(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_a_ramp_is_read_where_the_places_are():
    found = roi_align(ramps(6, 10, 8), [boxes_of([8, 16, 40, 32])], 8, size=2)
    assert found[0, 0].tolist() == [[16, 32], [16, 32]]  # centers of the halves of 8..40
    assert found[0, 1].tolist() == [[20, 20], [28, 28]]  # and of 16..32


def test_values_between_cells_are_bilinear():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 1] = 16.0  # at (12, 12) where a cell has 8 pixels
    # One place whose 2 x 2 samples lie at 12 and 16: full, and halfway to the next cell in x, y and both
    found = roi_align(maps, [boxes_of([10, 10, 18, 18])], 8, size=1)
    assert found.item() == pytest.approx((16 + 8 + 8 + 4) / 4)


def test_beyond_the_outermost_centers_a_map_goes_on_as_it_ends():
    found = roi_align(ramps(4, 4, 8), [boxes_of([0, 0, 8, 8], [-30, -30, -10, -10])], 8, size=1)
    assert found[0, :, 0, 0].tolist() == [5, 5]  # samples at 2, which is taken at 4, and at 6
    assert found[1, :, 0, 0].tolist() == [4, 4]


def test_each_box_is_read_from_its_own_image():
    maps = torch.arange(3.0)[:, None, None, None].expand(3, 1, 4, 4)
    boxes = [boxes_of([0, 0, 9, 9]), boxes_of(), boxes_of([1, 1, 5, 5], [2, 2, 30, 30])]
    found = roi_align(maps, boxes, 8)
    assert found.shape == (3, 1, 7, 7)
    assert found[:, 0, 3, 3].tolist() == [0, 2, 2]
    assert roi_align(maps, [boxes_of()] * 3, 8).shape == (0, 1, 7, 7)


def test_gradients_reach_the_features_and_keep_their_sum():
    maps = torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    roi_align(maps, [boxes_of([3, 5, 30, 33])], 8).sum().backward()
    assert maps.grad.sum().item() == pytest.approx(2 * 7 * 7, rel=1e-5)


def test_the_network_gives_a_logit_per_level_and_object():
    torch.manual_seed(0)
    network = MetaSelection((8, 16, 32), 4)
    features = [torch.randn(2, 4, 64 // stride, 96 // stride) for stride in (8, 16, 32)]
    boxes = [boxes_of([0, 0, 20, 20], [10, 10, 60, 60]), boxes_of([5, 5, 90, 50])]
    logits = network(features, boxes)
    assert (logits.shape, logits.dtype) == ((3, 3), torch.float32)
    alone = network([level[1:] for level in features], boxes[1:])
    torch.testing.assert_close(alone, logits[2:])
    nobody = network(features, [boxes_of(), boxes_of()])
    assert nobody.shape == (0, 3)
    nobody.sum().backward()  # in one of several processes: gradients of zero, not none
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in network.parameters())


def test_half_precision_features_are_read_in_float32():
    torch.manual_seed(0)
    network = MetaSelection((8,), 4)
    features = torch.randn(1, 4, 8, 8).bfloat16()
    boxes = [boxes_of([0, 0, 20, 20])]
    assert torch.equal(network([features], boxes), network([features.float()], boxes))
