"""Where Q/DQ pairs go."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib import placement
from calib.run import calibrate
from gfl_edge.errors import CalibrationError
from gfl_edge.spec import load_contract
from tests.support.small_graphs import whole

pytestmark = pytest.mark.usefixtures("one_thread")


class TestPlacement:
    def test_head_normalization_and_decode_stay_float(self, float_onnx):
        model, _ = load_contract(float_onnx)
        stays = placement.float_nodes(model)
        for node in model.graph.node:
            if node.op_type in ("Sigmoid", "Softmax", "Sub"):
                assert node.output[0] in stays
        finals = {node.input[1] for node in model.graph.node if node.op_type == "Conv" and node.output[0] in stays}
        assert len(finals) == 2
        assert all("gfl_cls" in name or "gfl_reg" in name for name in finals)

    def test_already_quantized(self, calibrated, tmp_path):
        found, request = calibrated
        with pytest.raises(CalibrationError, match="is quantized already"):
            calibrate(dataclasses.replace(request, onnx=found.path, output=tmp_path / "twice.onnx"))
        assert not list(tmp_path.iterdir())

    def test_opset_too_old(self, float_onnx):
        model = onnx.load(float_onnx)
        model.opset_import[0].version = 12
        with pytest.raises(CalibrationError, match="opset 12, scales per channel need 13"):
            placement.check_quantizable(model, "old.onnx")


def placed(*lines, for_cpu=False):
    """Where a graph of lines such as "c = Add a b" gets pairs; convolutions are 1x1, of 8 channels.

    It starts with "s = Conv x", and a final convolution reads the last line's tensor.
    """
    weights, widths = {"twice": np.float32([1, 1, 2, 2])}, {"x": 3}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, 3, 1, 2]),
    ]
    for line in ("s = Conv x", *lines, f"out = Conv {lines[-1].split()[0]}"):
        name, kind, *inputs = line.replace("=", "").split()
        attributes = {"Concat": {"axis": 1}, "MaxPool": {"kernel_shape": [2, 2]}}.get(kind, {})
        if kind == "Conv":
            weights[f"{name}.weight"] = np.ones((8, widths[inputs[0]], 1, 1), np.float32)
            inputs.append(f"{name}.weight")
        widths[name] = sum(widths[i] for i in inputs) if kind == "Concat" else 8
        if kind == "Resize":
            inputs += ["", "twice"]
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
    return placement.place(whole(nodes, weights, [1, 8, None, None]), for_cpu)


def reads(graph):
    """Node -> the activations that it reads in INT8, of the quantized form."""
    tensors = graph.activations()
    model = graph.quantized(dict.fromkeys(tensors, (-1.0, 1.0)), dict.fromkeys(tensors, [0.0] * 16))
    onnx.checker.check_model(model, full_check=True)
    found = {}
    for node in model.graph.node:
        names = [name.removesuffix("_dequantized") for name in node.input if name.endswith("_dequantized")]
        if names and node.op_type != "DequantizeLinear":
            found[node.output[0]] = " ".join(name for name in names if not name.endswith(".weight"))
    return found


def scales(graph):
    """Activation -> its scale, where each is clipped at 127 times its place among them."""
    tensors = graph.activations()
    ranges = {name: (-127.0 * i, 1.0) for i, name in enumerate(tensors, 1)}
    model = graph.quantized(ranges, dict.fromkeys(tensors, [0.0] * 16))
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    return {name: float(numpy_helper.to_array(values[f"{name}_scale"])) for name in tensors}


class TestNeighbors:
    """What gets pairs for TensorRT beside convolutions."""

    def test_the_residual_summand(self):
        """That which is not of the longer way, whose convolution TensorRT fuses with the addition."""
        assert reads(placed("a = Relu s", "b = Conv a", "c = Add b a", "d = Conv c"))["c"] == "a"
        assert (
            reads(placed("a = Relu s", "b = Conv a", "c = Conv b", "d = Conv a", "e = Add c d", "f = Conv e"))["e"]
            == "d"
        )

    def test_an_addition_without_a_convolution_takes_what_is_in_int8_anyway(self):
        found = reads(placed("a = Relu s", "b = Sigmoid s", "c = Conv a", "d = Add a b", "e = Add d c", "f = Conv e"))
        assert found["d"] == "a"
        assert found["e"] == "d"

    def test_both_sides_of_a_resize_of_one_scale(self):
        graph = placed("a = Resize s", "b = Conv a")
        assert reads(graph) == {"s": "x", "a": "s", "b": "a"}
        assert scales(graph) == {"x": 1.0, "s": 3.0, "a": 3.0}

    def test_a_concatenation_of_one_scale(self):
        graph = placed("a = Relu s", "b = Conv a", "c = Concat b a", "d = Conv c")
        assert reads(graph) == {"s": "x", "b": "a", "c": "a", "d": "c"}
        assert scales(graph) == {"x": 1.0, "a": 3.0, "c": 3.0}

    def test_what_only_moves_values_has_none(self):
        found = reads(placed("a = Relu s", "b = MaxPool a", "c = Conv b"))
        assert found == {"s": "x", "c": "b"}

    def test_on_cpus_convolutions_only(self):
        lines = "a = Relu s", "b = Conv a", "c = Add b a", "d = Resize c", "e = Conv d"
        assert reads(placed(*lines, for_cpu=True)) == {"s": "x", "b": "a", "e": "d"}
