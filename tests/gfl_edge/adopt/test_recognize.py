"""What is found in foreign graphs, in whatever form their outputs are."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gfl_edge.adopt.families import guess_family
from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.adopt.recognize import find_head
from gfl_edge.adopt.roles import Given
from gfl_edge.errors import InputError, ModelFileError
from tests.support.foreign_onnx import Form, foreign_onnx


def written(folder, form):
    path = folder / "foreign.onnx"
    onnx.save(foreign_onnx(form), path)
    return path


def head_of(folder, form, given=None, input_hw=None):
    return find_head(read_foreign(written(folder, form), input_hw), given or Given())


FORMS = {
    "levels": Form(),
    "joined": Form(joined=True),
    "joined-apart": Form(joined=True, shared=False),
    "maps": Form(layout="nchw", shared=False),
    "columns": Form(layout="columns"),
    "permuted": Form(order=(2, 0, 1)),
    "old": Form(old=True),
    "decoded": Form(decoded=True),
    "chosen": Form(decoded=True, chosen="GatherND"),
    "chosen-otherwise": Form(decoded=True, chosen="GatherElements"),
    "five-levels": Form(levels=5, input_hw=(128, 192)),
    "fine": Form(first_stride=4, levels=4, reg_max=10, classes=20),
    "wide": Form(input_hw=(64, 160), reg_max=16, classes=1),
    "opset-18": Form(opset=18, batch="N"),
    "rows-first": Form(nhwc=True),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_with_a_sigmoid(tmp_path, name):
    form = FORMS[name]
    head = head_of(tmp_path, form)
    assert (head.strides, head.num_classes, head.reg_max) == (form.strides, form.classes, form.reg_max)
    assert head.logits
    for level, stride in zip(head.levels, form.strides, strict=True):
        cells = tuple(-(-side // stride) for side in form.input_hw)
        assert level.scores.hw == level.distributions.hw == cells
        assert level.scores.width == form.classes


def gathered(model, indices, axis):
    """The model, of whose outputs only some slices are given, as ``output[0]`` is exported."""
    for output in model.graph.output:
        name, output.name = output.name, f"{output.name}_taken"
        model.graph.initializer.append(numpy_helper.from_array(np.array(indices), f"{name}_indices"))
        model.graph.node.append(helper.make_node("Gather", [name, f"{name}_indices"], [output.name], axis=axis))
        output.ClearField("type")
    return model


@pytest.mark.parametrize("form", [Form(), Form(joined=True, levels=4, ghosts=True)])
def test_outputs_without_the_batch(tmp_path, form):
    path = tmp_path / "foreign.onnx"
    onnx.save(gathered(foreign_onnx(form), 0, 0), path)
    head = find_head(read_foreign(path), Given())
    assert (head.strides, head.num_classes, head.reg_max) == (form.strides, form.classes, form.reg_max)


def test_boxes_that_are_decoded_otherwise(tmp_path):
    """As a YOLO's: rows of all levels, in which nothing is a map."""
    model = foreign_onnx(Form(joined=True))
    (output,) = model.graph.output
    model.graph.node.append(helper.make_node("Softplus", [output.name], ["boxes"]))
    output.name = "boxes"
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelFileError, match="decodes its boxes otherwise than these families do, as YOLO does"):
        find_head(read_foreign(tmp_path / "foreign.onnx"), Given())


def test_an_objectness_is_named(tmp_path):
    """As YOLOX has, beside the classes."""
    model = foreign_onnx(Form(layout="nchw", shared=False, levels=1))
    scores = model.graph.output[0].name
    source = next(node for node in model.graph.node if scores in node.output).input[0]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "object"))
    model.graph.node.append(helper.make_node("Conv", [source, "object"], ["objectness"]))
    model.graph.node.append(helper.make_node("Sigmoid", ["objectness"], ["present"]))
    model.graph.output.add().name = "present"
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelFileError, match="One channel by itself is an objectness or a centerness"):
        find_head(read_foreign(tmp_path / "foreign.onnx"), Given())


def test_outputs_in_another_order_of_channels_are_refused(tmp_path):
    """Nothing says what the classes would be called then."""
    width = Form().classes + 4 * (Form().reg_max + 1)
    path = tmp_path / "foreign.onnx"
    onnx.save(gathered(foreign_onnx(Form(joined=True)), [1, 0, *range(2, width)], 2), path)
    with pytest.raises(ModelFileError):
        find_head(read_foreign(path), Given())


@pytest.mark.parametrize("decoded", [False, True])
def test_scores_that_are_computed_from_two_maps(tmp_path, decoded):
    form = Form(aligned=True, decoded=decoded, levels=4, activation="hard swish")
    head = head_of(tmp_path, form)
    assert (head.strides, head.num_classes, head.reg_max) == (form.strides, 3, 7)
    assert not head.logits


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("given", [Given(num_classes=20), Given(reg_max=7), Given(20, 7)])
def test_without_a_sigmoid_the_numbers_are_asked_for(tmp_path, joined, shared, given):
    form = Form(joined=joined, shared=shared, sigmoid=False, classes=20)
    with pytest.raises(InputError, match=r"20 classes with reg_max 7.*--classes NAMES, or --reg-max N"):
        head_of(tmp_path, form)
    head = head_of(tmp_path, form, given)
    assert (head.num_classes, head.reg_max, head.logits) == (20, 7, True)
    assert {level.scores.channels[0] for level in head.levels} == {0}


