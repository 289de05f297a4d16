"""Files that are no detector, damaged, or made to do harm: one sentence, and nothing is written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gfl_edge.adopt.families import _convolution_before
from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.adopt.recognize import find_head
from gfl_edge.adopt.roles import Given
from gfl_edge.cli.main import main
from gfl_edge.errors import GflEdgeError, InputError, ModelFileError
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.spec import load_onnx
from tests.support.foreign_onnx import Form, foreign_onnx
from tests.support.tiny_onnx import tiny_onnx


def spoiled(change):
    def made():
        model = foreign_onnx(Form())
        change(model)
        return model

    return made


def two_images(model):
    value = helper.make_tensor_value_info("other", TensorProto.FLOAT, [1, 3, 64, 64])
    model.graph.input.append(value)


def twice(model):
    model.graph.input.append(helper.make_tensor_value_info(model.graph.input[0].name, TensorProto.FLOAT, [1]))


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def no_nodes(model):
    del model.graph.node[:]


def text_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def large_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def not_finite(model):
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0, 0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def quantized(model):
    """A pair before the first convolution."""
    model.opset_import[0].version = 13
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    model.graph.initializer.extend([scale, zero])
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    pair = [helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"])]
    pair.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
    first.input[0] = "d"
    nodes = [*pair, *model.graph.node]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def old_opset(model):
    model.opset_import[0].version = 6


def foreign_domain(model):
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.domain = "com.example"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (two_images, "has the inputs .*: expected one image"),
        (twice, r"has the input '\w+' twice"),
        (external, "keeps its weights in 'weights.bin', which is not beside it"),
        (no_nodes, "has no nodes or no outputs"),
        (text_input, "expected one image"),
        (large_batch, "Export it with a batch of one"),
        (not_finite, "NaN or infinite values"),
        (quantized, "is INT8 already"),
        (old_opset, "is of opset 6|not a valid ONNX"),
        (foreign_domain, "Expected a NanoDet"),
    ],
)
def test_one_sentence(tmp_path, capsys, change, message):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(spoiled(change)().SerializeToString())
    with pytest.raises(ModelFileError, match=message):
        find_head(read_foreign(path), Given())
    assert main(["adopt", str(path), "-o", str(tmp_path / "m.onnx"), "--classes", "a,b,c"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("gfl-edge: error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()


def test_a_model_of_ours(tmp_path):
    path = tmp_path / "ours.onnx"
    onnx.save(tiny_onnx("none"), path)
    with pytest.raises(InputError, match="is a model of gfl_edge already"):
        read_foreign(path)


def test_a_link_in_a_circle(tmp_path, capsys):
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    onnx.save(foreign_onnx(Form()), tmp_path / "foreign.onnx")
    for source, output in ((loop, tmp_path / "out.onnx"), (tmp_path / "foreign.onnx", loop)):
        assert main(["adopt", str(source), "-o", str(output)]) == 1
        assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"PK\x03\x04", b"not onnx at all" * 20])
def test_what_is_no_onnx(tmp_path, content):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(content)
    with pytest.raises(GflEdgeError):
        read_foreign(path)


def test_channels_in_another_order_are_no_class_scores(tmp_path):
    """A graph that moves classes after the last convolution would give them other names."""
    model = foreign_onnx(Form(layout="nchw", shared=False, levels=1))
    scores = model.graph.output[0]
    parts = [helper.make_node("Split", [scores.name], ["x", "y", "z"], axis=1)]
    parts.append(helper.make_node("Concat", ["z", "x", "y"], ["moved"], axis=1))
    model.graph.node.extend(parts)
    scores.name = "moved"
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)
    with pytest.raises(GflEdgeError):
        find_head(read_foreign(path), Given())


def damaged_text(field: str) -> bytes:
    """A model in which one text is not UTF-8."""
    model = foreign_onnx(Form())
    graph, marker = model.graph, "a text of its own"
    holders = {"producer": model, "graph": graph, "node": graph.node[0], "weight": graph.initializer[0]}
    holder, _, name = field.partition(".")
    setattr(holders[holder], name, marker)
    return bytes(model.SerializeToString()).replace(marker.encode(), b"a text \x80f its own")


@pytest.mark.parametrize(
    "field", ["producer.producer_name", "graph.name", "graph.doc_string", "node.name", "node.op_type", "weight.name"]
)
def test_text_in_no_encoding(tmp_path, capsys, field):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(damaged_text(field))
    with pytest.raises(ModelFileError, match=rf"{field.partition('.')[2]} that is not UTF-8|not a readable ONNX"):
        read_foreign(path)
    with pytest.raises(ModelFileError, match=r"not UTF-8|not a readable ONNX"):
        load_onnx(path)
    assert main(["adopt", str(path), "-o", str(tmp_path / "m.onnx"), "--classes", "a,b,c"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_sums_of_sums_are_walked_once():
    """Every path through them would be more than can be walked."""
    sums = [helper.make_node("Add", [f"y{i}"] * 2, [f"y{i + 1}"]) for i in range(200)]
    nodes = [helper.make_node("Conv", ["image", "w"], ["y0"]), *sums]
    graph = OnnxGraph(helper.make_model(helper.make_graph(nodes, "g", [], [])))
    assert _convolution_before(graph, "y200").output[0] == "y0"
