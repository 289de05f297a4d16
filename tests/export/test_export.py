"""The exported ONNX file: its contract, its parity with PyTorch, and the commands that write it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from export import graph, parity, to_onnx
from export.plugin import plugin_attributes
from gfl_edge.errors import InputError, ParityError
from gfl_edge.evaluation.coco import COCO_CLASSES
from gfl_edge.ops import decode
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.spec import CANDIDATE_NAMES, DETECTION_NAMES, INPUT_NAME, read_spec
from tests.support.exported import small_detector, small_spec
from train import describe
from train.models.nanodet import NanoDet, NanoDetConfig
from train.weights.loading import load_detector


def shapes(values):
    return {
        v.name: (v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in values
    }


@pytest.fixture(scope="module")
def small():
    """A small NanoDet with three classes and its spec; weights are random but make it answer."""
    detector = small_detector()
    return detector, small_spec(detector)


@pytest.fixture(scope="module")
def variant(small, small_onnx):
    """The graph of the small network for a spec with another precision and place of NMS, and that spec."""

    def build(precision="fp32", nms="graph"):
        return onnx.load(small_onnx[precision, nms]), replace(small[1], precision=precision, nms=nms)

    return build


@dataclass(frozen=True)
class Published:
    """What the file of a published model says."""

    name: str
    family: str
    side: int
    resize: str
    point_offset: float
    strides: tuple[int, ...]
    num_anchors: int


PUBLISHED = (
    Published("nanodet-m-320", "nanodet", 320, "letterbox", 0.5, (8, 16, 32), 2100),
    Published("nanodet-plus-m-416", "nanodet-plus", 416, "stretch", 0.0, (8, 16, 32, 64), 3598),
)


@pytest.fixture(params=[PUBLISHED[0], pytest.param(PUBLISHED[1], marks=pytest.mark.slow)], ids=lambda it: it.name)
def published(request):
    return request.param


def test_contract_with_nms(exported, published):
    model = onnx.load(exported(published.name))
    sides = [published.side] * 2
    assert shapes(model.graph.input) == {INPUT_NAME: (TensorProto.UINT8, ["batch", *sides, 3])}
    assert shapes(model.graph.output) == {
        "num_dets": (TensorProto.INT32, ["batch", 1]),
        "det_boxes": (TensorProto.FLOAT, ["batch", 100, 4]),
        "det_scores": (TensorProto.FLOAT, ["batch", 100]),
        "det_classes": (TensorProto.INT32, ["batch", 100]),
    }
    assert [(f.domain, f.name) for f in model.functions] == [("gfl_edge", "GflNms")]
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("GflNms") == 1
    assert "BatchNormalization" not in ops
    assert "MatMul" not in ops  # TensorRT-RTX has no FP32 MatMul on sm75
    assert ops.index("Cast") < ops.index("Transpose")  # TensorRT has no uint8 transpose


def test_contract_without_nms(variant):
    model, spec = variant(nms="none")
    assert shapes(model.graph.output) == {
        "boxes": (TensorProto.FLOAT, ["batch", spec.num_anchors, 4]),
        "scores": (TensorProto.FLOAT, ["batch", spec.num_anchors, 3]),
    }
    assert not model.functions


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_contract_of_raw_maps(small, precision, variant):
    """In the precision of the body, with neither sigmoid nor decode."""
    model, spec = variant(nms="raw", precision=precision)
    dtype = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}[precision]
    assert shapes(model.graph.output) == {
        "cls_logits": (dtype, ["batch", spec.num_anchors, 3]),
        "reg_logits": (dtype, ["batch", spec.num_anchors, 32]),
    }
    assert not {"Sigmoid", "Softmax", "TopK"} & {node.op_type for node in model.graph.node}
    assert parity.compare(small[0], model, spec).passed


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_contract_of_the_plugin(small, precision, variant):
    """A node without a body whose attributes TensorRT's parser can turn into fields of a plugin."""
    model, spec = variant(nms="plugin", precision=precision)
    assert shapes(model.graph.output) == {
        "num_dets": (TensorProto.INT32, ["batch", 1]),
        "det_boxes": (TensorProto.FLOAT, ["batch", 100, 4]),
        "det_scores": (TensorProto.FLOAT, ["batch", 100]),
        "det_classes": (TensorProto.INT32, ["batch", 100]),
    }
    assert not model.functions
    node = model.graph.node[-1]
    assert (node.domain, node.op_type, list(node.input)) == ("gfl_edge", "GflNms", ["cls_logits", "reg_logits"])
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes.pop("score_threshold") == pytest.approx(spec.score_threshold)
    assert attributes.pop("iou_threshold") == pytest.approx(spec.iou_threshold)
    assert attributes == {
        "plugin_version": b"1",
        "plugin_namespace": b"gfl_edge",
        "score_kind": 1,
        "max_candidates": 1000,
        "max_detections": 100,
        "class_agnostic": 0,
        "per_level": 0,
        "input_height": 64,
        "input_width": 96,
        "has_quality": 0,
        "reg_max": 7,
        "point_offset": 0.5,
        "strides": [8, 16, 32],
    }
    assert parity.compare(small[0], model, spec).passed


