"""Adopting whole files: what is written runs, equals the foreign file, and no wrong guess passes silently."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import onnx
import pytest

from gfl_edge.adopt.choices import Choices
from gfl_edge.adopt.families import TRAITS
from gfl_edge.adopt.run import AdoptRequest, adopt, margin_ap
from gfl_edge.cli.main import main
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError, MissingDependencyError, ModelFileError, OutputError, ParityError
from gfl_edge.ops import decode
from gfl_edge.ops.onnx_graph import OnnxGraph, tensor_types
from gfl_edge.spec import read_spec
from tests.support.foreign_onnx import Form, foreign_onnx, square_finder, write_squares
from tests.support.sigma_oracle import sigmas_of_points
from train.models.traits import TRAITS as TRAINED


def adopted(folder, model, **fields):
    folder.mkdir(exist_ok=True)
    source = folder / "foreign.onnx"
    onnx.save(model, source)
    return adopt(AdoptRequest(source=source, output=folder / "out" / "m.onnx", **fields))


def candidates(path, nms="auto"):
    """What the file gives for two random images, before NMS, or after it where that runs in the graph."""
    with Detector(path, "onnxruntime", nms) as detector:
        height, width = detector.spec.input_hw
        images = np.random.default_rng(5).integers(0, 256, (2, height, width, 3), np.uint8)
        return {name: np.array(values) for name, values in detector.backend.run(images).items()}


NAMES = ("a", "b", "c")


@pytest.mark.parametrize(
    "form",
    [
        Form(),
        Form(joined=True, sigmoid=False),
        Form(order=(2, 0, 1), old=True),
        Form(levels=4, ghosts=True, joined=True),
        Form(levels=4, activation="hard swish", decoded=True),
        Form(input_hw=(64, 160), layout="columns", nhwc=True),
        Form(decoded=True, chosen="GatherND"),
    ],
)
@pytest.mark.parametrize("nms", ["graph", "raw"])
def test_every_form_runs_and_equals_the_foreign_file(tmp_path, form, nms):
    found = adopted(tmp_path, foreign_onnx(form), class_names=NAMES, nms=nms)
    assert found.proof.passed
    assert found.proof.images == 2
    assert read_spec(found.path) == found.spec
    assert (found.spec.nms, found.spec.strides, found.spec.input_hw) == (nms, form.strides, form.input_hw)
    candidates(found.path)


@pytest.mark.parametrize("form", [Form(), Form(levels=4, activation="hard swish", decoded=True)])
def test_sigmas_are_those_of_the_distributions(tmp_path, form):
    model, given = foreign_onnx(form), {"class_names": NAMES, "uncertainty": True}
    raw, points = (candidates(adopted(tmp_path / nms, model, nms=nms, **given).path) for nms in ("raw", "none"))
    found = adopted(tmp_path / "graph", model, score_threshold=0.01, **given)
    assert read_spec(found.path).edge_sigma
    detections, spec = candidates(found.path, "graph"), found.spec
    for index, logits in enumerate(raw["reg_logits"]):
        np.testing.assert_allclose(points["sigmas"][index], sigmas_of_points(logits, spec), rtol=1e-4, atol=1e-4)
        count = int(detections["num_dets"][index, 0])
        assert count > 0
        known = np.concatenate((points["boxes"][index], points["sigmas"][index]), axis=1)
        rows = np.concatenate((detections["det_boxes"][index], detections["det_sigmas"][index]), axis=1)[:count]
        assert all(np.isclose(known, row, atol=1e-3).all(axis=1).any() for row in rows)


def test_wrong_sigmas_are_refused(tmp_path, monkeypatch):
    deviation = decode.deviation
    monkeypatch.setattr(decode, "deviation", lambda logits: deviation(logits) + np.float32(0.01))
    with pytest.raises(ParityError, match=r"sigma 1\.0\de-02 strides"):
        adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES, uncertainty=True)
    adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES)


def test_the_order_of_the_outputs_does_not_matter(tmp_path):
    """Levels that are permuted are told by their sizes, and names say nothing."""
    found = []
    for order in (None, (2, 1, 0), (1, 2, 0)):
        model = foreign_onnx(Form(order=order))
        for number, output in enumerate(model.graph.output):  # names that promise another order
            (node,) = (node for node in model.graph.node if output.name in node.output)
            node.output[0] = output.name = f"level{(number * 7) % 6}"
        path = adopted(tmp_path, model, class_names=NAMES, nms="raw").path
        found.append(candidates(path))
    for other in found[1:]:
        for name in ("cls_logits", "reg_logits"):
            np.testing.assert_array_equal(other[name], found[0][name])


def test_levels_of_one_size_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"outputs of one level|leave .* way of strides"):
        adopted(tmp_path, foreign_onnx(Form(levels=5, input_hw=(32, 32))), given=Choices(family="nanodet"))


class TestAp:
    """A detector that is right, and what else could be meant."""

    @pytest.fixture(scope="class")
    @classmethod
    def squares(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("squares")
        annotations = write_squares(folder)
        return {"images": folder / "images", "annotations": annotations, "backend": "onnxruntime"}

    def adopt(self, folder, squares, red=2, **given):
        names = {"class_names": ("square",), "given": Choices(**given)}
        return adopted(folder, square_finder(red), **names, **squares)

    def test_what_is_right_is_in_the_first_row(self, tmp_path, squares):
        found = self.adopt(tmp_path, squares, family="nanodet")
        rows = {row.options: row.ap for row in found.table}
        assert found.table[0].options == ""
        assert rows[""] == pytest.approx(100)
        assert rows["--point-offset 0"] < 60
        assert rows["--channel-order rgb"] < 10
        assert {"--resize stretch", "--resize stretch-cubic", "--resize fit"} <= rows.keys()
        assert found.proof.images == 6

    def test_points_off_by_half_are_refused(self, tmp_path, squares):
        with pytest.raises(InputError, match=r"with --point-offset 0.5.*Nothing was written"):
            self.adopt(tmp_path, squares, family="nanodet-plus")
        assert not (tmp_path / "out" / "m.onnx").exists()

    def test_swapped_channels_are_refused(self, tmp_path, squares):
        with pytest.raises(InputError, match="with --channel-order rgb"):
            self.adopt(tmp_path, squares, red=0, family="nanodet")
        found = self.adopt(tmp_path, squares, red=0, family="nanodet", channel_order="rgb")
        assert found.table[0].ap == pytest.approx(100)
        assert "--channel-order bgr" not in [row.options for row in found.table]  # it was given

    def test_a_family_that_is_open_is_measured(self, tmp_path, squares):
        found = self.adopt(tmp_path, squares)
        assert found.spec.point_offset == 0.5
        assert found.table[0].ap == pytest.approx(100)

    def test_without_annotations_it_is_asked_for(self, tmp_path, squares):
        with pytest.raises(InputError, match=r"--family nanodet, .*--point-offset 0.5 or 0.0.*--channel-order"):
            adopted(tmp_path, square_finder(), class_names=("square",))
        everything = {"point_offset": 0.5, "resize": "stretch", "channel_order": "bgr"}
        said = Choices(**everything, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))
        found = adopted(tmp_path, square_finder(), class_names=("square",), given=said)
        assert (found.spec.family, found.spec.resize) == ("custom", "stretch")

    def test_the_command_prints_the_table(self, tmp_path, squares, capsys):
        onnx.save(square_finder(), tmp_path / "foreign.onnx")
        words = ["adopt", str(tmp_path / "foreign.onnx"), "-o", str(tmp_path / "m.onnx"), "--classes", "square"]
        words += ["--family", "nanodet", "--images", str(squares["images"]), "--annotations"]
        assert main([*words, str(squares["annotations"]), "--backend", "onnxruntime"]) == 0
        out, err = capsys.readouterr()
        assert out.strip() == str(tmp_path / "m.onnx")
        lines = [line.split() for line in err.splitlines()]
        assert ["as", "recognized", "100.00"] in lines
        assert "point offset 0.5: the family's" in err
        assert "largest difference from the foreign file on 6 images" in err


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), ("bgr", (1.0, 1.0, 1.0))),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), ("rgb", (1.0, 1.0, 1.0))),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), ("rgb", (255.0, 255.0, 255.0))),
    ],
)
def test_a_normalization_in_the_graph_is_not_done_twice(tmp_path, mean, std, expected):
    found = adopted(tmp_path, foreign_onnx(Form(normalization=(mean, std))), class_names=NAMES)
    assert (found.spec.mean_bgr, found.spec.std_bgr) == ((0.0, 0.0, 0.0), expected[1])
    assert f"channel order {expected[0]}: the graph" in found.notes
    given = Choices(mean=(1, 2, 3))
    with pytest.raises(InputError, match="has a normalization in the graph"):
        adopted(tmp_path, foreign_onnx(Form(normalization=(mean, std))), class_names=NAMES, given=given)


def test_a_batch_that_cannot_be_opened_stays_one(tmp_path):
    found = adopted(tmp_path, foreign_onnx(Form(batch_lost=True)), class_names=NAMES)
    for backend in ("onnxruntime", "openvino"):
        with Detector(found.path, backend) as detector:
            assert detector.backend.max_batch == 1
            frame = np.zeros((64, 64, 3), np.uint8)
            detector(frame)
            with pytest.raises(InputError, match="this model takes at most 1"):
                detector.detect_batch([frame, frame])
    with Detector(adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES).path, "onnxruntime") as detector:
        assert detector.backend.max_batch is None


@pytest.mark.parametrize(("images", "points"), [(0, 5), (1, 5), (25, 1), (100, 0.5), (5000, 0.5)])
def test_few_images_contradict_less(images, points):
    assert margin_ap(images) == pytest.approx(points)


def test_nanodets_yaml_is_taken(tmp_path):
    config = tmp_path / "nanodet.yml"
    text = """
        model: {arch: {head: {name: NanoDetPlusHead, num_classes: 3, reg_max: 7, strides: [8, 16, 32]}}}
        data: {val: {input_size: [64, 64], keep_ratio: false, pipeline: {normalize: [[1, 2, 3], [4, 5, 6]]}}}
        class_names: [x, y, z]
    """
    config.write_text(text)
    found = adopted(tmp_path, foreign_onnx(Form(joined=True, sigmoid=False)), config=config)
    spec = found.spec
    assert (spec.family, spec.resize, spec.class_names) == ("nanodet-plus", "stretch", ("x", "y", "z"))
    assert (spec.mean_bgr, spec.std_bgr, spec.point_offset) == ((1, 2, 3), (4, 5, 6), 0.0)
    config.write_text(text.replace("num_classes: 3", "num_classes: 80"))
    with pytest.raises(InputError, match=r"num_classes is 80, but 3 class names"):
        adopted(tmp_path, foreign_onnx(Form()), config=config)
    config.write_text(text.replace("[8, 16, 32]", "[16, 32, 64]"))
    with pytest.raises(InputError, match=r"strides is \[16, 32, 64\], but .* has levels of strides \[8, 16, 32\]"):
        adopted(tmp_path, foreign_onnx(Form()), config=config)


def test_without_onnx_runtime_the_reference_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("gfl_edge.adopt.dry_run.optional.available", lambda module: False)
    found = adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES, nms="none")
    assert found.proof.passed
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"gfl-edge\[cpu\]"):
        adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES)


def test_a_family_that_the_graph_does_not_look_like_is_warned_of(tmp_path, caplog):
    adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES, given=Choices(family="nanodet-g"))
    assert not caplog.records
    adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES, given=Choices(family="nanodet-plus"))
    assert "the graph looks like nanodet (3 levels" in caplog.text


def test_the_conventions_are_those_of_training():
    for family in TRAITS.keys() & TRAINED.keys():
        ours, theirs = TRAITS[family], TRAINED[family]
        for name in ("resize", "point_offset", "channel_order", "mean_bgr", "std_bgr"):
            assert getattr(ours, name) == getattr(theirs, name), (family, name)
    assert len(TRAITS.keys() & TRAINED.keys()) >= 7


@pytest.mark.parametrize("nms", ["graph", "raw"])
def test_half_precision(tmp_path, nms):
    found = adopted(
        tmp_path, foreign_onnx(Form(levels=4, activation="hard swish")), class_names=NAMES, fp16=True, nms=nms
    )
    assert (found.spec.precision, found.spec.float_layers) == ("fp16", ())
    assert found.proof.score < 0.01
    model = onnx.load(found.path)
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convolutions = [weights[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert set(convolutions) == {onnx.TensorProto.FLOAT16}


def test_sizes_are_not_counted_in_half_precision(tmp_path):
    """FP16 has every whole number up to 2048."""
    model = foreign_onnx(Form(resized=True, opset=13))
    found = adopted(tmp_path, model, class_names=NAMES, fp16=True)
    assert found.spec.float_layers == ()
    types = tensor_types(onnx.load(found.path))
    (floors,) = ({types[n.output[0]] for n in onnx.load(found.path).graph.node if n.op_type == "Floor"},)
    assert floors == {onnx.TensorProto.FLOAT}


def test_what_half_precision_cannot_hold_stays_float(tmp_path):
    """One convolution gives 1e5 times as much, and those that read it take as much less."""
    model = foreign_onnx(Form(activation="relu"))
    graph = OnnxGraph(model)
    (first,) = graph.readers["image"]
    (activation,) = graph.readers[first.output[0]]
    factors = dict.fromkeys(first.input[1:], 100000.0) | {n.input[1]: 1e-5 for n in graph.readers[activation.output[0]]}
    for name, factor in factors.items():
        values = onnx.numpy_helper.to_array(graph.initializers[name]) * np.float32(factor)
        graph.initializers[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    found = adopted(tmp_path, model, class_names=NAMES, fp16=True, given=Choices(family="nanodet"))
    assert len(found.spec.float_layers) == 3
    assert all(name.startswith("body.Conv") for name in found.spec.float_layers)
    assert found.proof.score < 0.01


def test_raw_maps_of_probabilities_are_refused(tmp_path):
    model = foreign_onnx(Form(shared=False))
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "HardSigmoid"
    with pytest.raises(InputError, match="gives probabilities"):
        adopted(tmp_path, model, class_names=NAMES, nms="raw")
    found = adopted(tmp_path, model, class_names=NAMES)
    assert found.proof.passed
    assert any("probabilities" in note for note in found.notes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"has 3 classes, and nothing says what they are called.*--classes"),
        ({"class_names": ("a",)}, "has classes 3, 1 were given"),
    ],
)
def test_class_names_are_asked_for(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        adopted(tmp_path, foreign_onnx(Form()), **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": NAMES, "name": "../x"}, r"name '\.\./x': expected a text"),
        ({"class_names": ("a", "a", "b")}, "'a' comes twice"),
        ({"class_names": NAMES, "given": Choices(std=(0.0, 1.0, 1.0))}, r"std_bgr\[0\] 0.0: expected more than 0"),
    ],
)
def test_what_no_model_may_have_is_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        adopted(tmp_path, foreign_onnx(Form()), **fields)


def test_coco_is_what_80_classes_are(tmp_path):
    assert adopted(tmp_path, foreign_onnx(Form(classes=80))).spec.class_names[0] == "person"


def test_nothing_is_written_where_it_cannot_be(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError):
        adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES)
    with pytest.raises(InputError, match=r"expected another \.onnx file"):
        AdoptRequest(source=tmp_path / "foreign.onnx", output=tmp_path / "foreign.onnx")


def test_names_of_files_become_names_of_models(tmp_path):
    found = adopted(tmp_path, foreign_onnx(Form()), class_names=NAMES)
    assert found.spec.name == "foreign"
    source = tmp_path / "..mein Modell (1).onnx"
    onnx.save(foreign_onnx(Form()), source)
    named = adopt(AdoptRequest(source=source, output=tmp_path / "m.onnx", class_names=NAMES))
    assert named.spec.name == "mein-Modell-1-"
    again = dataclasses.replace(named.spec, name="x")
    assert again.file_stem == "x-fp32"
