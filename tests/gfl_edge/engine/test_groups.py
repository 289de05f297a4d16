"""Groups of convolutions, joined where TensorRT-RTX would pad them; ONNX Runtime says that nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gfl_edge.engine.build import BuildPlan, build_engine
from gfl_edge.engine.groups import Groups, best_joint, joined_weights, padded_to, widen_groups
from gfl_edge.ops.onnx_graph import copy_model, open_session
from gfl_edge.spec import load_onnx

RNG = np.random.default_rng(0)
KIND = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("float16"): TensorProto.FLOAT16}


def model_of(nodes, tensors, channels, dtype, size=6):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", KIND[np.dtype(dtype)], [1, channels, size, size])],
        [helper.make_tensor_value_info("y", KIND[np.dtype(dtype)], list("nchw"))],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def convolution(channels, groups, outputs=None, dtype="float32"):
    weights = RNG.normal(size=(outputs or channels, channels // groups, 3, 3)).astype(dtype)
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, pads=[1, 1, 1, 1])
    return model_of([node], {"w": weights}, channels, dtype)


def quantized(channels, groups, dtype="float32", scales=None):
    weights = RNG.integers(-127, 128, (channels, channels // groups, 3, 3)).astype(np.int8)
    tensors = {
        "w": weights,
        "s": RNG.uniform(0.01, 0.1, channels).astype(dtype) if scales is None else np.full(scales, 0.1, dtype),
        "xs": np.array(0.05, dtype),
        "zero": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"], group=groups, pads=[1, 1, 1, 1]),
    ]
    return model_of(nodes, tensors, channels, dtype)


def groups_of(model):
    return [helper.get_node_attr_value(node, "group") for node in model.graph.node if node.op_type == "Conv"]


def outputs_of(model, dtype="float32"):
    shape = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    images = np.random.default_rng(1).normal(size=shape).astype(dtype)
    return open_session(model).run(["y"], {"x": images})[0]


@pytest.mark.parametrize(
    ("model", "target", "left"),
    [
        (convolution(96, 96), "sm75", 24),
        (convolution(96, 96, 192), "sm75", 24),
        (convolution(58, 58), "sm75", 29),
        (convolution(64, 16), "sm75", 16),
        (convolution(64, 32), "sm75", 16),
        (convolution(7, 7), "sm75", 1),
        (convolution(96, 96), "sm86", 96),
        (quantized(96, 96), "sm75", 24),
        (quantized(96, 96), "sm86", 24),
        (quantized(58, 29), "sm120", 29),
        (quantized(96, 96, scales=()), "sm86", 24),
    ],
)
def test_joined_groups_compute_the_same(model, target, left):
    onnx.checker.check_model(model)
    before, groups = outputs_of(model), groups_of(model)
    assert widen_groups(model, [target]) == (groups != [left])
    onnx.checker.check_model(model, full_check=True)
    assert groups_of(model) == [left]
    np.testing.assert_allclose(outputs_of(model), before, rtol=0, atol=1e-4)


def test_half_precision_is_padded_to_eight_on_turing():
    model = convolution(96, 96, dtype="float16")
    assert widen_groups(model, ["sm75"]) == 1
    assert groups_of(model) == [12]
    assert padded_to("sm75", half=True, int8=True) == 8  # INT8 is computed in FP16 there


def test_nothing_is_joined_that_a_target_takes_as_it_is():
    assert widen_groups(convolution(96, 96, dtype="float16"), ["sm75", "sm86"]) == 0
    assert widen_groups(quantized(96, 96, dtype="float16"), ["sm75", "sm86"]) == 1


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("channels", [1, 3, 24, 58, 116, 232, 97])
@pytest.mark.parametrize("outputs", [1, 2])
def test_no_more_is_read_nor_multiplied(channels, outputs, multiple):
    groups = Groups(channels, 1, outputs)
    times = best_joint(groups, [multiple])
    for before, after in zip(groups.cost(multiple), groups.joined(times).cost(multiple), strict=True):
        assert after <= before
    assert channels % times == 0
    assert multiple > 1 or times == 1


def test_every_weight_has_its_place():
    weights = np.arange(1, 9).reshape(4, 2, 1)  # two groups of two inputs and two outputs
    found = joined_weights(weights, Groups(2, 2, 2), 2)[..., 0]
    assert found.tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]


def test_weights_that_others_read_stay():
    """Two convolutions share weights, and one of them has a target's groups already."""
    model = convolution(16, 16)
    second = copy_model(model).graph.node[0]
    second.input[0], second.output[0], model.graph.node[0].output[0] = "between", "y", "between"
    model.graph.node.append(second)
    model.graph.output[0].name = "y"
    before = outputs_of(model)
    assert widen_groups(model, ["sm75"]) == 2
    np.testing.assert_allclose(outputs_of(model), before, rtol=0, atol=1e-4)


def test_dequantized_weights_with_two_readers_are_left_alone():
    model = quantized(16, 16)
    model.graph.node.append(helper.make_node("Relu", ["wd"], ["other"]))
    assert widen_groups(model, ["sm86"]) == 0


def test_weights_that_are_computed_are_left_alone():
    model = convolution(16, 16)
    model.graph.node.insert(0, helper.make_node("Relu", ["w"], ["computed"]))
    model.graph.node[1].input[1] = "computed"
    assert widen_groups(model, ["sm75"]) == 0


def test_a_network_computes_the_same_and_its_engine_has_no_padding(shuffling_onnx, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    path = shuffling_onnx
    model = load_onnx(path)
    assert widen_groups(model, ["sm75"]) > 5
    images = np.random.default_rng(2).integers(0, 256, (1, 64, 96, 3), np.uint8)
    before, after = (open_session(it).run(None, {"images": images}) for it in (load_onnx(path), model))
    for expected, found in zip(before, after, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    sizes = []
    for target in ("sm75", "sm86"):
        engine, sidecar = build_engine(BuildPlan(path, "rtx", (target,)), tmp_path, progress=False)
        sizes.append(engine.stat().st_size)
        assert (sidecar.convolutions, sidecar.int8_convolutions) == (len(groups_of_all(model)), 0)
    assert sizes[0] < 1.5 * sizes[1]


def groups_of_all(model):
    return [node for node in model.graph.node if node.op_type == "Conv"]
