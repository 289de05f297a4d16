"""SAPD from its own checkpoint to files: what exists only in training is left out, the rest is as of others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from export import graph, parity, to_onnx, to_trt
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.spec import read_spec
from tests.support.calibration import write_images
from tests.support.squares_run import SAPD
from train.config import read_config
from train.describe import load_described
from train.run import train
from train.validation import evaluate_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(toml):
    """The checkpoint of a short run, in the current folder."""
    train(read_config(toml, [*SAPD, "train.epochs=14", "train.evaluate_every=0", "train.soft_levels_epoch=5"]))
    return Path("run/last.pt")


def test_the_exported_file_finds_what_the_checkpoint_does(run, squares, capsys):
    """The command compares the graph with PyTorch before it writes the file."""
    assert to_onnx.main(["--weights", str(run), "--fp16", "-o", "sapd.onnx"]) == 0, capsys.readouterr().err
    spec = read_spec("sapd.onnx")
    assert (spec.family, spec.reg_max, spec.point_offset, spec.nms) == ("sapd", 0, 0.5, "graph")
    assert spec.class_names == ("white", "gray")
    assert not any("meta" in value.name for value in onnx.load("sapd.onnx").graph.initializer)
    annotations, images = squares / "instances.json", squares / "images"
    expected = evaluate_checkpoint(run, images, annotations)
    with Detector("sapd.onnx", "onnxruntime") as detector:
        found = evaluate(detector, images, annotations)
    assert found.percent("AP50") == pytest.approx(expected["AP50"], abs=2)
    assert found.percent("AP") == pytest.approx(expected["AP"], abs=2)
    assert expected["AP50"] > 30


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "nms"), [("fp32", "none"), ("bf16", "graph")])
def test_the_graph_computes_what_pytorch_computes(run, precision, nms):
    detector, spec = load_described(run)
    spec = dataclasses.replace(spec, precision=precision, nms=nms)
    assert parity.compare(detector, graph.build_graph(detector, spec), spec).passed


@pytest.mark.slow
def test_int8_and_an_engine(run, tmp_path, capsys):
    from calib.arguments import CalibrationRequest
    from calib.run import calibrate

    assert to_onnx.main(["--weights", str(run), "--fp16", "-o", "sapd.onnx"]) == 0
    request = CalibrationRequest(Path("sapd.onnx"), write_images(tmp_path / "images"), Path("int8.onnx"), num_images=16)
    calibrate(dataclasses.replace(request, probe_images=2))
    spec = read_spec("int8.onnx")
    convolutions = sum(node.op_type == "Conv" for node in onnx.load("sapd.onnx").graph.node)
    assert spec.quantized_layers == convolutions - 2 * len(spec.strides)  # the final two of each level stay float
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    assert to_trt.main(["--onnx", "int8.onnx", "--flavor", "rtx", "--target", "sm75", "-o", "engines"]) == 0, (
        capsys.readouterr().err
    )
