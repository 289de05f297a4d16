"""Treatments of dead and uneven channels: on the images they are made from, a float network computes what it did."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.accuracy import treatments
from gfl_edge.ops.onnx_graph import open_session

CHANNELS = 6
RNG = np.random.default_rng(0)
IMAGES = [RNG.uniform(0, 1, (1, 3, 8, 8)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def model():
    """An inverted residual block; channel 1 is dead, channel 2 small, channel 3 always on; then ReLU and a last 1x1."""
    first, bias = RNG.normal(0, 1, (CHANNELS, 3, 1, 1)), RNG.normal(0, 0.1, CHANNELS)
    first[2] *= 0.01
    bias[1:4] = -50, 0.05, 20
    tensors = {"w0": first, "b0": bias, "low": np.array(0), "high": np.array(6)}
    for i, shape in enumerate([(CHANNELS, 1, 3, 3), (4, CHANNELS, 1, 1), (5, 4, 1, 1), (2, 5, 1, 1)], 1):
        tensors |= {f"w{i}": RNG.normal(0, 1, shape), f"b{i}": RNG.normal(0, 1, shape[0])}
    nodes = [
        helper.make_node("Conv", ["images", "w0", "b0"], ["c0"]),
        helper.make_node("Clip", ["c0", "low", "high"], ["a0"]),
        helper.make_node("Conv", ["a0", "w1", "b1"], ["c1"], group=CHANNELS, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "low", "high"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"]),
        helper.make_node("Conv", ["c2", "w3", "b3"], ["c3"]),
        helper.make_node("Relu", ["c3"], ["a3"]),
        helper.make_node("Conv", ["a3", "w4", "b4"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(found, full_check=True)
    return found


def outputs(model):
    session = open_session(model)
    return np.concatenate([session.run(["y"], {"images": image})[0] for image in IMAGES])


def widths(model, tensor):
    (link,) = (link for link in treatments.find_links(model) if link.tensor == tensor)
    return treatments.ends_of(model, [link], IMAGES)[tensor].magnitudes


def test_dead_channels_are_found(model):
    links = treatments.find_links(model)
    assert [link.tensor for link in links] == ["a0", "a1", "c2", "a3"]
    assert treatments.ends_of(model, links, IMAGES)["a0"].dead.tolist() == [False, True, *[False] * 4]


@pytest.mark.parametrize(
    "treat",
    [
        treatments.prune,
        treatments.absorb,
        lambda model, images: treatments.scale_through_relu6(model, images, only_depthwise=True),
        lambda model, images: treatments.scale_through_relu6(model, images, only_depthwise=False),
    ],
)
def test_the_float_network_computes_what_it_did(model, treat):
    before = outputs(model)
    assert treat(model, IMAGES) > 0
    np.testing.assert_allclose(outputs(model), before, rtol=0, atol=2e-4 * np.abs(before).max())


def test_scales_even_out_what_a_depthwise_convolution_reads(model):
    before = widths(model, "a0")
    assert before[2] < 0.1 * before.max()
    assert treatments.scale_through_relu6(model, IMAGES, only_depthwise=True) == 1
    after = widths(model, "a0")
    alive = np.arange(CHANNELS) != 1
    assert after[alive].min() > 0.5 * after.max()
    assert after.max() <= 6


def test_what_is_absorbed_is_gone_from_the_activation(model):
    treatments.absorb(model, IMAGES)
    (link,) = (link for link in treatments.find_links(model) if link.tensor == "c2")
    ends = treatments.ends_of(model, [link], IMAGES)["c2"]
    np.testing.assert_allclose(ends.least, -ends.most, atol=1e-3)