def test_numbers_that_only_fit_one_way_are_not_asked_for(tmp_path):
    head = head_of(tmp_path, Form(shared=False, sigmoid=False, classes=3))
    assert (head.num_classes, head.reg_max) == (3, 7)


def test_equal_numbers_are_told_apart_by_nothing(tmp_path):
    form = Form(shared=False, sigmoid=False, classes=32)
    with pytest.raises(InputError, match="both have 32 channels"):
        head_of(tmp_path, form, Given(32, 7))
    assert head_of(tmp_path, dataclasses.replace(form, sigmoid=True)).num_classes == 32


@pytest.mark.parametrize(
    ("given", "message"),
    [(Given(num_classes=80), "has classes 3, 80 were given"), (Given(reg_max=16), "has reg_max 7, 16 were given")],
)
def test_what_is_given_has_to_be_right(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        head_of(tmp_path, Form(), given)


def test_an_input_of_any_size_is_asked_for(tmp_path):
    path = written(tmp_path, Form())
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    onnx.save(model, path)
    with pytest.raises(InputError, match="--input-size H W"):
        read_foreign(path)
    assert find_head(read_foreign(path, (64, 64)), Given()).strides == (8, 16, 32)
    with pytest.raises(InputError, match=r"64 x 64 pixels, 96 x 96 requested"):
        read_foreign(written(tmp_path, Form()), (96, 96))


@pytest.mark.parametrize(
    ("form", "family"),
    [
        (Form(), "nanodet"),
        (Form(levels=4, ghosts=True), "nanodet-plus"),
        (Form(levels=4, activation="hard swish"), "picodet"),
        (Form(levels=4, activation="relu", producer="PaddlePaddle"), "picodet"),
        (Form(activation="relu"), None),
        (Form(levels=4), None),
        (Form(ghosts=True), None),
    ],
)
def test_the_family_is_guessed_where_the_graph_shows_it(tmp_path, form, family):
    foreign = read_foreign(written(tmp_path, form))
    assert guess_family(foreign, find_head(foreign, Given())).family == family


@pytest.mark.parametrize(
    ("form", "family"),
    [
        (Form(activation="relu6", body_kernel=5, head_kernel=3), "nanodet-efficientlite"),
        (Form(activation="relu6", body_kernel=3, head_kernel=3), None),
        (Form(activation="relu"), "nanodet-repvgg"),
        (Form(activation="silu"), None),
    ],
)
def test_relatives_of_nanodet_are_told_by_their_backbones(tmp_path, monkeypatch, form, family):
    monkeypatch.setattr("gfl_edge.adopt.families.CHAIN", 2)  # of a RepVGG as short as these
    foreign = read_foreign(written(tmp_path, form))
    assert guess_family(foreign, find_head(foreign, Given())).family == family


def test_paddle_is_known_by_its_names_too(tmp_path):
    """Tools that simplify a file may not say who made it."""
    model = foreign_onnx(Form(levels=4, activation="relu"))
    (first,) = (node for node in model.graph.node if "image" in node.input)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == first.input[1])
    tensor.name = first.input[1] = "conv2d_46.w_0"
    onnx.save(model, tmp_path / "foreign.onnx")
    foreign = read_foreign(tmp_path / "foreign.onnx")
    assert guess_family(foreign, find_head(foreign, Given())).family == "picodet"


def test_rows_of_detections_are_no_map(tmp_path):
    """64 detections are as many as a level of 8 x 8 has cells."""
    path = written(tmp_path, Form(decoded=True))
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(onnx.numpy_helper.np.zeros((1, 64, 4), "f4"), "zeros"))
    model.graph.node.append(onnx.helper.make_node("Neg", ["zeros"], ["detections"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("detections", onnx.TensorProto.FLOAT, None))
    onnx.save(model, path)
    assert find_head(read_foreign(path), Given()).strides == (8, 16, 32)


@pytest.mark.parametrize("ending", ["scores alone", "pooled", "convolution"])
def test_other_networks_are_none(tmp_path, ending):
    """Scores without distributions as of a YOLO, a classifier, and features."""
    model = foreign_onnx(Form(shared=False))
    last = model.graph.output[0].name
    if ending == "scores alone":
        del model.graph.output[3:]
    else:
        kind = {"pooled": "ReduceMean", "convolution": "Neg"}[ending]
        axes = {"axes": [1], "keepdims": 1} if kind == "ReduceMean" else {}
        model.graph.node.append(onnx.helper.make_node(kind, [last], ["other"], **axes))
        del model.graph.output[1:]
        model.graph.output[0].name = "other"
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r"Expected a NanoDet, NanoDet-Plus, PicoDet or GFL detector"):
        find_head(read_foreign(path), Given())
