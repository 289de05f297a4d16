"""What graphs cost: by hand, by PyTorch's own counter, and by what was published; and the bounds that follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gfl_edge.bench import paper
from gfl_edge.bench.graph_cost import GraphCost, graph_cost
from gfl_edge.bench.roofline import GPUS, bound, bounds
from gfl_edge.report.bounds import GpuPeaks
from gfl_edge.spec import load_contract, load_onnx
from gfl_edge.zoo.catalogue import CATALOGUE

onnx = pytest.importorskip("onnx")
helper, FLOAT, UINT8 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8

# RangiLyu/nanodet, README, model zoo: "FLOPS" column, where a multiplication and an addition are two
PUBLISHED_GFLOPS = {
    "nanodet-m-320": 0.72,
    "nanodet-m-416": 1.2,
    "nanodet-g-416": 4.2,
    "nanodet-plus-m-320": 0.9,
    "nanodet-plus-m-416": 1.52,
}


def graph(nodes, initializers, outputs, channels=3, hw=(8, 8)):
    images = helper.make_tensor_value_info("images", UINT8, ["batch", "h", "w", channels])
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    made = helper.make_graph(nodes, "g", [images], outputs, initializers)
    return graph_cost(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), hw)


def weights(name, shape, kind=FLOAT):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return onnx.numpy_helper.from_array(np.ones(shape, dtype), name)


FRONT = [
    helper.make_node("Cast", ["images"], ["float"], to=FLOAT),
    helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
]
PIXELS = 8 * 8 * 3


def test_a_convolution_by_hand():
    conv = helper.make_node("Conv", ["nchw", "w"], ["out"], strides=[2, 2], pads=[1, 1, 1, 1])
    found = graph([*FRONT, conv], [weights("w", (4, 3, 3, 3))], [("out", FLOAT)])
    assert found.macs == {"fp32": 4 * 4 * 4 * 27}
    assert found.weight_bytes == 4 * 27 * 4
    assert (found.input_bytes, found.output_bytes) == (PIXELS, 4 * 4 * 4 * 4)
    cast, transpose, convolution = PIXELS * (1 + 4), PIXELS * 8, PIXELS * 4 + 4 * 27 * 4 + 4 * 4 * 4 * 4
    assert found.traffic_bytes == cast + transpose + convolution
    assert found.unknown_tensors == 0


def test_groups_divide_the_work():
    conv = helper.make_node("Conv", ["nchw", "w"], ["out"], group=3, pads=[1, 1, 1, 1])
    assert graph([*FRONT, conv], [weights("w", (3, 1, 3, 3))], [("out", FLOAT)]).macs == {"fp32": 64 * 3 * 9}


def test_matrix_products():
    nodes = [
        *FRONT,
        helper.make_node("MatMul", ["nchw", "a"], ["product"]),  # [1, 3, 8, 8] x [8, 5]
        helper.make_node("Flatten", ["product"], ["flat"]),  # [1, 120]
        helper.make_node("Gemm", ["flat", "b"], ["out"], transB=1),
    ]
    found = graph(nodes, [weights("a", (8, 5)), weights("b", (7, 120))], [("out", FLOAT)])
    assert found.macs == {"fp32": 3 * 8 * 5 * 8 + 7 * 120}


def test_quantized_convolutions_count_apart():
    """After DequantizeLinear on both sides; weights are what the file holds."""
    nodes = [
        *FRONT,
        helper.make_node("QuantizeLinear", ["nchw", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wdq"]),
        helper.make_node("Conv", ["dq", "wdq"], ["middle"]),
        helper.make_node("Conv", ["middle", "f"], ["out"]),
    ]
    constants = [weights("w", (3, 3, 1, 1), onnx.TensorProto.INT8), weights("f", (1, 3, 1, 1))]
    constants += [weights("scale", ()), weights("zero", (), onnx.TensorProto.INT8)]
    found = graph(nodes, constants, [("out", FLOAT)])
    assert found.macs == {"int8": 64 * 9, "fp32": 64 * 3}
    assert found.weight_bytes == 9 + 12 + 4 + 1
    quantized = PIXELS * 1 + 9 + PIXELS * 4  # INT8 input and weights, float output
    assert found.traffic_bytes == PIXELS * 5 + PIXELS * 8 + quantized + PIXELS * 4 + 12 + 64 * 4


def test_functions_count_by_their_bodies():
    body = [helper.make_node("Conv", ["x", "y"], ["z"])]
    function = helper.make_function("own", "Twice", ["x", "y"], ["z"], body, [helper.make_opsetid("", 18)])
    call = helper.make_node("Twice", ["nchw", "w"], ["out"], domain="own")
    images = helper.make_tensor_value_info("images", UINT8, ["batch", "h", "w", 3])
    out = helper.make_tensor_value_info("out", FLOAT, None)
    made = helper.make_graph([*FRONT, call], "g", [images], [out], [weights("w", (2, 3, 1, 1))])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(made, opset_imports=opsets, functions=[function], ir_version=9)
    before = model.SerializeToString()
    assert graph_cost(model, (8, 8)).macs == {"fp32": 64 * 6}
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    "name", [n if n == "nanodet-m-320" else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED_GFLOPS]
)
def test_published_gflops(exported, name):
    """Theirs include what is no convolution in some of the rows, and are rounded."""
    model, spec = load_contract(exported(name))
    found = graph_cost(model, spec.input_hw)
    assert 2 * found.gmacs == pytest.approx(PUBLISHED_GFLOPS[name], rel=0.06)
    assert found.macs.keys() == {"fp32"}


def test_pytorch_counts_the_same(exported, checkpoint):
    """An oracle of another's making, exact except for what the export folds."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from train.weights.loading import load_detector

    network = load_detector(checkpoint("nanodet-m-320")).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 320, 320))
    model, spec = load_contract(exported("nanodet-m-320"))
    assert 2e9 * graph_cost(model, spec.input_hw).gmacs == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_half_is_half(exported):
    full, spec = load_contract(exported("nanodet-m-320"))
    half = graph_cost(load_onnx(exported("nanodet-m-320", "fp16")), spec.input_hw)
    whole = graph_cost(full, spec.input_hw)
    assert half.macs["fp16"] > 0.99 * sum(whole.macs.values())
    assert half.weight_bytes == pytest.approx(whole.weight_bytes / 2, rel=0.05)


