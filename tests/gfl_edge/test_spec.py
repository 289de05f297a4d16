from __future__ import annotations

import dataclasses

import onnx
import pytest
from onnx import TensorProto, helper

from gfl_edge.errors import ContractError, ModelFileError
from gfl_edge.spec import ModelSpec, read_spec
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
    path = save(tmp_path / "m.onnx", {**SPEC.to_metadata(), "someone": "else's key"})
    assert read_spec(path) == SPEC


def test_anchors_count_every_cell():
    assert SPEC.num_anchors == 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2


def test_onnx_without_our_metadata(tmp_path):
    with pytest.raises(ContractError, match=r"no gfl_edge metadata.*to_onnx\.py --weights"):
        read_spec(save(tmp_path / "m.onnx", {"producer": "other"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gfl_edge.format": "99"}, "metadata format 99, this gfl_edge reads 1"),
        ({"gfl_edge.strides": "[8,"}, "not valid JSON"),
        ({"gfl_edge.color": '"red"'}, r"unknown \['color'\]"),
        ({"gfl_edge.resize": '"crop"'}, "resize 'crop': expected one of stretch, letterbox, fit"),
        ({"gfl_edge.class_names": "[]"}, "class_names is empty"),
        ({"gfl_edge.iou_threshold": "1.5"}, "iou_threshold 1.5: expected 0..1"),
        ({"gfl_edge.max_detections": "2000"}, r"expected 1..max_candidates \(1000\)"),
        ({"gfl_edge.std_bgr": "[0, 1, 1]"}, "std above 0"),
        ({"gfl_edge.input_hw": "[64]"}, "input_hw"),
    ],
)
def test_invalid_metadata_names_the_field(tmp_path, change, message):
    with pytest.raises(ContractError, match=message):
        read_spec(save(tmp_path / "m.onnx", {**SPEC.to_metadata(), **change}))


def test_missing_field_is_named():
    values = dataclasses.asdict(SPEC)
    del values["strides"]
    with pytest.raises(ContractError, match=r"missing \['strides'\]"):
        ModelSpec.from_dict(values, "m.onnx")


def test_missing_empty_and_broken_files(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        read_spec(tmp_path / "none.onnx")
    for content in (b"", b"not protobuf at all"):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ModelFileError, match="not a readable ONNX model"):
            read_spec(tmp_path / "bad.onnx")
