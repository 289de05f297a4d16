"""bfloat16: a body of that type, for GPUs that have it, compared although no CPU library here computes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from export import graph, parity, to_onnx, to_trt
from gfl_edge.cuda.kernels import FLOAT32, nms_params
from gfl_edge.detector import Detector
from gfl_edge.engine import build
from gfl_edge.engine.build import BuildPlan, build_engine, check_precision, check_targets
from gfl_edge.engine.contract import engine_contract
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import BackendError, InputError, ParityError, PrecisionError
from gfl_edge.ops import postprocess
from gfl_edge.spec import RAW_NAMES, read_spec
from train import describe
from train.models.gfl import GFL, GFLConfig

TINY = GFLConfig(
    depth=18, base_channels=8, neck="pan", strides=(8, 16, 32), neck_channels=32, head_channels=32, stacked_convs=1,
    num_classes=3, reg_max=7,
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    detector = GFL(TINY).eval()
    for name, parameter in detector.named_parameters():
        if "gfl_cls.weight" in name or "gfl_reg.weight" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return detector


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory):
    """bf16 files by place of NMS, as graph.onnx and raw.onnx, and the checkpoint own.pth."""
    folder = tmp_path_factory.mktemp("bf16")
    spec = describe.describe(detector, input_hw=(64, 96), class_names=("a", "b", "c"))
    for nms in ("graph", "raw"):
        changed = dataclasses.replace(spec, precision="bf16", nms=nms)
        onnx.save(graph.build_graph(detector, changed), folder / f"{nms}.onnx")
    torch.save({"state_dict": detector.state_dict()}, folder / "own.pth")
    return folder


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}


def test_the_body_is_bfloat16_and_the_rest_is_float(folder):
    model = onnx.load(folder / "graph.onnx")
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types = types_of(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {weights[node.input[1]] for node in convolutions} == {TensorProto.BFLOAT16}
    assert {types[node.output[0]] for node in convolutions} == {TensorProto.BFLOAT16}
    assert types["boxes"] == types["scores"] == types["det_boxes"] == TensorProto.FLOAT
    assert [entry.version for entry in model.opset_import if not entry.domain] == [graph.BF16_OPSET]
    assert read_spec(folder / "graph.onnx").file_stem == "gfl-r18-64x96-bf16"


def test_raw_maps_are_float_as_the_kernels_take_them(folder):
    model, spec = onnx.load(folder / "raw.onnx"), read_spec(folder / "raw.onnx")
    types = types_of(model)
    assert types["cls_logits"] == types["reg_logits"] == TensorProto.FLOAT
    contract = engine_contract(spec)
    assert contract["cls_logits"].dtype == contract["reg_logits"].dtype == "FLOAT"
    assert nms_params(spec, 1, spec.input_hw).dtype == FLOAT32


@pytest.mark.parametrize("nms", ["graph", "raw"])
def test_parity_of_the_widened_graph(detector, folder, nms):
    model, spec = onnx.load(folder / f"{nms}.onnx"), read_spec(folder / f"{nms}.onnx")
    found = parity.compare(detector, model, spec)
    assert found.passed
    assert found.score > 1e-4  # the weights are really rounded
    assert TensorProto.BFLOAT16 not in types_of(parity.widened(model)).values()
    assert TensorProto.BFLOAT16 in types_of(model).values()


def test_parity_finds_what_rounding_would_hide(detector, folder):
    """A hundredth is within the tolerance of bfloat16 and not of the same weights in float32."""
    model, spec = onnx.load(folder / "raw.onnx"), read_spec(folder / "raw.onnx")
    (weight,) = [t for t in model.graph.initializer if t.name == "body.bbox_head.gfl_cls.weight"]
    changed = torch.from_numpy(numpy_helper.to_array(weight).astype(np.float32)) * 1.01
    weight.raw_data = changed.bfloat16().view(torch.int16).numpy().tobytes()
    with pytest.raises(ParityError, match=r"tolerance 0\.0001"):
        parity.compare(detector, model, spec)


def test_rounding_of_pytorch_is_within_the_tolerance(detector, folder):
    score, edge = parity.rounding(detector, read_spec(folder / "graph.onnx"))
    tolerance = parity.TOLERANCES["bf16"]
    assert 0 < score <= tolerance.score
    assert 0 < edge <= tolerance.edge


def test_onnx_runtime_is_refused(folder):
    with pytest.raises(BackendError, match=r"bf16, in which ONNX Runtime .* GPUs from sm80 on.*without --bf16"):
        Detector(folder / "graph.onnx", "onnxruntime")


def test_openvino_runs_it(detector, folder):
    """It widens what it cannot compute."""
    images = parity.random_images(1, (64, 96))
    spec = read_spec(folder / "raw.onnx")
    with Detector(folder / "raw.onnx", "openvino") as loaded:
        found = {name: np.array(value) for name, value in loaded.backend.run(images).items()}
    reference = graph.ExportedDetector(detector, dataclasses.replace(spec, precision="fp32", nms="none")).eval()
    cls_logits, reg_logits = (found[name].astype(np.float32) for name in RAW_NAMES)
    found = postprocess.decoded(postprocess.sigmoid(cls_logits), reg_logits, spec, spec.input_hw)
    score, *_ = parity._differences(found, reference, images)
    assert score <= parity.TOLERANCES["bf16"].score


def test_deformable_operators_of_onnx_runtime_are_refused(detector, folder):
    with pytest.raises(InputError, match="--dcn deform is for ONNX Runtime"):
        graph.build_graph(detector, read_spec(folder / "graph.onnx"), "deform")


class TestEngine:
    @pytest.fixture(autouse=True)
    def trt(self):
        return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

    @pytest.mark.parametrize("nms", ["graph", "raw"])
    def test_for_ampere(self, folder, nms, tmp_path):
        engine, sidecar = build_engine(BuildPlan(folder / f"{nms}.onnx", "rtx", ("sm86",)), tmp_path, progress=False)
        suffix = {"graph": "", "raw": "-raw"}[nms]
        assert engine.name == f"gfl-r18-64x96-bf16{suffix}-rtx-sm86.engine"
        assert Sidecar.read(engine) == sidecar
        assert f"-bf16{suffix}.onnx --flavor rtx" in sidecar.rebuild_command

    def test_for_turing_is_refused(self, folder, tmp_path):
        with pytest.raises(
            InputError, match=r"bf16 was requested for sm75: bfloat16 needs a GPU from sm80 on.*Take --fp16"
        ):
            build_engine(BuildPlan(folder / "graph.onnx", "rtx", ("sm75", "sm86")), tmp_path, progress=False)
        assert not list(tmp_path.iterdir())

    def test_the_network_is_checked(self, trt, folder):
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        assert parser.parse((folder / "raw.onnx").read_bytes())
        spec = read_spec(folder / "raw.onnx")
        assert check_precision(network, spec, "rtx")
        with pytest.raises(PrecisionError, match="is declared fp16"):
            check_precision(network, dataclasses.replace(spec, precision="fp16"), "rtx")
        assert {network.get_output(i).dtype for i in range(network.num_outputs)} == {trt.DataType.FLOAT}


@pytest.mark.parametrize("target", ["sm80", "sm87", "sm90", "sm120"])
def test_gpus_that_have_it(target):
    check_targets("bf16", (target,))


def test_other_precisions_run_on_older_gpus():
    check_targets("fp16", ("sm75",))
    check_targets("fp32", ("sm75",))


class TestCommands:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(build, "current_sm", lambda required=False: None)

    def test_export(self, folder, capsys, tmp_path):
        words = ["--weights", str(folder / "own.pth"), "--input-size", "64", "96", "--classes", "a,b,c", "--bf16"]
        assert to_onnx.main([*words, "--nms", "none", "-o", "m.onnx"]) == 0
        captured = capsys.readouterr()
        assert "bf16: with activations rounded, too, PyTorch differs by score " in captured.err
        assert "next: gfl-edge detect --model m.onnx IMAGE, or" in captured.err
        assert captured.err.splitlines()[-1].endswith("to_trt.py --onnx m.onnx --bf16")
        assert read_spec(tmp_path / "m.onnx").precision == "bf16"

    def test_the_default_target_is_refused_before_the_export(self, folder, capsys, tmp_path):
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        assert to_trt.main(["--weights", str(folder / "own.pth"), "--bf16"]) == 1
        captured = capsys.readouterr()
        assert "bf16 was requested for sm75" in captured.err
        assert "exporting" not in captured.err
        assert not list(tmp_path.iterdir())

    def test_a_file_of_another_precision_is_refused(self, folder, capsys):
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        assert to_trt.main(["--onnx", str(folder / "graph.onnx"), "--fp16", "--target", "sm86"]) == 1
        assert "is bf16: precision is part of an ONNX file" in capsys.readouterr().err

    def test_both_precisions_are_a_usage_error(self):
        with pytest.raises(SystemExit) as caught:
            to_onnx.main(["--fp16", "--bf16", "-o", "m.onnx"])
        assert caught.value.code == 2