COST = GraphCost({"fp16": 10**9}, 50 * 10**6, 10**6, 10**6, 10**9, 0)
TOY = GpuPeaks("toy", 1.0, None, 2.0, 4.0, 100.0, 2 * 10**6, "made up")


def test_a_bound_by_hand():
    found = bound(COST, TOY)
    assert found.compute_ms == pytest.approx(1.0)  # 2e9 operations at 2e12 a second
    assert found.memory_ms == pytest.approx(0.5)  # 52 MB less 2 MB of cache at 100 GB/s
    assert (found.bound_ms, found.bound_fps, found.limit) == (pytest.approx(1), pytest.approx(1000), "compute")
    assert found.unfused_ms == pytest.approx(10)


def test_bytes_can_be_the_bound():
    found = bound(replace(COST, macs={"int8": 10**8, "fp16": 10**8}), TOY)
    assert found.compute_ms == pytest.approx(0.05 + 0.1)
    assert (found.bound_ms, found.limit) == (pytest.approx(0.5), "memory")


def test_what_fits_into_the_cache_costs_nothing():
    found = bound(replace(COST, weight_bytes=0, macs={}), TOY)
    assert (found.bound_ms, found.bound_fps) == (0, None)


def test_a_precision_that_a_gpu_has_not():
    found = {row.gpu: row for row in bounds(replace(COST, macs={"bf16": 10**9}))}
    assert found["GeForce RTX 2080 Ti"].bound_ms is None
    assert found["GeForce RTX 4090"].bound_ms > 0


def test_gpus_by_their_tensor_cores():
    """Dense operations a clock and tensor core by the architecture papers, times cores, times boost clock."""
    cores = {"GeForce RTX 2080 Ti": (544, 1.635, 64), "GeForce RTX 4090": (512, 2.520, 128)}
    cores |= {"Jetson AGX Orin 64GB": (64, 1.3, 256), "Jetson Orin NX 16GB": (32, 1.173, 256)}
    cores |= {"Jetson Orin Nano 8GB": (32, 1.02, 256)}
    for gpu in GPUS:
        count, gigahertz, fma = cores[gpu.name]
        assert gpu.fp16_tera_ops == pytest.approx(2 * count * gigahertz * fma / 1000, rel=0.01)
        assert gpu.int8_tera_ops == pytest.approx(2 * gpu.fp16_tera_ops, rel=0.01)
    assert [gpu.name for gpu in GPUS] == list(cores)


def test_names_of_the_papers_models():
    rows = {row.name: row for row in paper.PAPER_MODELS}
    assert sum(row.target for row in rows.values()) == 1
    for name, row, expected in (
        ("gfl-r50-800x1344", "gfl-r50-1x", True),
        ("gfl-r50-800x1344", "gfl-r50-2x", True),
        ("gfl-r50-dynamic-800-1333", "gfl-r50-1x", True),
        ("gfl-r50-320x320", "gfl-r50-1x", False),  # faster, and not comparable
        ("gfl-r101-dcn-800x1344", "gfl-r101-dcn-2x", True),
        ("gfl-r101-dcn-800x1344", "gfl-r101-2x", False),
        ("gfl-x101-32x4d-dcn-800x1344", "gfl-x101-dcn-2x", True),
        ("gfl-x101-32x4d-800x1344", "gfl-x101-dcn-2x", False),
        ("gflv2-r50-800x1344", "gfl-r50-1x", False),
        ("nanodet-m-320", "gfl-r50-1x", False),
    ):
        assert paper.is_network(name, rows[row]) is expected, (name, row)


def test_the_papers_models_are_those_of_the_catalogue():
    """mmdetection trained some of them again: its checkpoints differ by a few tenths of a point."""
    stated = {name: entry.val_ap for name, entry in CATALOGUE.items() if name.startswith("gfl")}
    assert {row.name: row.ap_minival for row in paper.PAPER_MODELS} == pytest.approx(stated, abs=0.21)
