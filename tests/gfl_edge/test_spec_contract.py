"""What files on disk and other programs rely on: names, defaults, limits and sizes that a spec says."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gfl_edge import spec
from gfl_edge.errors import ContractError, ModelFileError
from gfl_edge.spec import ModelSpec, load_onnx
from tests.support.tiny_spec import TINY

REQUIRED = {
    "name": "nanodet-plus-m-416",
    "family": "nanodet-plus",
    "class_names": ["cat", "dog"],
    "input_hw": [416, 320],
    "resize": "stretch",
    "mean_bgr": [103.53, 116.28, 123.675],
    "std_bgr": [57.375, 57.12, 58.395],
    "strides": [8, 16, 32, 64],
    "reg_max": 7,
    "point_offset": 0.0,
}
OPTIONAL = {
    "precision": "fp32",
    "nms": "graph",
    "score_threshold": 0.05,
    "iou_threshold": 0.6,
    "max_candidates": 1000,
    "max_detections": 100,
    "source_sha256": "",
    "short_long": None,
    "recommended_score": None,
    "quantized_layers": 0,
    "float_layers": [],
    "edge_sigma": False,
    "sigma_scale": [1.0, 1.0, 1.0, 1.0],
}


def from_dict(**change):
    return ModelSpec.from_dict({**REQUIRED, **change}, "m.onnx")


def test_metadata_of_files_that_exist_are_read():
    """The keys and values as files hold them: another prefix or format would make all of them unreadable."""
    stored = {f"gfl_edge.{key}": json.dumps(value) for key, value in {**REQUIRED, **OPTIONAL}.items()}
    stored["gfl_edge.format"] = "1"
    read = ModelSpec.from_metadata({**stored, "producer": "somebody"}, "m.onnx")
    assert read.to_metadata() == stored
    assert (read.class_names, read.input_hw, read.strides) == (("cat", "dog"), (416, 320), (8, 16, 32, 64))
    assert read == from_dict()  # the optional ones are what they are by default


def test_names_of_inputs_and_outputs():
    """Those of files that exist, and of other people's code around them."""
    assert spec.INPUT_NAME == "images"
    detections = ("num_dets", "det_boxes", "det_scores", "det_classes")
    names = {nms: dataclasses.replace(TINY, nms=nms).output_names for nms in ("graph", "plugin", "none", "raw")}
    assert names == {
        "graph": detections,
        "plugin": detections,
        "none": ("boxes", "scores"),
        "raw": ("cls_logits", "reg_logits"),
    }
    sure = dataclasses.replace(TINY, edge_sigma=True)
    assert {nms: dataclasses.replace(sure, nms=nms).output_names for nms in names} == {
        "graph": (*detections, "det_sigmas"),
        "plugin": (*detections, "det_sigmas"),
        "none": ("boxes", "scores", "sigmas"),
        "raw": ("cls_logits", "reg_logits"),
    }
    assert [nms for nms in names if dataclasses.replace(TINY, nms=nms).has_nms] == ["graph", "plugin"]
    assert (spec.PADDING_CLASS, spec.INVALID_CLASS) == (-1, -2)


@pytest.mark.parametrize(
    ("change", "stem"),
    [
        ({}, "tiny-fp32"),
        ({"nms": "plugin"}, "tiny-fp32-plugin"),
        ({"nms": "raw", "edge_sigma": True}, "tiny-fp32-raw-sigma"),
        ({"nms": "none", "precision": "bf16"}, "tiny-bf16-nonms"),
        ({"nms": "raw", "precision": "fp16", "quantized_layers": 1}, "tiny-int8-fp16-raw"),
    ],
)
def test_files_are_named_by_what_they_hold(change, stem):
    assert dataclasses.replace(TINY, **change).file_stem == stem


def test_options_of_the_commands_by_precision():
    assert spec.PRECISION_OPTION == {"fp32": "", "fp16": " --fp16", "bf16": " --bf16"}


