"""Errors of model files say which file it is and what is wrong with it, in one sentence and what to do."""

from __future__ import annotations

import json
import re

import onnx
import pytest

from gfl_edge import spec
from gfl_edge.errors import ContractError, ModelFileError
from gfl_edge.ops.onnx_limits import LimitError
from gfl_edge.spec import ModelSpec, load_contract, load_onnx, read_spec, spec_of
from tests.support.tiny_onnx import tiny_onnx

EXPORT = (
    "Export it from its checkpoint, in a checkout of gfl_edge, with: python export/to_onnx.py --weights CHECKPOINT -o"
)


@pytest.fixture(scope="module")
def model():
    return tiny_onnx("raw")


@pytest.fixture
def saved(model, tmp_path):
    """Saves the model with a change of its metadata, or of its graph."""

    def save(change=None, **metadata):
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        for prop in copy.metadata_props:
            prop.value = metadata.get(prop.key.removeprefix("gfl_edge."), prop.value)
        if change is not None:
            change(copy)
        onnx.save(copy, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return save


def message(error, call, *args):
    with pytest.raises(error) as caught:
        call(*args)
    return str(caught.value)


def test_the_file_is_named_by_its_path(saved):
    path = saved(reg_max="-1")
    assert message(ContractError, read_spec, path) == (
        f"{path}: invalid metadata: reg_max -1: expected 0..255. Export it again"
    )
    path = saved(reg_max="[")
    text = message(ContractError, read_spec, path)
    assert text.startswith(f"{path}: the metadata 'gfl_edge.reg_max' are not valid JSON: ")
    assert text.endswith(". Export it again")
    path = saved(format="2")
    expected = f"{path}: metadata format 2, this gfl_edge reads 1. Export it again"
    assert message(ContractError, read_spec, path) == expected


def test_metadata_of_no_format():
    expected = "m.onnx: metadata format None, this gfl_edge reads 1. Export it again"
    assert message(ContractError, ModelSpec.from_metadata, {"gfl_edge.name": '"x"'}, "m.onnx") == expected


def test_metadata_that_come_twice(model):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.metadata_props.add(key="gfl_edge.name", value='"x"')
    expected = "m.onnx: the metadata 'gfl_edge.name' come twice. Export it again"
    assert message(ContractError, spec_of, copy, "m.onnx") == expected


def test_the_longest_entry_that_is_parsed():
    longest = json.dumps("x" * (spec.MAX_METADATA_CHARS - 2))
    assert len(longest) == spec.MAX_METADATA_CHARS
    text = message(ContractError, ModelSpec.from_metadata, {"gfl_edge.format": "1", "gfl_edge.name": longest}, "m")
    assert "not valid JSON" not in text


def test_the_reason_of_a_library_is_its_first_line(saved, monkeypatch):
    path = saved()

    def fail(model):
        raise RuntimeError("\nthe first line\nthe second\nthe third")

    monkeypatch.setattr(onnx.checker, "check_model", fail)
    assert message(ModelFileError, load_onnx, path) == (
        f"{path} is not a readable ONNX model (the first line). Export or copy it again"
    )


def test_what_is_beyond_the_limits_is_named(saved, monkeypatch):
    path = saved(lambda copy: setattr(copy.graph.node[0], "op_type", "Loop"))
    for load in (load_onnx, load_contract):
        text = message(ModelFileError, load, path)
        assert text == f"{path}: the model has the operator 'Loop', which no model of gfl_edge has. {EXPORT} {path}"
    path = saved()

    def refuse(model):
        raise LimitError("is too large")

    monkeypatch.setattr(spec, "check_limits", refuse)
    assert message(ModelFileError, load_onnx, path) == f"{path}: the model is too large. {EXPORT} {path}"


def test_a_model_and_its_spec_are_loaded_together(saved, model):
    found, read = load_contract(saved())
    assert found == model == load_onnx(str(saved()))
    assert read.nms == "raw"


def test_inputs_that_are_not_those_of_the_spec_are_named(saved):
    def rename(copy):
        copy.graph.input[0].name = copy.graph.node[0].input[0] = "pixels"

    path = saved(rename)
    text = message(ModelFileError, load_contract, path)
    assert re.fullmatch(rf"{re.escape(str(path))}: the model .*images.*\. {re.escape(f'{EXPORT} {path}')}", text), text
    assert load_onnx(path).graph.input[0].name == "pixels"
