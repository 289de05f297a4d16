"""INT8 files for CPUs compute the same on all of them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from calib import qdq
from calib.observed import Observed, observe
from calib.processors import MAX_SUM, unsigned_steps, widest_sum
from gfl_edge.ops.onnx_graph import OnnxGraph
from tests.support.small_graphs import concat_net, noise_inputs, with_pairs

IN_OPENVINO = """
import sys
import numpy, openvino
core = openvino.Core()
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
request = core.compile_model(core.read_model(sys.argv[1]), "CPU", settings).create_infer_request()
image = numpy.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=numpy.uint8)
request.infer({"images": image})
request.get_output_tensor(0).data.tofile(sys.argv[2])
"""


@given(st.integers(0, 999), st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from([-0.8, 0.0, 0.8]))
def test_neighbors_never_add_up_to_what_saturates(seed, inputs, kernel, center):
    weights = np.random.default_rng(seed).normal(center, 1, (4, inputs, kernel, kernel)).astype(np.float32)
    scales = np.maximum(widest_sum(weights) / MAX_SUM, np.abs(weights).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    steps = qdq.quantize_weights(weights, scales, 0).astype(int)
    for i in range(0, inputs - 1, 2):
        most = np.maximum(steps[:, i], 0) + np.maximum(steps[:, i + 1], 0)
        least = np.minimum(steps[:, i], 0) + np.minimum(steps[:, i + 1], 0)
        assert 255 * most.max() < 2**15
        assert 255 * least.min() >= -(2**15)


def test_depthwise_weights_keep_all_their_steps():
    weights = np.random.default_rng(0).normal(size=(8, 1, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(widest_sum(weights), np.abs(weights).max(axis=(1, 2, 3)))


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_zero_is_exact_and_the_ends_are_reached(low, width):
    scale, zero = unsigned_steps(low, low + width)
    if scale == 0:
        assert (low, width) == (0, 0) or max(-low, low + width) < 1e-300
        return
    assert 0 <= zero <= 255
    for end in (low, low + width):
        assert abs(scale * (np.clip(round(end / scale) + zero, 0, 255) - zero) - end) <= 1.001 * scale


def int8_for(for_cpu):
    """``concat_net`` in INT8 with the ranges of its own activations."""
    graph = with_pairs(concat_net(), for_cpu)
    found = observe(concat_net(), graph.activations(), graph.conv_inputs(), noise_inputs(), 4, progress=False)
    observed = Observed({}, *found, "m", "i", ())
    model = graph.quantized(observed.clipped("max"), observed.channel_means)
    qdq.fold_weights(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_activations_are_unsigned_and_weights_are_not():
    model = int8_for(for_cpu=True)
    assert qdq.count_layers(model) == {"quantized": 5, "convolutions": 5}
    tensors = OnnxGraph(model).initializers
    dequantized = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    zeros = {node.input[0]: numpy_helper.to_array(tensors[node.input[2]]) for node in dequantized}
    weights = {f"w{i}_quantized" for i in range(1, 6)}
    assert all(zeros[name].dtype == np.int8 and not zeros[name].any() for name in weights)
    assert all(zeros[name].dtype == np.uint8 and zeros[name] > 0 for name in zeros.keys() - weights)


@pytest.mark.parametrize("instructions", ["AVX2", None])
def test_openvino_computes_what_the_file_says(instructions, tmp_path):
    """Without VNNI it saturates, and is off by a constant after a concatenation: 7 and 12 dB for signed activations."""
    model = int8_for(for_cpu=True)
    onnx.save(model, tmp_path / "int8.onnx")
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    if instructions is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = instructions
    arguments = [str(tmp_path / name) for name in ("int8.onnx", "out.bin")]
    subprocess.run([sys.executable, "-c", IN_OPENVINO, *arguments], check=True, env=environment, timeout=300)
    found = np.fromfile(tmp_path / "out.bin", np.float32).reshape(1, 32, 16, 16)
    expected = simulated(model)
    for part in (slice(0, 16), slice(16, 32)):  # by the dense convolution, and through the depthwise one
        noise = np.square(found[:, part] - expected[:, part]).sum() / np.square(expected[:, part]).sum()
        assert -10 * np.log10(noise + 1e-14) > 40


def simulated(model):
    """What the Q/DQ pairs mean in float, by ONNX Runtime without INT8 kernels."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    return session.run(["out"], {"images": image})[0]
