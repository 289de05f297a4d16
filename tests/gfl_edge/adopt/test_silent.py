"""What would be wrong in silence: each form is either computed as it is meant, or refused in one sentence."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from gfl_edge.adopt.choices import Choices
from gfl_edge.adopt.decoded import point_offset_of
from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.adopt.inside import inner_normalization
from gfl_edge.adopt.recognize import find_head
from gfl_edge.adopt.roles import Given
from gfl_edge.adopt.run import AdoptRequest, adopt
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError, ModelFileError
from gfl_edge.ops import decode
from tests.support.foreign_onnx import Form, foreign_onnx

NAMES = ("a", "b", "c")
IMAGENET_BGR = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))


def saved(folder, model):
    path = folder / "foreign.onnx"
    onnx.save(model, path)
    return path


def adopted(folder, model, given=None, class_names=NAMES, **fields):
    source = saved(folder, model)
    request = AdoptRequest(source=source, output=folder / "m.onnx", class_names=class_names, nms="none", **fields)
    return adopt(dataclasses.replace(request, given=given or Choices()))


def head_of(folder, form):
    return find_head(read_foreign(saved(folder, foreign_onnx(form))), Given())


def candidates(path):
    with Detector(path, "onnxruntime") as detector:
        height, width = detector.spec.input_hw
        image = np.random.default_rng(5).integers(0, 256, (1, height, width, 3), np.uint8)
        image[..., 0] //= 2
        return {name: np.array(values) for name, values in detector.backend.run(image).items()}


@pytest.mark.parametrize(
    ("form", "order"),
    [
        (Form(swapped="gather"), "rgb"),
        (Form(swapped="slice"), "rgb"),
        (Form(swapped="split"), "rgb"),
        (Form(swapped="gather", normalization=IMAGENET_BGR), "rgb"),
        (Form(by_channel=True, normalization=IMAGENET_BGR), "bgr"),
        (Form(by_channel=True, swapped="split", normalization=IMAGENET_BGR, nhwc=True), "rgb"),
    ],
)
def test_whatever_the_graph_does_to_channels_is_seen(tmp_path, form, order):
    """Each takes other pixels to the same first layer."""
    found = adopted(tmp_path, foreign_onnx(form))
    assert any(note.startswith(f"channel order {order}") for note in found.notes)
    plain = dataclasses.replace(form, swapped="", by_channel=False, normalization=None, nhwc=False)
    (tmp_path / "plain").mkdir()
    expected, there = candidates(adopted(tmp_path / "plain", foreign_onnx(plain)).path), candidates(found.path)
    for name in expected:
        np.testing.assert_allclose(there[name], expected[name], atol=2e-3)


def test_what_is_no_normalization_is_asked_for(tmp_path):
    model = foreign_onnx(Form())
    model.graph.node[0].input[0] = "root"
    model.graph.node.insert(0, onnx.helper.make_node("Abs", ["image"], ["root"]))
    with pytest.raises(InputError, match=r"does to its image.*\(Abs\).*--mean A B C --std A B C --channel-order"):
        adopted(tmp_path, model)
    given = Choices(mean=(0, 0, 0), std=(1, 1, 1), channel_order="rgb")
    assert adopted(tmp_path, model, given).spec.std_bgr == (1, 1, 1)


def test_numbers_that_are_not_imagenets_say_nothing_of_the_order(tmp_path):
    """Darker blue than red is no sign of it: they are of somebody's images."""
    model = foreign_onnx(Form(normalization=((90.0, 100.0, 120.0), (50.0, 50.0, 50.0))))
    inner = inner_normalization(read_foreign(saved(tmp_path, model)))
    assert (inner.mean, inner.std) == ((90.0, 100.0, 120.0), (50.0, 50.0, 50.0))
    assert inner.order is None


def test_a_level_that_is_no_level_is_not_left_out(tmp_path):
    """The first convolution rounds 76 / 8 down, and every other rounds up."""
    with pytest.raises(ModelFileError, match=r"a map of 9 x 9 cells .* no stride makes of its input of 76 x 76"):
        head_of(tmp_path, Form(input_hw=(76, 76), layout="nchw"))


def test_scores_that_are_a_softmax_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"gives a softmax .* and no sigmoid"):
        head_of(tmp_path, Form(softmax=True, classes=32))


