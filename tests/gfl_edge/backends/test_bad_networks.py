"""ONNX files that are no networks of gfl_edge, made to do harm or by mistake: one sentence each, on both libraries.

What could end or hang the process was tried before there were limits, and did.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gfl_edge.detector import Detector
from gfl_edge.errors import GflEdgeError, ModelFileError
from gfl_edge.spec import load_contract, load_onnx
from tests.support.tiny_onnx import SPEC, tiny_onnx

FRAME = np.full((24, 40, 3), 114, np.uint8)


def saved(model, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def with_nodes(*nodes, nms="none", **weights):
    """The tiny model with ``nodes`` between its rows and its outputs: they take "rows" and give "changed"."""
    model = tiny_onnx(nms)
    at = next(i for i, node in enumerate(model.graph.node) if "rows" in node.input)
    model.graph.node[at].input[0] = "changed"
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node[at:]]
    del model.graph.node[at:]
    model.graph.node.extend([*nodes, *rest])
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def node(kind, inputs, outputs="changed", **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def whole_number_division(divisor):
    """7 divided by an integer that is computed from the image as ``divisor`` says, from a zero."""
    zero = [node("ReduceMin", "rows", "least", keepdims=0), node("Sub", "least least", "zero")]
    number = [node(*divisor), node("Cast", "by", "integer", to=TensorProto.INT64), node("Div", "a integer", "c")]
    last = [node("Cast", "c", "cf", to=TensorProto.FLOAT), node("Add", "rows cf")]
    return with_nodes(*zero, *number, *last, a=np.int64(-1 << 63), one=np.float32(1))


def integer_division(*divisor):
    """An integer divided by "by", which nodes compute."""
    last = [node("Div", "by by", "d"), node("Cast", "d", "cf", to=TensorProto.FLOAT), node("Add", "rows cf")]
    weights = {"c": np.int64([1 << 31]), "c.f": np.float32([1 << 31]), "half": np.int64([1 << 16])}
    return with_nodes(*divisor, *last, **weights)


def test_an_integer_may_be_divided_by_a_product_of_sizes(tmp_path):
    sizes = [node("Shape", "rows", f"s{i}", start=i, end=i + 1) for i in (1, 2)]
    load_contract(saved(integer_division(*sizes, node("Mul", "s1 s2", "by")), tmp_path))


def output_of(change, **weights):
    """The boxes of the tiny model after ``change``."""
    model = tiny_onnx("none")
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(change)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def edited(change, nms="none"):
    model = tiny_onnx(nms)
    change(model)
    return model


def external(model, location):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def loop():
    values = [helper.make_tensor_value_info(*one) for one in (("i", 7, []), ("c", 9, []), ("x", 1, None))]
    results = [helper.make_tensor_value_info("co", 9, []), helper.make_tensor_value_info("xo", 1, None)]
    body = helper.make_graph([node("Identity", "c", "co"), node("Identity", "x", "xo")], "b", values, results)
    return with_nodes(node("Loop", "n t rows", body=body), n=np.int64(1 << 62), t=np.bool_(True))


def nested_if():
    """As deep as Protobuf reads, on both branches."""
    result = [helper.make_tensor_value_info("o", 1, None)]
    branch = helper.make_graph([node("Identity", "rows", "o")], "g", [], result)
    for _ in range(20):
        inner = node("If", "t", "o", then_branch=branch, else_branch=branch)
        branch = helper.make_graph([inner], "g", [], result) if len(branch.node) < 2 else branch
        if branch.ByteSize() > 1 << 20:
            break
    return with_nodes(node("If", "t", then_branch=branch, else_branch=branch), t=np.bool_(True))


def functions(count):
    """Each calls the one before twice."""
    model = with_nodes(node("F0", "rows", domain="gfl_edge"))
    model.opset_import.append(helper.make_opsetid("gfl_edge", 1))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("gfl_edge", 1)]
    for i in range(count):
        calls = [node(f"F{i + 1}", "x", "z", domain="gfl_edge"), node(f"F{i + 1}", "z", "y", domain="gfl_edge")]
        model.functions.append(helper.make_function("gfl_edge", f"F{i}", ["x"], ["y"], calls, opsets))
    last = helper.make_function("gfl_edge", f"F{count}", ["x"], ["y"], [node("Identity", "x", "y")], opsets)
    model.functions.append(last)
    return model


def grown(times):
    """Twice as many rows, again and again."""
    nodes = [node("Concat", f"r{i} r{i}" if i else "rows rows", f"r{i + 1}", axis=1) for i in range(times)]
    return with_nodes(*nodes, node("ReduceMax", f"r{times}", "most", keepdims=1), node("Add", "rows most"))


REFUSED = {
    "no bytes": (lambda: b"", "is empty"),
    "cut": (lambda: tiny_onnx("graph").SerializeToString()[:-200], "is not a readable ONNX model"),
    "nested messages": (lambda: b"\x3a\x02" * 100_000, "is not a readable ONNX model"),
    "no metadata": (lambda: edited(lambda m: m.ClearField("metadata_props")), "carries no gfl_edge metadata"),
    "metadata in no encoding": (
        lambda: tiny_onnx("none").SerializeToString().replace(b"stretch", b"str\xe9tch"),
        "value that is not UTF-8|not a readable",
    ),
    "another input": (
        lambda: edited(lambda m: (setattr(m.graph.input[0], "name", "x"), m.graph.node[0].input.__setitem__(0, "x"))),
        r"has other inputs \('x'\) than 'images'",
    ),
    "two inputs": (
        lambda: edited(lambda m: m.graph.input.append(helper.make_tensor_value_info("more", 1, [1]))),
        r"has other inputs \('images', 'more'\)",
    ),
    "input of floats": (
        lambda: edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT)),
        r"has images of float \[any, 32, 32, 3\], its description says uint8",
    ),
    "input of another size": (
        lambda: edited(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 64)),
        r"has images of uint8 \[any, 64, 32, 3\], its description says uint8 \[any, 32, 32, 3\]",
    ),
    "outputs of another form": (
        lambda: edited(lambda m: m.metadata_props[12].__setattr__("value", '"raw"')),
        r"has no output 'cls_logits'",
    ),
    "fewer anchors": (
        lambda: output_of(node("Slice", "before from to at", "boxes"), **{"from": [0], "to": [8], "at": [1]}),
        r"has boxes of float \[any, 8, 4\], its description says float \[any, 16, 4\]",
    ),
    "whole numbers": (
        lambda: output_of(node("Cast", "before", "boxes", to=TensorProto.INT64)),
        r"has boxes of int64",
    ),
    "another rank": (
        lambda: output_of(node("Reshape", "before to", "boxes"), to=[-1, 4]),
        r"boxes of float \[any, 4\]",
    ),
    "weights elsewhere": (lambda: edited(lambda m: external(m, "missing.bin")), "keeps weights in another file"),
    "weights outside": (lambda: edited(lambda m: external(m, "../../etc/passwd")), "keeps weights in another file"),
    "cycle": (lambda: edited(lambda m: m.graph.node[2].input.__setitem__(0, "logits")), "not a readable ONNX model"),
    "opset of the future": (
        lambda: edited(lambda m: setattr(m.opset_import[0], "version", 10**6)),
        "is of opset 1000000",
    ),
    "opset of 2^31": (lambda: edited(lambda m: setattr(m.opset_import[0], "version", 2**31 - 1)), "is of opset 21474"),
    "unknown operator": (lambda: with_nodes(node("Own", "rows")), "has the operator 'Own'"),
    "operator of others": (lambda: with_nodes(node("Own", "rows", domain="x.y")), "has the operator 'x.y::Own'"),
    "split": (
        lambda: with_nodes(node("Split", "rows", "a changed c", axis=2, num_outputs=2)),
        "has a Split into another number than its 3 outputs",
    ),
    "loop": (loop, "has the operator 'Loop'"),
    "nested if": (nested_if, "has the operator 'If'"),
    "functions of functions": (lambda: functions(40), "has functions that call functions"),
    "beyond the data": (
        lambda: with_nodes(node("GatherND", "rows at"), at=np.full((1, 16, 6, 3), 10**6)),
        "has the operator 'GatherND'",
    ),
    "integer by zero": (lambda: whole_number_division(("Identity", "zero", "by")), "divides integers by 'integer'"),
    "integer by a product that overflows": (
        lambda: integer_division(
            node("Shape", "rows", "s", start=1, end=2),
            node("Mul", "s c", "p"),
            node("Mul", "p c", "q"),
            node("Cast", "q", "by", to=TensorProto.INT32),
        ),
        "divides integers by 'by'",
    ),
    "integer by a size made narrow": (
        lambda: integer_division(
            node("Shape", "rows", "s", start=1, end=2), node("Cast", "s", "by", to=TensorProto.INT8)
        ),
        "divides integers by 'by'",
    ),
    "integer by a product that overflows 32 bits": (
        lambda: integer_division(
            node("Shape", "rows", "s", start=1, end=2),
            node("Cast", "s", "narrow", to=TensorProto.INT32),
            node("Cast", "half", "factor", to=TensorProto.INT32),
            node("Mul", "narrow factor", "p"),
            node("Mul", "p factor", "by"),
        ),
        "divides integers by 'by'",
    ),
    "integer by a size that was a fraction": (
        lambda: integer_division(
            node("Shape", "rows", "s", start=1, end=2),
            node("Cast", "s", "whole", to=TensorProto.FLOAT),
            node("Div", "whole c.f", "part"),
            node("Cast", "part", "by", to=TensorProto.INT64),
        ),
        "divides integers by 'by'",
    ),
    "integer by -1": (lambda: whole_number_division(("Sub", "zero one", "by")), "divides integers by 'integer'"),
    "many nodes": (
        lambda: with_nodes(
            *(node("Relu", f"n{i}" if i else "rows", f"n{i + 1}") for i in range(10_000)), node("Relu", "n10000")
        ),
        "has 10010 nodes, the limit is 10000",
    ),
    "huge tensor": (
        lambda: with_nodes(
            *(node("Tile", "rows by", "t"), node("ReduceSum", "t", "s", keepdims=0), node("Add", "rows s")),
            by=np.array([1, 100_000, 1000]),
        ),
        r"takes \d+ MB for the tensor 't' of one image, the limit is 537",
    ),
    "growth": (lambda: grown(40), r"takes \d+ MB for the tensor"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_of_ours_is_refused_before_a_library_sees_it(tmp_path, make, message):
    with pytest.raises(GflEdgeError, match=message) as caught:
        load_contract(saved(make(), tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: output_of(node("Slice", "before from to at", "boxes"), **{"from": [0], "to": [0], "at": [0]}),
        lambda: with_nodes(node("Resize", "rows . by"), by=np.float32([1, 0, 1])),
        lambda: edited(lambda m: m.graph.initializer[0].__setattr__("data_type", 77)),
        lambda: with_nodes(node("Range", "a b c", "r"), a=np.int64(0), b=np.int64(9), c=np.int64(0)),
    ],
    ids=["empty batch", "resize to nothing", "unknown type", "step 0"],
)
def test_what_a_library_refuses_is_one_line(tmp_path, make, backend):
    with pytest.raises(GflEdgeError) as caught, Detector(saved(make(), tmp_path), backend) as detector:
        detector(FRAME)
    assert "\n" not in str(caught.value)


def test_a_device_is_no_model(tmp_path):
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    with pytest.raises(ModelFileError, match="no such file"):
        load_onnx(tmp_path / "zero.onnx")


def test_an_attribute_that_refers_to_another_is_refused(tmp_path):
    model = tiny_onnx("graph")
    node = next(node for node in model.functions[0].node if node.op_type == "TopK")
    node.attribute[0].ref_attr_name = "other"
    with pytest.raises(GflEdgeError, match="has a TopK by an attribute of its function"):
        load_contract(saved(model, tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [("strides", [0, 0]), ("strides", [1, -1]), ("dilations", [0, 1]), ("group", 0), ("group", -1), ("blocksize", 0)],
)
def test_what_a_library_divides_by_is_no_zero(tmp_path, name, value):
    conv = 3
    model = edited(lambda m: m.graph.node[conv].attribute.append(helper.make_attribute(name, value)))
    with pytest.raises(GflEdgeError, match=f"has the {name} 0 or less in a Conv"):
        load_contract(saved(model, tmp_path))


@pytest.mark.parametrize("nms", ["none", "raw", "graph"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_tiny_models_themselves_run(tmp_path, nms, backend):
    with Detector(saved(tiny_onnx(nms), tmp_path), backend, "graph" if nms == "graph" else "auto") as detector:
        assert len(detector(FRAME)) == 2
    assert SPEC.num_anchors == 16
