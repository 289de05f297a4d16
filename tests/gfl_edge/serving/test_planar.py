"""The input of planes computes what the input of bytes computes, whoever runs it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gfl_edge.errors import InputError, ModelFileError
from gfl_edge.media.images import read_image
from gfl_edge.ops.onnx_graph import open_session, without_nms
from gfl_edge.ops.preprocess import single_input
from gfl_edge.serving.planar import planar
from gfl_edge.spec import load_contract, load_onnx, set_spec, spec_of
from gfl_edge.zoo.bundled import bundled_model
from tests.support.tiny_onnx import SPEC, tiny_onnx


def planes_of(batch):
    """What nvinfer makes of bytes: float planes, net-scale-factor 1, no offsets."""
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32)


def run(model, images, outputs):
    """Node by node: optimizers fuse the two inputs otherwise, which moves the last bits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), {"images": images})


def by_onnxruntime(model, images, outputs):
    return open_session(model).run(list(outputs), {"images": images})


def by_openvino(model, images, outputs):
    import openvino

    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    found = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
    return [found[name] for name in outputs]


@pytest.mark.parametrize("nms", ["graph", "none"])
def test_a_batch_gives_the_same(nms):
    model = tiny_onnx(nms)
    made, spec = planar(model, spec_of(model, ""))
    batch = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for left, right in zip(
        run(model, batch, spec.output_names), run(made, planes_of(batch), spec.output_names), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert not made.functions
    assert spec.nms == nms


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("nms", ["graph", "none"])
def test_exported_networks_give_the_same(small_onnx, precision, nms):
    model, spec = load_contract(small_onnx[precision, nms])
    made, spec = planar(model, spec)
    batch = np.random.default_rng(2).integers(0, 256, (2, *spec.input_hw, 3), np.uint8)
    for left, right in zip(
        run(model, batch, spec.output_names), run(made, planes_of(batch), spec.output_names), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.usefixtures("one_trace")
@pytest.mark.parametrize("family", ["gfl", "nanodet"])
def test_other_families_give_the_same(family):
    from benchmarks.fingerprints import export_small

    model = export_small(family, "fp32", "graph")
    made, spec = planar(model, spec_of(model, ""))
    batch = np.random.default_rng(2).integers(0, 256, (2, *spec.input_hw, 3), np.uint8)
    for left, right in zip(
        run(model, batch, spec.output_names), run(made, planes_of(batch), spec.output_names), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_real_frames_give_the_same(data):
    """Of the bundled detector: objects are found, and the same to the bit."""
    model, spec = load_contract(bundled_model())
    made, _ = planar(model, spec)
    found = 0
    for path in sorted(data("coco128/train2017").iterdir())[:3]:
        batch = single_input(read_image(path), spec)
        left = run(model, batch, spec.output_names)
        for one, other in zip(left, run(made, planes_of(batch), spec.output_names), strict=True):
            np.testing.assert_array_equal(one, other)
        found += int(np.count_nonzero(left[2] > spec.shown_score))
    assert found > 5


@pytest.mark.parametrize("by", [by_onnxruntime, by_openvino])
def test_real_frames_give_the_same_after_optimization(data, by):
    """Up to FP16's rounding, in which the bundled detector is written."""
    model, _ = load_contract(bundled_model())
    spec = without_nms(model, spec_of(model, ""))
    made, _ = planar(model, spec)
    path = sorted(data("coco128/train2017").iterdir())[0]
    batch = single_input(read_image(path), spec)
    (boxes, scores), (other_boxes, other_scores) = (
        by(one, images, ("boxes", "scores")) for one, images in ((model, batch), (made, planes_of(batch)))
    )
    np.testing.assert_allclose(other_scores, scores, atol=5e-3)
    sure = scores.max(axis=2) > spec.shown_score
    assert np.count_nonzero(sure) > 3
    np.testing.assert_allclose(other_boxes[sure], boxes[sure], atol=0.5)


def test_the_file_says_what_it_takes_and_is_no_model_of_ours(tmp_path):
    model = tiny_onnx("graph")
    made, _ = planar(model, spec_of(model, ""))
    images = made.graph.input[0].type.tensor_type
    assert images.elem_type == TensorProto.FLOAT
    assert [dim.dim_value or dim.dim_param for dim in images.shape.dim] == ["batch", 3, 32, 32]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8  # the argument is as it was
    onnx.save(made, tmp_path / "m.onnx")
    load_onnx(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"images of float \[any, 3, 32, 32\]"):
        load_contract(tmp_path / "m.onnx")


def test_sigmas_are_left_out():
    model = tiny_onnx("graph", replace(SPEC, edge_sigma=True))
    made, _ = planar(model, spec_of(model, ""))
    assert {value.name for value in made.graph.output} == {"num_dets", "det_boxes", "det_scores", "det_classes"}


def test_a_fixed_model_takes_no_other_size():
    model = tiny_onnx("graph")
    with pytest.raises(InputError, match="takes 32 x 32 only"):
        planar(model, spec_of(model, ""), (64, 64))


@pytest.mark.parametrize("size", [(320, 321), (288, 320), (4000, 320)])
def test_sizes_that_a_dynamic_model_does_not_take(size):
    spec = replace(SPEC, resize="fit", input_hw=(320, 320), short_long=(320, 640))
    with pytest.raises(InputError, match="expected multiples of 32 from 320 to 640"):
        planar(tiny_onnx("graph"), spec, size)


def test_an_input_that_nothing_casts_is_refused():
    model = tiny_onnx("graph")
    model.graph.node.remove(model.graph.node[0])
    model.graph.node.insert(0, helper.make_node("Identity", ["images"], ["float"]))
    with pytest.raises(ModelFileError, match="reads images by Identity, expected Cast"):
        planar(model, spec_of(model, ""))


def test_a_dynamic_size_becomes_a_fixed_one():
    """Of candidates, the number follows from the size."""
    model = tiny_onnx("none")
    spec = replace(spec_of(model, ""), resize="fit", input_hw=(320, 320), short_long=(320, 640))
    set_spec(model, spec)
    for value, sides in ((model.graph.input[0], (1, 2)), *((value, (1,)) for value in model.graph.output)):
        for side in sides:
            value.type.tensor_type.shape.dim[side].dim_param = f"any{side}"
    made, fixed = planar(model, spec, (384, 640))
    assert (fixed.input_hw, fixed.short_long, fixed.num_anchors) == ((384, 640), None, 48 * 80)
    assert [dim.dim_value for dim in made.graph.output[0].type.tensor_type.shape.dim][1:] == [3840, 2]
    assert spec_of(made, "") == fixed