def test_a_quality_of_the_distributions_is_part_of_the_scores(tmp_path):
    form = Form(selects=True, reg_max=16, activation="relu", levels=5, input_hw=(128, 128))
    for decoded in (False, True):
        found = adopted(tmp_path, foreign_onnx(dataclasses.replace(form, decoded=decoded)), Choices(family="gfl"))
        head = head_of(tmp_path, dataclasses.replace(form, decoded=decoded))
        assert not head.logits
        assert found.proof.passed


def test_scores_that_are_changed_after_they_were_joined_are_refused(tmp_path):
    assert head_of(tmp_path, Form(decoded=True, aligned=True)).num_classes == 3
    with pytest.raises(ModelFileError, match="no class scores that are a sigmoid of one map"):
        head_of(tmp_path, Form(decoded=True, late="best"))
    assert head_of(tmp_path, Form(decoded=True, late="mask")).logits  # of those above a threshold, as they are


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_points_of_boxes_in_the_file_are_taken(tmp_path, offset):
    form = Form(decoded=True, points=offset, levels=4, activation="relu")
    given = Choices(resize="fit", channel_order="rgb", mean=(0, 0, 0), std=(255, 255, 255))
    found = adopted(tmp_path, foreign_onnx(form), given)
    assert found.spec.point_offset == offset
    assert f"point offset {offset}: the graph" in found.notes
    with pytest.raises(InputError, match=rf"with the point offset {offset:g}, and 0.25 was given"):
        adopted(tmp_path, foreign_onnx(form), dataclasses.replace(given, point_offset=0.25))


def test_points_that_are_not_the_familys_leave_it_open(tmp_path):
    adopted(tmp_path, foreign_onnx(Form(decoded=True, points=0.5)))
    with pytest.raises(InputError, match=r"points at 0 of their cells.*--family"):
        adopted(tmp_path, foreign_onnx(Form(decoded=True, points=0.0)))


@pytest.mark.parametrize("written", ["edges", "transposed", "swapped", "centers", "of one", "in strides", "one level"])
def test_points_are_found_in_boxes_of_every_form(written):
    rng, hw, strides = np.random.default_rng(0), (64, 96), (8, 16)
    logits = rng.normal(0, 2, (120, 32)).astype(np.float32)
    centers, cells = decode.points(hw, strides, 0.25)
    distances = decode.integral(logits) * cells[:, None]
    boxes = np.concatenate((centers - distances[:, :2], centers + distances[:, 2:]), axis=1)
    sides = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), axis=1)
    forms = {
        "edges": boxes.clip(0, [96, 64, 96, 64]),
        "transposed": boxes.T[None],
        "swapped": boxes[:, [1, 0, 3, 2]],
        "centers": sides,
        "of one": boxes / [96, 64, 96, 64],
        "in strides": boxes / cells[:, None],
        "one level": boxes[:96],
    }
    other = rng.normal(0, 1, (120, 4))
    assert point_offset_of(logits, [other, forms[written]], hw, strides) == 0.25
    assert point_offset_of(logits, [other], hw, strides) is None


def test_files_of_old_operators_are_brought_up_to_date(tmp_path):
    """By onnx alone, Upsample's linear interpolation would change its places."""
    model = foreign_onnx(Form(opset=9, old_resize=True))
    found = adopted(tmp_path, model)
    assert found.proof.passed
    before = read_foreign(saved(tmp_path, model)).model
    modes = [a.s for node in before.graph.node if node.op_type == "Resize" for a in node.attribute if a.name[0] == "c"]
    assert modes == [b"asymmetric"]


def test_half_precision_with_layers_that_stayed_float_is_taken(tmp_path):
    """As converters leave Resize: between casts."""
    model = foreign_onnx(Form(resized=True, opset=13))
    halves = {tensor.name for tensor in model.graph.initializer if tensor.name.startswith("w") and len(tensor.dims) > 0}
    for tensor in model.graph.initializer:
        if tensor.name in halves and tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Resize":
            wide, narrow = f"{node.output[0]}_wide", node.output[0]
            nodes.append(onnx.helper.make_node("Cast", [node.input[0]], [f"{wide}_in"], to=onnx.TensorProto.FLOAT))
            node.input[0], node.output[0] = f"{wide}_in", wide
            nodes.append(node)
            nodes.append(onnx.helper.make_node("Cast", [wide], [narrow], to=onnx.TensorProto.FLOAT16))
        else:
            nodes.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    for output in model.graph.output:
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    found = adopted(tmp_path, model)
    assert found.spec.precision == "fp16"
    assert len(found.spec.float_layers) == 2
    assert all("Resize" in name for name in found.spec.float_layers)