def test_parity_notices_another_plugin_node(small, variant):
    detector, _ = small
    model, spec = variant(nms="plugin")
    next(a for a in model.graph.node[-1].attribute if a.name == "iou_threshold").f = 0.3
    with pytest.raises(ParityError, match=r"the node after the network is GflNms .* expected GflNms"):
        parity.compare(detector, model, spec)


@pytest.mark.parametrize("nms", ["raw", "plugin"])
def test_parity_of_raw_maps_can_fail(small, nms, variant):
    detector, _ = small
    model, spec = variant(nms=nms)
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [3, 32, 1, 1]:
            changed = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    with pytest.raises(ParityError, match="disagrees with PyTorch"):
        parity.compare(detector, model, spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_candidates": 5000}, "5000 candidates of 3 levels: the plugin takes 4096 of 8 at most"),
        ({"resize": "fit", "short_long": (320, 640)}, "clips boxes to an input of fixed size"),
    ],
)
def test_what_the_plugin_cannot_do(small, changes, message):
    with pytest.raises(InputError, match=message):
        plugin_attributes(replace(small[1], **changes))


def test_the_file_describes_itself(exported, checkpoint, published):
    spec = read_spec(exported(published.name))
    assert (spec.name, spec.family, spec.class_names) == (published.name, published.family, COCO_CLASSES)
    assert spec.input_hw == (published.side, published.side)
    assert (spec.resize, spec.point_offset) == (published.resize, published.point_offset)
    assert (spec.strides, spec.reg_max, spec.num_anchors) == (published.strides, 7, published.num_anchors)
    assert (spec.score_threshold, spec.iou_threshold, spec.max_detections) == (0.05, 0.6, 100)
    assert spec.source_sha256 == hashlib.sha256(checkpoint(published.name).read_bytes()).hexdigest()


def test_the_file_says_nothing_of_the_machine_it_was_made_on(exported):
    content = exported("nanodet-m-320").read_bytes()
    for word in (b"site-packages", b"/root", b"/home", b"torch.nn", b".py"):
        assert word not in content


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_graph_equals_pytorch_and_the_numpy_oracle_at_any_batch(small, batch, variant):
    detector, _ = small
    model, spec = variant(nms="none")
    images = parity.random_images(batch, spec.input_hw, seed=batch)
    boxes, scores = open_session(model).run(CANDIDATE_NAMES, {INPUT_NAME: images})
    normalized = (images.astype(np.float32) - spec.mean_bgr) / np.array(spec.std_bgr)
    with torch.no_grad():
        maps = detector(torch.from_numpy(normalized).permute(0, 3, 1, 2).float())
    cls, reg = (torch.cat([m.flatten(2) for m in levels], 2).permute(0, 2, 1) for levels in maps)
    np.testing.assert_allclose(scores, cls.sigmoid().numpy(), atol=1e-5)
    expected = decode.decode(reg.numpy(), spec.input_hw, spec.strides, spec.point_offset)
    np.testing.assert_allclose(boxes, expected, atol=1e-2)


