"""Export of the GFL family: deformable convolution in two forms, RGB networks, dynamic size, half."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from export import graph, parity, to_onnx
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.ops.preprocess import input_size
from gfl_edge.spec import INPUT_NAME, read_spec
from tests.support.once import once
from train import describe
from train.models.gfl import GFL, GFLConfig

SMALL = GFLConfig(
    depth=18, base_channels=16, neck_channels=64, head_channels=64, stacked_convs=1, strides=(8, 16, 32), num_classes=3
)  # fmt: skip
DEFORMABLE = {"depth": 50, "dcn": "v1", "dcn_stages": (False, False, False, True)}
NAMES = ("a", "b", "c")


def network(**changes):
    """A small network with random weights that answers, and offsets that are not whole cells."""
    torch.manual_seed(0)
    detector = GFL(dataclasses.replace(SMALL, **changes)).eval()
    for name, parameter in detector.named_parameters():
        if "conv_offset" in name or "gfl_cls.weight" in name or "gfl_reg.weight" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return detector


def build(detector, form="gridsample", input_hw=(96, 128), **changes):
    spec = describe.describe(detector, input_hw=input_hw, class_names=NAMES, short_long=changes.pop("short_long", None))
    spec = dataclasses.replace(spec, **{"nms": "graph", **changes})
    return graph.build_graph(detector, spec, form), spec


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_both_forms_of_deformable_convolution_are_equal(kind):
    detector = network(**DEFORMABLE | {"dcn": kind})
    found = []
    for form in ("gridsample", "deform"):
        model, spec = build(detector, form)
        assert parity.compare(detector, model, spec).passed
        operators = {node.op_type for node in model.graph.node}
        assert ("DeformConv" in operators) == (form == "deform")
        assert ("GridSample" in operators) == (form == "gridsample")
        found.append(parity._run_with_candidates(model, parity.random_images(2, spec.input_hw)))
    np.testing.assert_allclose(found[0]["scores"], found[1]["scores"], atol=1e-4)
    np.testing.assert_allclose(found[0]["boxes"], found[1]["boxes"], atol=1e-2)
    assert np.ptp(found[0]["scores"]) > 0.3  # not all alike


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *(("gfl", "fp32"), ("gflv2", "fp16")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("gfl", "fp16"), ("gflv2", "fp32"))),
    ],
)
def test_both_heads_in_both_precisions(family, precision):
    detector = network(family=family)
    model, spec = build(detector, precision=precision)
    report = parity.compare(detector, model, spec)
    assert report.passed
    assert spec.name == f"{family}-r18-96x128"


def test_the_graph_takes_bgr_although_the_network_takes_rgb():
    detector = network()
    model, spec = build(detector, nms="none")
    images = parity.random_images(1, spec.input_hw)
    (scores,) = open_session(model).run(["scores"], {INPUT_NAME: images})
    rgb = (images.astype(np.float32) - spec.mean_bgr)[..., ::-1] / np.array(spec.std_bgr)[::-1]
    with torch.no_grad():
        cls_logits, _ = detector(torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float())
    expected = torch.cat([level.flatten(2) for level in cls_logits], 2).permute(0, 2, 1).sigmoid()
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def dynamic(shared):
    """A file of dynamic size, whose parity was checked at a size that was not traced."""

    def write(path):
        detector = network()
        model, spec = build(detector, input_hw=(320, 416), short_long=(320, 416))
        assert parity.compare(detector, model, spec).passed
        onnx.save(model, path)

    return once(shared / "dynamic.onnx", write)


class TestDynamicSize:
    def test_the_file_says_so(self, dynamic):
        spec = read_spec(dynamic)
        assert spec.name == "gfl-r18-dynamic-320-416"
        assert spec.short_long == (320, 416)
        assert spec.size_range == ((320, 320), (416, 416))
        (images,) = onnx.load(dynamic).graph.input
        assert [d.dim_param for d in images.type.tensor_type.shape.dim][:3] == ["batch", "height", "width"]

    @pytest.mark.parametrize(
        ("frame_hw", "expected"), [((240, 320), (320, 416)), ((320, 240), (416, 320)), ((100, 400), (320, 416))]
    )
    def test_frames_keep_their_aspect_ratio(self, dynamic, frame_hw, expected):
        assert input_size(frame_hw, read_spec(dynamic)) == expected

    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_runs_at_any_size(self, dynamic, backend):
        frames = [parity.random_images(1, hw, seed=3)[0] for hw in ((240, 320), (320, 240), (300, 300))]
        with Detector(dynamic, backend, "host") as detector:
            for frame in frames:
                found = detector(frame)
                assert len(found)
                assert found.boxes[:, 2].max() <= frame.shape[1]
            assert detector.detect_batch(frames[:2])[1].boxes[:, 3].max() <= 320

    @pytest.mark.parametrize("shape", [(1, 330, 320, 3), (1, 320, 448, 3), (1, 288, 320, 3)])
    def test_sizes_out_of_range_are_refused(self, dynamic, shape):
        with (
            Detector(dynamic, "onnxruntime") as detector,
            pytest.raises(
                InputError, match=r"takes uint8 \[N, 320 to 416 in steps of 32, 320 to 416 in steps of 32, 3\]"
            ),
        ):
            detector.backend.run(np.zeros(shape, np.uint8))

    def test_engine(self, dynamic, tmp_path):
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        from gfl_edge.engine.build import BuildPlan, build_engine

        engine, sidecar = build_engine(BuildPlan(dynamic, "rtx", ("sm75",)), tmp_path, progress=False)
        assert engine.name == "gfl-r18-dynamic-320-416-fp32-rtx-sm75.engine"
        assert sidecar.spec.short_long == (320, 416)


@pytest.mark.slow
def test_deformable_convolutions_of_dynamic_size(tmp_path):
    """At a size that was not traced, and in an engine."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from gfl_edge.engine.build import BuildPlan, build_engine

    detector = network(**DEFORMABLE)
    model, spec = build(detector, input_hw=(320, 416), short_long=(320, 416))
    assert parity.compare(detector, model, spec).passed
    onnx.save(model, tmp_path / "m.onnx")
    engine, _ = build_engine(BuildPlan(tmp_path / "m.onnx", "rtx", ("sm75",)), tmp_path, progress=False)
    assert engine.name == "gfl-r50-dcn-dynamic-320-416-fp32-rtx-sm75.engine"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gfl", "gflv2"])