@pytest.mark.parametrize(
    "change",
    [
        {"reg_max": 0},
        {"reg_max": 1},
        {"reg_max": 255},
        {"strides": [1]},
        {"strides": [1024]},
        {"strides": list(range(1, 17))},
        {"point_offset": -1.0},
        {"point_offset": 1.0},
        {"mean_bgr": [-1e6, 0.0, 1e6]},
        {"std_bgr": [1e-30, 1.0, 1e6]},
        {"max_candidates": 10**6},
        {"max_candidates": 1, "max_detections": 1},
        {"max_detections": 1000},
        {"class_names": [f"class {i}" for i in range(65536)]},
        {"resize": "fit", "short_long": [320, 320]},
        {"resize": "fit", "short_long": [320, 8192]},
        *({"resize": rule} for rule in ("stretch", "letterbox", "fit", "stretch-cubic")),
        *({"precision": precision} for precision in ("fp32", "fp16", "bf16")),
        *({"nms": place} for place in ("graph", "plugin", "none", "raw")),
        {"input_hw": [416, 330]},  # fixed: of any size
    ],
)
def test_values_at_their_limits_are_taken(change):
    found = from_dict(**change)
    assert {field: getattr(found, field) for field in change} == {
        field: tuple(value) if isinstance(value, list) else value for field, value in change.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        {"reg_max": 256},
        {"strides": [1025]},
        {"strides": list(range(1, 18))},
        {"point_offset": 1.01},
        {"point_offset": -1.01},
        {"mean_bgr": [0, 0, 1000000.5]},
        {"mean_bgr": [-1000000.5, 0, 0]},
        {"std_bgr": [1, 1, 1000000.5]},
        {"max_candidates": 10**6 + 1},
        {"max_detections": 1001},
        {"class_names": [f"class {i}" for i in range(65537)]},
        {"resize": "fit", "short_long": [319, 640]},
        {"resize": "fit", "short_long": [320, 8193]},
        {"resize": "fit", "short_long": [640, 639]},
        {"resize": "letterbox", "short_long": [320, 640]},
    ],
)
def test_values_beyond_their_limits_are_refused(change):
    with pytest.raises(ContractError, match=rf"m\.onnx: invalid metadata: {list(change)[-1]}"):
        from_dict(**change)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog", "cat"], "class_names: 'cat' comes twice"),
        (["cat", " "], "class_names[1] ' ': it is empty"),
        (["../x"], "class_names[0] '../x': it is a path, expected a name"),
    ],
)
def test_bad_class_names_are_quoted(names, message):
    with pytest.raises(ContractError) as caught:
        from_dict(class_names=names)
    assert str(caught.value) == f"m.onnx: invalid metadata: {message}. Export it again"


def test_sizes_of_a_fixed_and_of_a_dynamic_input():
    fixed = from_dict(input_hw=[417, 320], strides=[8, 64])
    assert fixed.size_range == ((417, 320), (417, 320))
    assert fixed.num_anchors == 53 * 40 + 7 * 5  # levels are rounded up
    assert fixed.anchors_at((64, 65)) == 8 * 9 + 1 * 2
    for longest, rounded in ((640, 640), (641, 672), (672, 672)):  # to a multiple of 32
        dynamic = from_dict(resize="fit", short_long=[400, longest])
        assert dynamic.size_range == ((320, 320), (rounded, rounded))
    assert fixed.num_classes == 2


def test_a_spec_stays_what_it_is():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.nms = "raw"
    assert len({TINY, dataclasses.replace(TINY)}) == 1  # a key of caches


def test_what_to_do_about_files_that_are_not_ours(tmp_path):
    with pytest.raises(ContractError) as caught:
        ModelSpec.from_metadata({"producer": "other"}, "m.onnx")
    assert str(caught.value) == (
        "m.onnx carries no gfl_edge metadata, so its classes, resize rule and thresholds are unknown. Export it from "
        "its checkpoint, in a checkout of gfl_edge, with: python export/to_onnx.py --weights CHECKPOINT -o MODEL.onnx. "
        "What others exported is taken in by: gfl-edge adopt FOREIGN.onnx -o MODEL.onnx"
    )
    path = tmp_path / "none.onnx"
    with pytest.raises(ModelFileError) as caught:
        load_onnx(path)
    assert str(caught.value) == (
        f"{path}: no such file. Export one, in a checkout of gfl_edge, with: "
        f"python export/to_onnx.py --weights CHECKPOINT -o {path}"
    )


def test_a_long_entry_of_the_metadata_is_not_parsed():
    long = json.dumps("x" * (spec.MAX_METADATA_CHARS - 1))
    with pytest.raises(ContractError, match=r"'gfl_edge\.name' are .* 16777217 characters, expected 16777216 at most"):
        ModelSpec.from_metadata({"gfl_edge.format": "1", "gfl_edge.name": long}, "m.onnx")
