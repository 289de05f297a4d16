"""Export of what predicts boxes as numbers: the decode is in the graph, and nothing after it decodes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from export import graph, parity, to_onnx, to_trt
from gfl_edge.detector import Detector
from gfl_edge.engine.options import BuildOptions
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import ModelFileError, ParityError
from gfl_edge.spec import read_spec
from tests.support import mmdet_atss
from tests.support.calibration import write_images
from tests.support.once import once
from train import describe
from train.models.gfl import GFL, GFLConfig

SMALL = {"depth": 18, **mmdet_atss.SMALL, "stacked_convs": 1}
ATSS = GFLConfig("atss", quality="centerness", regression="delta", **SMALL)
DIRAC = GFLConfig(quality="centerness", regression="dirac", **SMALL)
NAMES = ("a", "b", "c")
HW = mmdet_atss.INPUT_HW

pytestmark = pytest.mark.usefixtures("one_thread")


def network(config=ATSS):
    """A small network with random weights that answers."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in GFL(config).state_dict().items()}
    detector = GFL(config)
    detector.load_state_dict({key: torch.from_numpy(value) for key, value in mmdet_atss.drawn_state(shapes).items()})
    return detector.eval()


def build(config=ATSS, input_hw=HW, short_long=None, **changes):
    detector = network(config)
    spec = describe.describe(detector, input_hw=input_hw, class_names=NAMES, short_long=short_long)
    spec = dataclasses.replace(spec, **changes)
    return detector, graph.build_graph(detector, spec), spec


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "precision", "nms"),
    [(ATSS, "fp32", "graph"), (ATSS, "bf16", "none"), (DIRAC, "fp32", "none"), (DIRAC, "fp16", "graph")],
    ids=lambda it: it if isinstance(it, str) else it.regression,
)
def test_the_graph_computes_what_pytorch_computes(config, precision, nms):
    detector, model, spec = build(config, precision=precision, nms=nms)
    assert parity.compare(detector, model, spec).passed
    assert spec.reg_max == 0
    assert not any(node.op_type == "Softmax" for node in model.graph.node)


@pytest.fixture(scope="module")
def exported(shared):
    """An FP16 file with its NMS in the graph, compared with PyTorch, and the checkpoint that it is of."""

    def write(path):
        torch.save({"state_dict": network().state_dict()}, path.with_suffix(".pth"))
        words = ["--weights", str(path.with_suffix(".pth")), "--input-size", *map(str, HW), "--classes", "a,b,c"]
        assert to_onnx.main([*words, "--fp16", "-o", str(path)]) == 0

    return once(shared / "atss.onnx", write)


def test_the_file_says_what_it_is(exported):
    spec = read_spec(exported)
    assert (spec.name, spec.family, spec.precision, spec.nms) == ("atss-r18-128x160", "atss", "fp16", "graph")
    assert (spec.reg_max, spec.score_threshold) == (0, pytest.approx(0.0025))


def test_boxes_outside_of_the_image_have_no_score():
    """As mmdetection drops them (min_bbox_size); what is NaN keeps its score, so that NMS counts it."""
    detector = network()
    spec = describe.describe(detector, input_hw=HW, class_names=NAMES)
    detector.bbox_head.atss_reg.weight.data *= 5
    module = graph.ExportedDetector(detector, spec).eval()
    with torch.no_grad():
        boxes, scores = module(torch.from_numpy(parity.random_images(2, HW)))
        empty = ((boxes[..., 2:] - boxes[..., :2]) <= 0).any(-1)
        assert 0.05 < empty.float().mean() < 0.95
        assert not scores[empty].any()
        assert (scores[~empty] > 0).all()
        detector.bbox_head.atss_reg.bias.data[0] = float("nan")
        _, scores = graph.ExportedDetector(detector, spec).eval()(torch.from_numpy(parity.random_images(2, HW)))
    assert (scores > 0).float().mean() > 0.5


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("nms", ["host", "graph"])
def test_backends_agree(exported, backend, nms):
    image = parity.random_images(1, HW, seed=3)[0]
    with Detector(exported, "onnxruntime", "host") as detector:
        expected = detector(image)
    with Detector(exported, backend, nms) as detector:
        found = detector(image)
    assert len(found) == len(expected) > 5
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)


@pytest.mark.slow
def test_a_graph_that_scores_other_boxes_is_found_out():
    detector, model, spec = build()
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(model)
    (where,) = (node for node in spoiled.graph.node if "scores" in node.output)
    assert where.op_type == "Where"
    where.input[1], where.input[2] = where.input[2], where.input[1]
    assert parity.compare(detector, model, spec).passed
    with pytest.raises(ParityError, match="disagrees with PyTorch"):
        parity.compare(detector, spoiled, spec)


@pytest.mark.parametrize("nms", ["raw", "plugin"])
@pytest.mark.parametrize("command", [to_onnx, to_trt])
@pytest.mark.parametrize("config", [ATSS, DIRAC], ids=["atss", "dirac"])
def test_raw_maps_are_refused_in_a_sentence(tmp_path, capsys, command, nms, config):
    torch.save({"state_dict": network(config).state_dict()}, tmp_path / "m.pth")
    output = ["-o", str(tmp_path / "m.onnx")] if command is to_onnx else ["-o", str(tmp_path), "--flavor", "rtx"]
    assert command.main(["--weights", str(tmp_path / "m.pth"), "--nms", nms, *output]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    if not (command is to_trt and nms == "plugin"):  # TensorRT-RTX takes no plugin at all
        assert f"nms '{nms}': this model predicts numbers, not distributions" in message
        assert "Take --nms graph or none" in message
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.slow
def test_a_file_that_has_distributions_and_says_none_is_refused(tmp_path):
    gfl = GFLConfig(**SMALL)
    _, model, spec = build(gfl)
    onnx.helper.set_model_props(model, dataclasses.replace(spec, reg_max=0).to_metadata())
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="has 17 bins per edge, its description says reg_max 0"):
        read_spec(tmp_path / "m.onnx")


def test_the_kernels_take_its_boxes(exported):
    """What is built for a GPU leaves NMS to the kernels, which are given boxes and scores."""
    assert BuildOptions().spec_of(read_spec(exported), 1).nms == "none"


def test_engine(exported, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    words = ["--onnx", str(exported), "--fp16", "--flavor", "rtx", "--target", "sm75", "-o", str(tmp_path)]
    assert to_trt.main(words) == 0, capsys.readouterr().err
    (engine,) = tmp_path.glob("*.engine")
    sidecar = Sidecar.read(engine)
    assert (sidecar.spec.family, sidecar.spec.reg_max, sidecar.spec.nms, sidecar.cut_nms) == ("atss", 0, "none", True)


@pytest.mark.slow
def test_int8(exported, tmp_path):
    from calib.arguments import CalibrationRequest
    from calib.run import calibrate

    request = CalibrationRequest(exported, write_images(tmp_path / "images"), tmp_path / "int8.onnx", num_images=16)
    calibrate(dataclasses.replace(request, probe_images=2))
    spec = read_spec(request.output)
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(exported).graph.node)
    assert spec.quantized_layers == convolutions - 3 * len(spec.strides)  # the final three of each level stay float
    image = parity.random_images(1, HW, seed=3)[0]
    with Detector(exported, "onnxruntime") as before, Detector(request.output, "onnxruntime") as after:
        assert len(after(image)) == pytest.approx(len(before(image)), rel=0.3)


@pytest.mark.slow
def test_dynamic_size():
    detector, model, spec = build(input_hw=(320, 416), short_long=(320, 416), nms="graph")
    assert parity.compare(detector, model, spec).passed