def test_half_is_really_half(variant):
    model, _ = variant(precision="fp16", nms="none")
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {types[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
    weights = {t.name: t.data_type for t in model.graph.initializer}
    assert {weights[node.input[1]] for node in convolutions} == {TensorProto.FLOAT16}
    assert types["boxes"] == types["scores"] == TensorProto.FLOAT


def test_single_precision_has_no_half(variant):
    model, _ = variant()
    assert TensorProto.FLOAT16 not in {t.data_type for t in model.graph.initializer}


def test_batch_norm_is_folded_in_float32():
    """A running variance that half cannot hold must not reach it."""
    from torch import nn

    block = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    block[1].running_var.fill_(1e-9)
    block[1].eps = 1e-9
    fused = graph.fuse_batch_norm(block)
    x = torch.randn(1, 3, 5, 5) * 1e-4
    torch.testing.assert_close(fused(x), block(x))
    assert Counter(type(m).__name__ for m in fused.modules())["BatchNorm2d"] == 0
    assert Counter(type(m).__name__ for m in block.modules())["BatchNorm2d"] == 1  # the original is untouched


def test_parity_passes_and_can_fail(small, variant):
    detector, _ = small
    model, spec = variant()
    report = parity.compare(detector, model, spec)
    assert report.passed
    assert "largest difference from PyTorch" in str(report)
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [3, 32, 1, 1]:  # the last convolutions for classes
            changed = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    with pytest.raises(ParityError, match="disagrees with PyTorch"):
        parity.compare(detector, model, spec)


def test_parity_notices_another_nms(small, variant):
    detector, _ = small
    model, spec = variant()
    (node,) = [node for node in model.graph.node if node.op_type == "GflNms"]
    next(a for a in node.attribute if a.name == "iou_threshold").f = 0.3
    with pytest.raises(ParityError, match=r"differ from greedy NMS: [123]"):
        parity.compare(detector, model, spec)


def test_a_model_has_a_name_that_the_commands_take(tmp_path, capsys):
    assert to_onnx.main(["--weights", "none.pth", "-o", str(tmp_path / "model")]) == 1
    assert capsys.readouterr().err.endswith("model: expected a name that ends in .onnx\n")


def test_command_recognizes_the_model_and_prints_the_next_step(checkpoint, tmp_path, capsys):
    output = tmp_path / "new folder" / "m.onnx"
    assert to_onnx.main(["--weights", str(checkpoint("nanodet-m-320")), "--nms", "none", "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(output)
    assert "nanodet-m-320" in captured.err
    assert "largest difference from PyTorch float32 on 3 images" in captured.err
    assert f"next: gfl-edge detect --model '{output}'" in captured.err
    assert read_spec(output).name == "nanodet-m-320"
    assert [path.name for path in output.parent.iterdir()] == ["m.onnx"]


def test_command_of_the_plugin_names_full_tensorrt_next(tmp_path, capsys):
    output = tmp_path / "m.onnx"
    layout = {"stage_channels": (8, 16, 16), "stage_blocks": (1,) * 4, "neck_channels": 32, "reg_max": 10}
    torch.save({"state_dict": NanoDet(NanoDetConfig("nanodet-repvgg", 3, **layout)).state_dict()}, tmp_path / "own.pth")
    words = ["--weights", str(tmp_path / "own.pth"), "--input-size", "64", "96", "--nms", "plugin", "-o", str(output)]
    assert to_onnx.main(words) == 0
    next_step = capsys.readouterr().err.splitlines()[-1]
    assert next_step == f"next: python export/to_trt.py --onnx {output} --flavor tensorrt"


def test_nothing_is_written_when_parity_fails(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(parity.TOLERANCES, "fp32", parity.Tolerance(score=0.0, edge=0.0))
    output = tmp_path / "m.onnx"
    output.write_bytes(b"the file before")
    assert to_onnx.main(["--weights", str(checkpoint("nanodet-m-320")), "-o", str(output)]) == 1
    assert "Nothing was written" in capsys.readouterr().err
    assert output.read_bytes() == b"the file before"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "yolo"], "unknown model 'yolo': expected one of nanodet-m-320"),
        (["--model", "nanodet-plus-m-416"], "is a nanodet checkpoint, nanodet-plus was requested"),
        (["--input-size", "300", "320"], "multiples of 32. Nearest: --input-size 288 320"),
        (["--classes", "cat,dog"], "2 class names for a checkpoint of 80 classes"),
        (["--classes", "names.txt"], "no such file of class names"),
        (["--classes", ",".join(f"class number {i}" for i in range(79))], "79 class names for a checkpoint of 80"),
    ],
)
def test_wrong_options_end_with_one_clear_line(checkpoint, tmp_path, capsys, arguments, message):
    output = tmp_path / "m.onnx"
    assert to_onnx.main(["--weights", str(checkpoint("nanodet-m-320")), *arguments, "-o", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_missing_weights_option(tmp_path, capsys):
    assert to_onnx.main(["-o", str(tmp_path / "m.onnx")]) == 1
    assert "--weights is missing" in capsys.readouterr().err


def test_usage_errors_exit_with_2():
    with pytest.raises(SystemExit) as caught:
        to_onnx.main(["--nms", "sometimes", "-o", "x.onnx"])
    assert caught.value.code == 2


def test_class_names_of_detectors_without(tmp_path):
    assert describe.class_names_for(2, None) == ("class_0", "class_1")


@pytest.mark.parametrize(
    ("name", "size"), [("nanodet_m_416", 416), ("nanodet_m", None), ("x_320_v2", 320), ("run_14160", None)]
)
def test_input_size_from_the_file_name(name, size, tmp_path):
    assert describe.size_from_name(tmp_path / f"{name}.ckpt") == (size and (size, size))


def test_presets_carry_the_published_sizes():
    assert set(describe.PRESETS) == {"nanodet-m-320", "nanodet-m-416", "nanodet-plus-m-320", "nanodet-plus-m-416"}
    with pytest.raises(InputError):
        describe.find_preset("nanodet-m")


def test_detections_of_the_small_model_reach_the_outputs(variant):
    model, spec = variant()
    outputs = open_session(model).run(DETECTION_NAMES, {INPUT_NAME: parity.random_images(2, spec.input_hw)})
    assert outputs[0].min() > 0  # the random network does answer, so the tests above compare something


def test_load_detector_is_what_is_exported(checkpoint):
    assert isinstance(load_detector(checkpoint("nanodet-m-320")), NanoDet)
