"""DeepStream's parser on the host: real outputs give what gfl_edge gives, and no output brings it down."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.backends.onnx_cpu import OnnxRuntimeBackend
from gfl_edge.media.images import read_image
from gfl_edge.ops.onnx_graph import open_session
from gfl_edge.ops.postprocess import detections
from gfl_edge.ops.preprocess import single_input
from gfl_edge.spec import load_contract, spec_of
from gfl_edge.zoo.bundled import bundled_model
from tests.support.once import once
from tests.support.required import skip_unless_required
from tests.support.tiny_onnx import SPEC, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]
PARSER, STUB = CHECKOUT / "plugins" / "deepstream", CHECKOUT / "tests" / "support" / "deepstream_stub"
FLAGS = ("-std=c++14", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion", f"-I{STUB}", f"-I{PARSER}")
NEWEST = "-DDEEPSTREAM_ROTATES"  # the others build against what was before it
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int8): 2, np.dtype(np.int32): 3}
ROOM = 4096


class Dims(ctypes.Structure):
    _fields_ = (("rank", ctypes.c_uint), ("sides", ctypes.c_uint * 8), ("elements", ctypes.c_uint))


class Layer(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("dims", Dims),
        ("binding", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("is_input", ctypes.c_int),
    )


class Found(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_uint),
        *((name, ctypes.c_float) for name in ("x", "y", "width", "height", "score", "rotation")),
    )


@pytest.fixture(scope="module")
def library(shared):
    if shutil.which("g++") is None:
        skip_unless_required("no g++ on PATH")

    def build(path):
        sanitized = ("-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-fPIC", "-shared")
        sources = (PARSER / "gfl_deepstream.cpp", STUB / "host.cpp")
        subprocess.run(["g++", *FLAGS, NEWEST, *sanitized, *map(str, sources), "-o", str(path)], check=True)

    return ctypes.CDLL(str(once(shared / "libgfl_deepstream_host.so", build)))


def layer(name, array, shape=None, data=True):
    """nvinfer's description of the output of one image; the array has to live as long."""
    shape = array.shape if shape is None else shape
    sides = (ctypes.c_uint * 8)(*[side & 0xFFFFFFFF for side in shape[:8]])
    pointer = array.ctypes.data if data else None
    return Layer(TYPES[array.dtype], Dims(len(shape), sides, array.size), 0, name and name.encode(), pointer, 0)


def parse(library, layers, spec=SPEC, limits=None):
    """Boxes xyxy, scores and classes; None where the parser refuses."""
    limits = np.full(spec.num_classes, spec.score_threshold, np.float32) if limits is None else np.float32(limits)
    found, (height, width) = (Found * ROOM)(), spec.input_hw
    pointer = limits.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    number = library.parse(
        (Layer * len(layers))(*layers), len(layers), width, height, spec.num_classes, pointer, len(limits), found, ROOM
    )
    if number < 0:
        return None
    assert all(one.rotation == 0 for one in found[:number])  # nvinfer draws it
    rows = [(one.x, one.y, one.x + one.width, one.y + one.height) for one in found[:number]]
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    scores, labels = (np.array([getattr(one, name) for one in found[:number]]) for name in ("score", "label"))
    return boxes, np.float32(scores), labels.astype(np.int32)


def of_nms(outputs, index=0):
    """The four outputs of an image, as nvinfer hands them over."""
    kept = {name: np.ascontiguousarray(array[index]) for name, array in outputs.items()}
    return kept, [layer(name, array) for name, array in kept.items()]


def some(count=3, rows=5):
    """Detections that are all well."""
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 14, (rows, 2))
    return {
        "num_dets": np.array([[count]], np.int32),
        "det_boxes": np.concatenate((corners, corners + 9), 1).astype(np.float32)[None],
        "det_scores": np.linspace(0.9, 0.5, rows, dtype=np.float32)[None],
        "det_classes": (np.arange(rows, dtype=np.int32) % 2)[None],
    }


def ours(outputs, spec, index=0):
    """What gfl_edge finds, without boxes that have no area, which nvinfer cannot show."""
    found = detections(outputs, index, spec, spec.input_hw)
    sized = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)
    return found.boxes[sized], found.scores[sized], found.classes[sized]


def same(found, expected):
    boxes, scores, classes = expected
    np.testing.assert_array_equal(found[2], classes)
    np.testing.assert_array_equal(found[1], scores)
    np.testing.assert_allclose(found[0], boxes, atol=1e-4)