def test_raw_maps_of_dynamic_size(family, tmp_path):
    """At sizes that were not traced, and with the joint logits of GFLv2."""
    detector = network(family=family)
    found = []
    for place in ("none", "raw"):
        model, spec = build(detector, input_hw=(320, 416), short_long=(320, 416), nms=place)
        assert parity.compare(detector, model, spec).passed
        onnx.save(model, tmp_path / "m.onnx")
        with Detector(tmp_path / "m.onnx", "onnxruntime") as loaded:
            found.append(loaded(parity.random_images(1, (400, 300))[0]))
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.output[1].type.tensor_type.shape.dim]
    assert shape == ["batch", "anchors", 4 * (spec.reg_max + 1)]
    assert len(found[0]) == len(found[1]) > 0
    np.testing.assert_allclose(found[1].scores, found[0].scores, atol=1e-5)


def test_the_plugin_takes_no_dynamic_size():
    with pytest.raises(InputError, match=r"--nms plugin with --dynamic.*take --nms graph"):
        build(network(), input_hw=(320, 416), short_long=(320, 416), nms="plugin")


def test_only_families_that_keep_the_aspect_ratio_are_dynamic(checkpoint, tmp_path, capsys):
    words = ["--weights", str(checkpoint("nanodet-m-320")), "--dynamic", "320", "512", "-o", str(tmp_path / "m.onnx")]
    assert to_onnx.main(words) == 1
    assert "nanodet detectors run at a fixed size (letterbox). Leave out --dynamic" in capsys.readouterr().err


def test_a_checkpoint_of_another_published_model(tmp_path, capsys):
    torch.save({"state_dict": network().state_dict()}, tmp_path / "own.pth")
    words = ["--weights", str(tmp_path / "own.pth"), "--model", "gfl-r101-2x", "-o", str(tmp_path / "own.onnx")]
    assert to_onnx.main(words) == 1
    assert "gfl-r101-2x is GFLConfig(" in capsys.readouterr().err


@pytest.mark.parametrize("fields", [{}, pytest.param(DEFORMABLE, marks=pytest.mark.slow)], ids=["plain", "dcn"])
def test_command_exports_a_checkpoint_of_the_family(fields, tmp_path, capsys):
    torch.save({"state_dict": network(**fields).state_dict()}, tmp_path / "own.pth")
    output = tmp_path / "own.onnx"
    words = [
        "--weights",
        str(tmp_path / "own.pth"),
        "--input-size",
        "96",
        "128",
        "--classes",
        "a,b,c",
        "-o",
        str(output),
    ]
    assert to_onnx.main(words) == 0, capsys.readouterr().err
    assert read_spec(output).class_names == NAMES
