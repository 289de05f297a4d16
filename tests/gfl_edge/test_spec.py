from __future__ import annotations

import dataclasses
import json

import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper

from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.errors import ContractError, ModelFileError
from gfl_edge.spec import ModelSpec, read_spec, spec_of
from tests.support import tiny_onnx
from tests.support.specs import specs
from tests.support.tiny_spec import TINY

SPEC = dataclasses.replace(TINY, mean_bgr=(1.0, 2.0, 3.0), std_bgr=(4.0, 5.0, 6.0), strides=(8, 16, 32, 64))


def save(path, metadata):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, path)
    return path


def test_round_trip_through_a_file(tmp_path):
    model = tiny_onnx.tiny_onnx("raw")
    model.metadata_props.add(key="someone", value="else's key")
    onnx.save(model, tmp_path / "m.onnx")
    assert read_spec(tmp_path / "m.onnx") == dataclasses.replace(tiny_onnx.SPEC, nms="raw")


@pytest.mark.parametrize(("recommended", "expected"), [(None, 0.35), (0.42, 0.42), (0.0, 0.0)])
def test_the_score_worth_showing(recommended, expected):
    assert dataclasses.replace(SPEC, recommended_score=recommended).shown_score == expected


def test_anchors_count_every_cell():
    assert SPEC.num_anchors == 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2


def test_onnx_without_our_metadata(tmp_path):
    with pytest.raises(ContractError, match=r"no gfl_edge metadata.*to_onnx\.py --weights"):
        read_spec(save(tmp_path / "m.onnx", {"producer": "other"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gfl_edge.format": "99"}, "metadata format 99, this gfl_edge reads 1"),
        ({"gfl_edge.format": "true"}, "metadata format True, this gfl_edge reads 1"),
        ({"gfl_edge.strides": "[8,"}, "'gfl_edge.strides' are not valid JSON"),
        ({"gfl_edge.strides": "[" * 10**5}, "nested too deeply"),
        ({"gfl_edge.reg_max": "1" * 10**5}, "a whole number of 100000 digits"),
        ({"gfl_edge.point_offset": "NaN"}, "NaN is no number"),
        ({"gfl_edge.point_offset": "1e999"}, "point_offset inf: expected a finite number"),
        ({"gfl_edge.name": '"\\ud800"'}, "unexpected end of hex escape"),
        ({"gfl_edge.color": '"red"'}, "color: no such field"),
        ({"gfl_edge.resize": '"crop"'}, "resize 'crop': expected one of 'stretch', 'letterbox', 'fit'"),
        ({"gfl_edge.class_names": "[]"}, r"class_names \[\]: expected 1 to 65536 values"),
        ({"gfl_edge.iou_threshold": "1.5"}, r"iou_threshold 1.5: expected 0\.\.1"),
        ({"gfl_edge.max_detections": "2000"}, r"expected 1..max_candidates \(1000\)"),
        ({"gfl_edge.std_bgr": "[0, 1, 1]"}, r"std_bgr\[0\] 0: expected more than 0"),
        ({"gfl_edge.input_hw": "[64]"}, r"input_hw \[64\]: expected 2 values"),
    ],
)
def test_invalid_metadata_names_the_field(tmp_path, change, message):
    with pytest.raises(ContractError, match=message):
        read_spec(save(tmp_path / "m.onnx", {**SPEC.to_metadata(), **change}))


NONSENSE = [
    *(("reg_max", value) for value in (-1, 256, 10**9, True, "7", 7.5, None, [7])),
    *(("strides", value) for value in ([], [0], [-8], [16, 8], [8, 8], [8, 10**9], [8.5], ["8"], [True], 8, {"0": 8})),
    *(("input_hw", value) for value in ([0, 0], [64, -64], [64.5, 64], [10**9, 64], [64, 64, 64], "64", [31, 64])),
    *(("class_names", value) for value in ([""], [" "], ["cat", "cat"], [1], "cat", ["../../x"], ["/etc/passwd"])),
    *(("class_names", value) for value in (["a\nb"], ["\x1b[2J"], ["\0"], ["C:\\x"], ["x" * 201], None)),
    ("class_names", [str(number) for number in range(10**5)]),
    *(("std_bgr", value) for value in ([0, 1, 1], [1, -1, 1], [1, 1], 1, [1, 1, "1"], [1, 1, 1e300])),
    *(("mean_bgr", value) for value in ([0, 0], [0, 0, None], [0, 0, True], [0, 0, 1e300])),
    *(("point_offset", value) for value in (2, -2, "0.5", None, True)),
    *(("score_threshold", value) for value in (-0.1, 1.1, "0.5", True, None)),
    *(("iou_threshold", value) for value in (-0.1, 1.1, [0.5])),
    *(("max_candidates", value) for value in (0, -1, 10**9, 1.5, True)),
    *(("max_detections", value) for value in (0, -1, 10**9, True)),
    *(("quantized_layers", value) for value in (-1, 10**12, True, "1")),
    *(("float_layers", value) for value in ("conv", [1], None)),
    *(("name", value) for value in ("", "../x", "/x", "a b", "a\n", "x" * 129, 1, None)),
    *(("family", value) for value in ("", "../x", None)),
    *(("precision", value) for value in ("f", "FP32", "int8", None, 1)),
    *(("nms", value) for value in ("g", "", None)),
    *(("source_sha256", value) for value in ("x", "0" * 63, None)),
    *(("short_long", value) for value in ([320, 640], [0, 0], [640, 320], [320], 320)),
]


@pytest.mark.parametrize(("field", "value"), NONSENSE)
def test_nonsense_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ContractError, match=rf"^m\.onnx: invalid metadata: {field}") as caught:
        ModelSpec.from_dict({**json.loads(json.dumps(dataclasses.asdict(SPEC))), field: value}, "m.onnx")
    assert str(caught.value).endswith("Export it again")
    assert len(str(caught.value)) < 500
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("field", "value"), [("iou_threshold", 1.5), ("strides", (16, 8)), ("strides", [8, 16])])
def test_no_spec_is_made_of_nonsense(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SPEC, **{field: value})


