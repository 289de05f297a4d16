"""What is given for an ONNX file and is none: it is named."""

from __future__ import annotations

import pytest

from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.errors import ModelFileError
from gfl_edge.ops.no_onnx import recognize
from gfl_edge.spec import load_onnx
from tests.support.foreign_onnx import Form, foreign_onnx
from tests.support.tiny_onnx import tiny_onnx

FILES = {
    "a pointer of Git LFS.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3801356\n",
    "a web page": b"<!DOCTYPE html>\n<html></html>",
    "an XML file, as of OpenVINO": b'<?xml version="1.0"?><net/>',
    "a checkpoint of PyTorch.*export/to_onnx.py": b"PK\x03\x04" + b"\x00" * 40,
    "a .param file of ncnn": b"7767517\n233 265\n",
    "a file of TensorFlow Lite": b"\x1c\x00\x00\x00TFL3" + b"\x00" * 40,
    "a gzip archive": b"\x1f\x8b\x08\x00",
    "empty": b"",
}


@pytest.mark.parametrize("message", FILES)
@pytest.mark.parametrize("read", [read_foreign, load_onnx])
def test_it_is_named(tmp_path, message, read):
    path = tmp_path / "m.onnx"
    path.write_bytes(FILES[message])
    with pytest.raises(ModelFileError, match=f"m.onnx is {message}"):
        read(path)


@pytest.mark.parametrize("model", [foreign_onnx(Form()), tiny_onnx("none")])
def test_models_are_none_of_these(model):
    assert recognize(model.SerializeToString()) is None