def test_real_detections_are_those_of_gfl_edge(library, data):
    model, spec = load_contract(bundled_model())
    session = open_session(model)
    for path in sorted(data("coco128/train2017").iterdir())[:2]:
        values = session.run(list(spec.output_names), {"images": single_input(read_image(path), spec)})
        outputs = dict(zip(spec.output_names, values, strict=True))
        _kept, layers = of_nms(outputs)
        expected = ours(outputs, spec)
        assert len(expected[0]) > 10
        same(parse(library, layers, spec), expected)


def test_real_candidates_are_those_above_the_threshold(library):
    """Every pair of anchor and class, in order of falling score."""
    model = tiny_onnx("none")
    spec = spec_of(model, "")
    images = np.random.default_rng(0).integers(0, 256, (1, *spec.input_hw, 3), np.uint8)
    outputs = OnnxRuntimeBackend(model, spec).run(images)
    scores, boxes = (np.ascontiguousarray(outputs[name][0]) for name in ("scores", "boxes"))
    limits = np.float32([np.median(scores), 0.999])
    found = parse(library, [layer("scores", scores), layer("boxes", boxes)], spec, limits)
    anchors, classes = np.nonzero(scores >= limits)
    order = np.argsort(-scores[anchors, classes], kind="stable")
    anchors, classes = anchors[order], classes[order]
    assert 3 < len(anchors) < scores.size
    clipped = np.clip(boxes, 0, 32)[anchors]
    same(found, (clipped, scores[anchors, classes], classes))


def test_candidates_are_cut_to_the_best(library):
    rng = np.random.default_rng(5)
    scores = rng.uniform(0.2, 1, (3000, 2)).astype(np.float32)
    boxes = np.tile(np.float32([1, 2, 30, 31]), (3000, 1))
    _, found, _ = parse(library, [layer("boxes", boxes), layer("scores", scores)])
    np.testing.assert_array_equal(found, np.sort(scores.reshape(-1))[::-1][:1000])


@pytest.mark.parametrize("count", [-(2**31), -1, 0, 2, 5, 6, 2**31 - 1])
def test_any_number_of_detections(library, count):
    _kept, layers = of_nms(some(count))
    assert len(parse(library, layers)[0]) == min(max(count, 0), 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.5, 1.5, 0])
def test_scores_that_are_none(library, bad):
    outputs = some(5)
    outputs["det_scores"][0, 1] = bad
    _kept, layers = of_nms(outputs)
    assert len(parse(library, layers)[0]) == 4


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_none(library, place, bad):
    outputs = some(5)
    outputs["det_boxes"][0, 1, place] = bad
    _kept, layers = of_nms(outputs)
    assert len(parse(library, layers)[0]) == 4


@pytest.mark.parametrize("box", [(9, 9, 1, 20), (9, 9, 9, 20), (-9, 2, -1, 9), (40, 2, 50, 9), (3e38, 0, 3.1e38, 1)])
def test_boxes_without_area_in_the_input(library, box):
    outputs = some(5)
    outputs["det_boxes"][0, 0] = box
    _kept, layers = of_nms(outputs)
    assert len(parse(library, layers)[0]) == 4


def test_boxes_are_cut_at_the_input(library):
    outputs = some(1)
    outputs["det_boxes"][0, 0] = (-5, -3e38, 3e38, 40)
    _kept, layers = of_nms(outputs)
    np.testing.assert_array_equal(parse(library, layers)[0], [[0, 0, 32, 32]])


@pytest.mark.parametrize("label", [-2, -1, 2, 2**31 - 1, -(2**31)])
def test_classes_that_there_are_not(library, label):
    outputs = some(5)
    outputs["det_classes"][0, 2] = label
    _kept, layers = of_nms(outputs)
    assert len(parse(library, layers)[0]) == 4


def test_thresholds_of_classes(library):
    outputs = some(5)  # 0.9 0.8 0.7 0.6 0.5 of classes 0 1 0 1 0
    _kept, layers = of_nms(outputs)
    np.testing.assert_array_equal(parse(library, layers, limits=[0.7, 0.81])[2], [0, 0])
    assert len(parse(library, layers, limits=[0.7])[0]) == 4  # none of class 1: as if it were 0
    assert len(parse(library, layers, limits=[np.nan, 0])[0]) == 2


