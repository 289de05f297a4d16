"""Graphs of a few convolutions, in float and with Q/DQ pairs, whose every number a test can follow."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calib import qdq
from gfl_edge.ops.onnx_graph import open_session


def conv_net(second_groups=1, activation="Relu"):
    """Two convolutions with an activation between them; uint8 in, so that sessions take it."""
    rng = np.random.default_rng(5)
    widths = np.geomspace(0.01, 10, 8).astype(np.float32)
    first = rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * widths[:, None, None, None]
    second = rng.normal(size=(8, 8 // second_groups, 3, 3)).astype(np.float32)
    weights = {"w1": first, "b1": np.float32(100) * widths, "w2": second, "b2": np.zeros(8, "f4")}
    pads = {"pads": [1] * 4}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w1", "b1"], ["y"], "conv1", **pads),
        helper.make_node(activation, ["y"], ["z"], "act"),
        helper.make_node("Conv", ["z", "w2", "b2"], ["out"], "conv2", group=second_groups, **pads),
    ]
    return whole(nodes, weights, [1, 8, 16, 16])


def concat_net():
    """A dense and a depthwise convolution of a concatenation, whose weights make 16-bit sums saturate at full scale."""
    rng = np.random.default_rng(5)

    def positive(*shape):
        return rng.uniform(0.5, 1, shape).astype(np.float32)

    weights = {"mean": np.float32(128), "std": np.float32(64)}
    weights |= {"w1": rng.normal(size=(16, 3, 3, 3)).astype(np.float32), "w2": positive(16, 16, 1, 1)}
    weights |= {"w3": positive(16, 32, 1, 1), "w4": positive(32, 1, 3, 3), "w5": positive(16, 32, 3, 3)}
    weights |= {f"b{i}": np.zeros(len(weights[f"w{i}"]), np.float32) for i in range(1, 6)}
    pads = {"pads": [1] * 4}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centered"], "sub"),
        helper.make_node("Div", ["centered", "std"], ["scaled"], "div"),
        helper.make_node("Transpose", ["scaled"], ["x"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w1", "b1"], ["y"], "conv1", **pads),
        helper.make_node("LeakyRelu", ["y"], ["z"], "act1", alpha=0.1),
        helper.make_node("Conv", ["z", "w2", "b2"], ["u"], "conv2"),
        helper.make_node("LeakyRelu", ["u"], ["v"], "act2", alpha=0.1),
        helper.make_node("Concat", ["z", "v"], ["both"], "concat", axis=1),
        helper.make_node("Conv", ["both", "w3", "b3"], ["dense"], "conv3"),
        helper.make_node("Conv", ["both", "w4", "b4"], ["depthwise"], "conv4", group=32, **pads),
        helper.make_node("Conv", ["depthwise", "w5", "b5"], ["wide"], "conv5", **pads),
        helper.make_node("Concat", ["dense", "wide"], ["out"], "join", axis=1),
    ]
    return whole(nodes, weights, [1, 32, 16, 16])


def whole(nodes, weights, shape):
    """The model of these nodes and float tensors, from images to "out" of that shape."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 16, 16, 3])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    content = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, tensor="out", seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    return open_session(model, [tensor]).run([tensor], {"images": image})[0]


def noise_inputs(count=4):
    return [np.random.default_rng(i).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for i in range(count)]


def quantized_net(groups=1):
    """``conv_net`` with pairs on input and weights of both convolutions."""
    return with_pairs(conv_net(groups))


def with_pairs(model, unsigned=False):
    """Pairs on the inputs and weights of the convolutions of a model."""
    reads = {node.output[0]: (0, 1) for node in model.graph.node if node.op_type == "Conv"}
    return qdq.QdqGraph(model, reads, unsigned=unsigned)
