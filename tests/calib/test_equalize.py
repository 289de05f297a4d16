"""Channels of equal range."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib import equalize
from gfl_edge.errors import CalibrationError
from tests.support.small_graphs import conv_net, noise_inputs, run


class TestEqualize:
    @pytest.mark.parametrize("groups", [1, 2, 8])
    @pytest.mark.parametrize("activation", ["Relu", "LeakyRelu"])
    def test_computes_the_same_with_even_channels(self, groups, activation):
        model = conv_net(groups, activation)
        expected, uneven = run(model), np.abs(run(model, "z")).max(axis=(0, 2, 3))
        links = equalize.find_links(model)
        assert [link.tensor for link in links] == ["z"]
        equalize.equalize(model, links, equalize.channel_ranges(model, links, noise_inputs(), 4, progress=False))
        np.testing.assert_allclose(run(model), expected, rtol=2e-5, atol=1e-3 * np.abs(expected).mean())
        even = np.abs(run(model, "z")).max(axis=(0, 2, 3))
        assert even.max() / even.min() < uneven.max() / uneven.min() / 3

    def test_channels_are_scaled_by_powers_of_two(self):
        model, weights = conv_net(), {}
        links = equalize.find_links(model)
        for state in ("before", "after"):
            tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
            weights[state] = numpy_helper.to_array(tensor).copy()
            equalize.equalize(model, links, {"z": np.geomspace(1, 30, 8).tolist()})
        exponents = np.log2(weights["after"] / weights["before"])
        np.testing.assert_array_equal(exponents, np.round(exponents))
        assert len(np.unique(exponents)) > 1

    def test_not_through_a_sigmoid(self):
        assert equalize.find_links(conv_net(activation="Sigmoid")) == []

    def test_not_where_something_else_reads_it(self):
        model = conv_net()
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8, 16, 16]))
        assert equalize.find_links(model) == []

    def test_not_with_shared_weights(self):
        model = conv_net()
        model.graph.node.append(helper.make_node("Conv", ["out", "w2", "b2"], ["more"], "conv3", pads=[1] * 4))
        assert equalize.find_links(model) == []

    def test_ranges_of_another_model(self):
        model = conv_net()
        with pytest.raises(CalibrationError, match="no ranges of the channels of z"):
            equalize.equalize(model, equalize.find_links(model), {"z": [1.0, 2.0]})


def test_a_network_without_links_has_no_ranges():
    assert equalize.channel_ranges(conv_net(), [], noise_inputs(), 4, progress=False) == {}