def test_an_empty_scale_may_have_become_a_cast(tmp_path):
    """As converters to FP16 make of it; newer operators take a size or a scale, not both."""
    model = foreign_onnx(Form(resized=True))
    empty = {"empty": np.float16, "region": np.float32}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.zeros(0, kind), name) for name, kind in empty.items()
    )
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["empty"], ["scale"], to=onnx.TensorProto.FLOAT))
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.input[1], node.input[2] = "region", "scale"
    assert adopted(tmp_path, model).proof.passed


@pytest.mark.parametrize(
    "form",
    [
        Form(levels=4, ghosts=True, activation="hard swish"),  # NanoDet-Plus of another activation, or PicoDet's ESNet
        Form(head_kernel=5),  # the head of NanoDet-Plus on the neck of NanoDet
        Form(activation="relu6", head_kernel=3),  # MobileNetV2, whose mean is not that of EfficientNet-Lite
    ],
)
def test_what_resembles_several_families_is_asked_for(tmp_path, form):
    with pytest.raises(InputError, match=r"does not show of which family it is.*--family nanodet, "):
        adopted(tmp_path, foreign_onnx(form))


def test_a_level_behind_an_unknown_operator_is_not_left_out(tmp_path):
    model = foreign_onnx(Form())
    node = [node for node in model.graph.node if node.op_type == "LeakyRelu"][-1]
    node.op_type, node.domain = "Activation", "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelFileError, match=r"has com.example::Activation within its network"):
        adopted(tmp_path, model)


def test_a_name_too_many_is_not_taken_for_a_bin_less(tmp_path):
    """7 classes and 28 channels fit as well as 3 and 32."""
    model = foreign_onnx(Form(joined=True, sigmoid=False))
    names = tuple("abcdefg")
    with pytest.raises(InputError, match=r"leave reg_max 6, which is unusual. Correct --classes, or say --reg-max 6"):
        adopted(tmp_path, model, class_names=names)
    assert adopted(tmp_path, model, class_names=names, reg_max=6).spec.reg_max == 6


@pytest.mark.parametrize("shared", [True, False])
def test_scores_that_come_last_are_seen(tmp_path, shared):
    form = Form(joined=True, sigmoid=False, classes=20, scores_last=True, shared=shared)
    head = find_head(read_foreign(saved(tmp_path, foreign_onnx(form))), Given(20, 7))
    assert {level.scores.channels for level in head.levels} == {(32, 52) if shared else (0, 20)}
    assert {level.distributions.channels for level in head.levels} == {(0, 32)}


def yolo(_):
    return foreign_onnx(Form(activation="silu", reg_max=15))


def ultralytics(_):
    model = foreign_onnx(Form())
    model.metadata_props.add(key="author", value="Ultralytics")
    return model


def anchors(_):
    model = foreign_onnx(Form(shared=False))
    last = model.graph.output[0].name
    shape = onnx.numpy_helper.from_array(np.int64([1, 3, 1, 8, 8]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Reshape", [last, "shape"], ["anchors"]))
    model.graph.output[0].name = "anchors"
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [(yolo, "looks like a YOLO"), (ultralytics, "is a YOLO of Ultralytics"), (anchors, "several anchors per cell")],
)
def test_other_detectors_are_refused_whatever_is_given(tmp_path, make, message):
    with pytest.raises(ModelFileError, match=message):
        adopted(tmp_path, make(tmp_path), Choices(family="nanodet"))


@pytest.mark.parametrize(("sigmoid", "message"), [(True, "RetinaNet"), (False, "36 and 27, do not fit 3|27 and 36")])
def test_anchors_with_deltas_are_no_distributions(tmp_path, sigmoid, message):
    model = foreign_onnx(Form(shared=False, classes=27, reg_max=8, sigmoid=sigmoid))
    with pytest.raises(InputError, match=message):
        adopted(tmp_path, model)
    if sigmoid:
        with pytest.raises(InputError, match="Of 9 anchors and 3 classes, as RetinaNet"):
            adopted(tmp_path, model, class_names=None)
