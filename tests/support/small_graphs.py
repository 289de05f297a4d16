"""Graphs of two convolutions, in float and with Q/DQ pairs, whose every number a test can follow."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calib import qdq
from calib.histogram import STEPS
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
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 16, 16, 3])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, 16, 16])]
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    content = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, tensor="out", seed=0):
    picture = np.random.default_rng(seed).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    return open_session(model, [tensor]).run([tensor], {"images": picture})[0]


def noise_inputs(count=4):
    return [np.random.default_rng(i).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for i in range(count)]


def quantized_net(groups=1):
    """``conv_net`` with pairs on input and weights of both convolutions, as Model Optimizer writes them."""
    model = conv_net(groups)
    nodes, tensors = list(model.graph.node), {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    added = []
    zero = numpy_helper.from_array(np.int8(0), "zero")
    model.graph.initializer.append(zero)
    for conv in [node for node in nodes if node.op_type == "Conv"]:
        for i, name in enumerate(conv.input[:2]):
            values = tensors.get(name)
            scale = np.float32(0.05 + 0.01 * len(added))
            zeros = "zero"
            attributes = {}
            if values is not None:
                scale = (np.abs(values).max(axis=(1, 2, 3)) / STEPS).astype(np.float32)
                zeros, attributes = f"{name}_zero", {"axis": 0}
                model.graph.initializer.append(numpy_helper.from_array(np.zeros(len(values), np.int8), zeros))
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), f"{name}_scale"))
            pair = (f"{name}_q", f"{name}_dq")
            ends = [f"{name}_scale", zeros]
            added.append(helper.make_node("QuantizeLinear", [name, *ends], [pair[0]], pair[0], **attributes))
            added.append(helper.make_node("DequantizeLinear", [pair[0], *ends], [pair[1]], pair[1], **attributes))
            conv.input[i] = pair[1]
    ordered = nodes[:2] + [n for n in added if n.name.startswith(("x", "w"))] + nodes[2:4]
    ordered += [n for n in added if n.name.startswith("z_")] + nodes[4:]
    assert len(ordered) == len(nodes) + len(added)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    onnx.checker.check_model(model, full_check=True)
    return qdq.QdqGraph(model)
