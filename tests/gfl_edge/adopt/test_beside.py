"""Weights in a file beside the model, as PyTorch writes them, and files that say something else of it."""

from __future__ import annotations

import onnx
import pytest

from gfl_edge.adopt import beside
from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.adopt.run import AdoptRequest, adopt
from gfl_edge.errors import ModelFileError
from tests.support.foreign_onnx import Form, foreign_onnx, weights_beside

NAME = "foreign.onnx.data"


@pytest.fixture
def source(tmp_path):
    """A file and its weights beside it."""
    model, weights = weights_beside(foreign_onnx(Form()), NAME)
    path = tmp_path / "model" / "foreign.onnx"
    path.parent.mkdir()
    onnx.save_model(model, path)
    (path.parent / NAME).write_bytes(weights)
    return path


def edited(source, **said):
    """What the file says of where the first weight lies."""
    model = onnx.load(source, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in tensor.external_data:
        entry.value = str(said.get(entry.key, entry.value))
    if "dims" in said:
        tensor.dims[:] = said["dims"]
    onnx.save_model(model, source)


def test_the_same_as_in_one_file(source, tmp_path):
    onnx.save(foreign_onnx(Form()), tmp_path / "one.onnx")
    found = []
    for number, path in enumerate((source, tmp_path / "one.onnx")):
        request = AdoptRequest(source=path, output=tmp_path / f"{number}.onnx", name="m", class_names=("a", "b", "c"))
        assert adopt(request).proof.passed
        found.append([tensor.SerializeToString() for tensor in onnx.load(request.output).graph.initializer])
    assert found[0] == found[1]


def test_the_other_file_is_missing(source):
    (source.parent / NAME).unlink()
    with pytest.raises(ModelFileError, match=rf"keeps its weights in '{NAME}', which is not beside it. Copy both"):
        read_foreign(source)


def test_the_other_file_is_a_folder(source):
    (source.parent / NAME).unlink()
    (source.parent / NAME).mkdir()
    with pytest.raises(ModelFileError, match="which is not beside it"):
        read_foreign(source)


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "a/../../secret", "C:\\secret", "", "a\0b", ".."])
def test_a_file_elsewhere_is_not_read(source, name):
    (source.parent.parent / "secret").write_bytes(b"x" * 10_000)
    edited(source, location=name)
    with pytest.raises(ModelFileError, match=r"which is not in its folder|not beside it"):
        read_foreign(source)


def test_a_link_to_elsewhere_is_not_followed(source):
    secret = source.parent.parent / "secret"
    (source.parent / NAME).rename(secret)
    (source.parent / NAME).symlink_to(secret)
    with pytest.raises(ModelFileError, match="which is not in its folder"):
        read_foreign(source)


@pytest.mark.parametrize(
    "said",
    [
        {"offset": -4},
        {"offset": 1 << 40},
        {"offset": "a"},
        {"length": 4},
        {"dims": (1 << 40, 1 << 40)},
        {"dims": (-1,)},
        {"dims": (1 << 20,)},
    ],
)
def test_what_the_other_file_does_not_hold(source, said):
    edited(source, **said)
    with pytest.raises(ModelFileError, match=r"does not hold the weight|take more than"):
        read_foreign(source)


def test_a_file_that_is_cut_short(source):
    content = (source.parent / NAME).read_bytes()
    (source.parent / NAME).write_bytes(content[:-4])
    with pytest.raises(ModelFileError, match=rf"'{NAME}' beside it does not hold the weight .*Copy both files again"):
        read_foreign(source)


def test_one_weight_many_times(source, monkeypatch):
    """A small file that says that it is large."""
    model = onnx.load(source, load_external_data=False)
    for number in range(50):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{number}"
    onnx.save_model(model, source)
    monkeypatch.setattr(beside, "MAX_WEIGHT_BYTES", len((source.parent / NAME).read_bytes()))
    with pytest.raises(ModelFileError, match="take more than"):
        read_foreign(source)


def test_a_file_beyond_the_limit(source, monkeypatch):
    monkeypatch.setattr(beside, "MAX_WEIGHT_BYTES", 100)
    with pytest.raises(ModelFileError, match="cannot be read: it is larger than"):
        read_foreign(source)