@pytest.mark.parametrize("nms", ["raw", "plugin"])
def test_boxes_that_are_no_distributions_are_decoded_in_the_model(nms):
    """What follows a model decodes distributions and nothing else."""
    assert dataclasses.replace(SPEC, reg_max=0, nms="none").reg_max == 0
    with pytest.raises(ValueError, match=rf"nms '{nms}': .*numbers, not distributions.*Take --nms graph or none"):
        dataclasses.replace(SPEC, reg_max=0, nms=nms)


def test_a_dynamic_size_is_one_of_whole_steps():
    dynamic = {"resize": "fit", "short_long": (320, 640)}
    assert dataclasses.replace(SPEC, **dynamic, input_hw=(320, 640)).size_range == ((320, 320), (640, 640))
    with pytest.raises(ValueError, match=r"input_hw \(320, 650\): expected multiples of 32"):
        dataclasses.replace(SPEC, **dynamic, input_hw=(320, 650))


@settings(max_examples=100, deadline=None)
@given(spec=specs())
def test_what_is_written_is_read_back(spec):
    assert ModelSpec.from_metadata(spec.to_metadata(), "m.onnx") == spec


def test_metadata_that_come_twice(tmp_path):
    model = onnx.load(save(tmp_path / "m.onnx", SPEC.to_metadata()))
    model.metadata_props.add(key="gfl_edge.reg_max", value="9")
    with pytest.raises(ContractError, match=r"the metadata 'gfl_edge\.reg_max' come twice"):
        spec_of(model, "m.onnx")


def test_missing_field_is_named():
    values = dataclasses.asdict(SPEC)
    del values["strides"]
    with pytest.raises(ContractError, match="the file: missing strides"):
        ModelSpec.from_dict(values, "m.onnx")


def test_missing_empty_and_broken_files(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        read_spec(tmp_path / "none.onnx")
    for content, message in ((b"", "is empty"), (b"not protobuf at all", "not a readable ONNX model")):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            read_spec(tmp_path / "bad.onnx")


def test_a_file_beyond_what_protobuf_reads_is_not_read(tmp_path):
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(1 << 40)  # all of it a hole
    for read in (read_spec, read_foreign):
        with pytest.raises(ModelFileError, match="larger than the 2147483647 bytes that such a file may have"):
            read(tmp_path / "huge.onnx")


def test_memory_that_is_missing_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def refuse(_):
        raise MemoryError

    save(tmp_path / "good.onnx", {})
    monkeypatch.setattr("onnx.load_model_from_string", refuse)
    for read in (read_spec, read_foreign):
        with pytest.raises(ModelFileError, match=r"good\.onnx: there is not enough memory to read it"):
            read(tmp_path / "good.onnx")