NAMES = ("num_dets", "det_boxes", "det_scores", "det_classes")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_output_is_refused(library, name, capfd):
    kept, _ = of_nms(some())
    layers = [layer(other, array) for other, array in kept.items() if other != name]
    assert parse(library, layers) is None
    assert f"no output {'boxes' if name == 'num_dets' else name}" in capfd.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_an_output_without_data_or_of_another_type_is_refused(library, name, capfd):
    kept, _ = of_nms(some())
    for data, dtype in ((False, kept[name].dtype), (True, np.float16)):
        layers = [layer(other, array) for other, array in kept.items() if other != name]
        changed = kept[name].astype(dtype)
        assert parse(library, [*layers, layer(name, changed, data=data)]) is None
        assert name in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("num_dets", (2,)),
        ("num_dets", (0,)),
        ("det_boxes", (4, 5)),
        ("det_boxes", (4, 4)),
        ("det_boxes", (-1, 4)),
        ("det_boxes", (2**30, 2**30, 4)),
        ("det_boxes", ()),
        ("det_scores", (4,)),
        ("det_scores", (6,)),
        ("det_classes", (1,)),
        ("det_classes", (1,) * 9),
    ],
)
def test_other_shapes_are_refused(library, name, shape):
    kept, _ = of_nms(some())
    layers = [layer(other, array, shape if other == name else None) for other, array in kept.items()]
    assert parse(library, layers) is None


@pytest.mark.parametrize("shapes", [((5, 4), (5, 3)), ((4, 4), (5, 2)), ((5, 5), (5, 2)), ((5, 4), (10,))])
def test_candidates_of_other_shapes_are_refused(library, shapes):
    arrays = [np.full(32, 0.5, np.float32) for _ in shapes]
    named = zip(("boxes", "scores"), arrays, shapes, strict=True)
    assert parse(library, [layer(name, array, shape) for name, array, shape in named]) is None


def test_candidates_that_are_no_numbers(library):
    scores = np.float32([[np.nan, 0.9], [0.8, np.inf], [0.7, 0.6]])
    boxes = np.float32([[1, 1, 9, 9], [1, 1, np.nan, 9], [9, 9, 1, 1]])
    found = parse(library, [layer("boxes", boxes), layer("scores", scores)])
    np.testing.assert_array_equal(found[1], np.float32([0.9]))


def test_no_layers_and_layers_without_names(library):
    assert parse(library, []) is None
    kept = np.zeros(4, np.float32)
    assert parse(library, [layer(None, kept)]) is None


def test_random_bytes_are_never_more_than_left_out(library):
    rng = np.random.default_rng(6)
    for _ in range(200):
        outputs = {
            name: rng.integers(0, 256, array.nbytes, np.uint8).view(array.dtype) for name, array in some().items()
        }
        outputs["det_boxes"] = outputs["det_boxes"].reshape(5, 4)
        boxes, scores, labels = parse(library, [layer(*item) for item in outputs.items()])
        assert np.isfinite(boxes).all()
        assert ((scores > 0) & (scores <= 1)).all()
        assert (labels < 2).all()


def test_a_single_class(library):
    spec = replace(SPEC, class_names=("one",))
    boxes, scores = np.float32([[1, 2, 3, 4], [2, 2, 5, 5]]), np.float32([[0.3], [0.6]])
    assert parse(library, [layer("boxes", boxes), layer("scores", scores)], spec)[1].tolist() == [
        np.float32(0.6),
        np.float32(0.3),
    ]


def test_cmake_builds_it_where_the_headers_are(tmp_path):
    if shutil.which("cmake") is None:
        skip_unless_required("no cmake on PATH")
    words = ["cmake", "-S", str(PARSER), "-B", str(tmp_path / "b"), f"-DDEEPSTREAM_INCLUDE_DIR={STUB}"]
    subprocess.run(words, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "b")], check=True, capture_output=True)
    built = ctypes.CDLL(str(tmp_path / "b" / "libgfl_deepstream.so"))
    assert built.NvDsInferParseCustomGfl
    words[-1] = "-DDEEPSTREAM_ROOT=/nowhere"
    failed = subprocess.run([*words[:-2], str(tmp_path / "c"), words[-1]], check=False, capture_output=True, text=True)
    assert failed.returncode
    assert "Name DeepStream's folder" in " ".join(failed.stderr.split())
