"""Graphs with Q/DQ pairs: layers, ranges, biases and weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calib import qdq
from calib.histogram import METHODS, STEPS
from calib.observed import Observed, observe
from gfl_edge.errors import CalibrationError
from gfl_edge.ops.onnx_graph import open_session
from tests.support.small_graphs import conv_net, noise_inputs, quantized_net, run, with_pairs


class TestQdqGraph:
    def ranges(self, net):
        """Where tensors are clipped, by method, and means of their channels."""
        found = observe(net.model, net.activations(), net.conv_inputs(), noise_inputs(), 4, progress=False)
        observed = Observed({}, *found, "m", "i", ())
        return {method: observed.clipped(method) for method in METHODS}, observed.channel_means

    def test_layers_are_called_by_their_weights(self):
        assert [(layer.name, layer.kind) for layer in quantized_net().layers] == [("w1", "Conv"), ("w2", "Conv")]

    def test_nodes_without_names(self):
        """ONNX does not ask for them."""
        found = []
        for name in (None, ""):
            model = conv_net()
            for node in model.graph.node:
                node.name = node.name if name is None else name
            net = with_pairs(model)
            ranges, means = self.ranges(net)
            quantized = net.quantized(ranges["max"], means)
            onnx.checker.check_model(quantized, full_check=True)
            found.append(run(quantized))
        np.testing.assert_array_equal(found[1], found[0])

    def test_the_float_model_is_not_changed(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        net.quantized(ranges["max"], means)
        assert net.model == conv_net()

    def test_channels_whose_weights_vanish_have_a_scale_in_half(self):
        """EfficientNet's dead channels: absmax / 127 is 0, or underflows in half, and TensorRT refuses that."""
        float_model = conv_net()
        tensor = next(tensor for tensor in float_model.graph.initializer if tensor.name == "w1")
        values = numpy_helper.to_array(tensor).copy()
        values[0], values[1] = 0, 1e-9
        tensor.CopyFrom(numpy_helper.from_array(values, "w1"))
        scales = np.abs(values).max(axis=(1, 2, 3)) / STEPS
        net = with_pairs(float_model)
        ranges, means = self.ranges(net)
        model = net.quantized(ranges["max"], means)
        found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        assert (found["w1_scale"].astype(np.float16) > 0).all()
        np.testing.assert_array_equal(found["w1_scale"][2:], scales[2:].astype(np.float32))
        assert np.isfinite(run(model)).all()

    def test_rounds_less_with_observed_ranges(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        exact = run(conv_net())
        wide = {name: (64 * low, 64 * high) for name, (low, high) in ranges["max"].items()}
        errors = [np.abs(run(net.quantized(found, means)) - exact).mean() for found in (wide, ranges["mse"])]
        assert errors[1] < errors[0] / 10

    def test_folded_weights_compute_the_same_in_fewer_bytes(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        model = net.quantized(ranges["max"], means)
        expected, size = run(model), model.ByteSize()
        qdq.fold_weights(model)
        onnx.checker.check_model(model, full_check=True)
        np.testing.assert_array_equal(run(model), expected)
        assert model.ByteSize() < size
        assert qdq.count_layers(model) == {"quantized": 2, "convolutions": 2}

    @pytest.mark.parametrize("groups", [1, 8])
    def test_biases_take_off_what_rounding_adds_on_average(self, groups):
        net = quantized_net(groups)
        ranges, means = self.ranges(net)
        inputs = noise_inputs()

        def shift(model):
            names = ["out"]
            exact, rounded = (
                np.mean([s.run(names, {"images": x})[0] for x in inputs], axis=0)
                for s in (open_session(conv_net(groups), names), open_session(model, names))
            )
            # The border is counted like the inside, so that it says nothing
            return np.abs((rounded - exact)[..., 2:-2, 2:-2].mean(axis=(0, 2, 3))).sum()

        zeros = {name: [0.0] * len(values) for name, values in means.items()}
        wide = {name: (4 * low, 4 * high) for name, (low, high) in ranges["max"].items()}  # activations are not clipped
        assert shift(net.quantized(wide, means)) < 0.8 * shift(net.quantized(wide, zeros))

    def test_float_layers_keep_their_biases(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        model = net.quantized(ranges["max"], means, ("w1", "w2"))
        np.testing.assert_array_equal(run(model), run(conv_net()))
        assert qdq.count_layers(model)["quantized"] == 0

    def test_missing_range_and_means(self):
        net = quantized_net()
        ranges, means = self.ranges(net)
        with pytest.raises(CalibrationError, match="1 tensors have no range, the first x"):
            net.quantized({"z": (0.0, 1.0)}, means)
        with pytest.raises(CalibrationError, match="no means of x"):
            net.quantized(ranges["max"], {"z": means["z"]})

    def test_activation_that_is_not_finite(self):
        model = conv_net()
        for tensor in model.graph.initializer:
            if tensor.name == "b1":
                tensor.CopyFrom(numpy_helper.from_array(np.full(8, np.inf, np.float32), "b1"))
        with pytest.raises(CalibrationError, match="z has values that are not finite"):
            observe(model, ["z"], [], noise_inputs(), 4, progress=False)
