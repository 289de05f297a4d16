from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading

import cv2
import numpy as np
import onnx
import pytest

import gfl_edge
from gfl_edge.backends import select
from gfl_edge.errors import BackendError, ContractError, FrameError, InputError, MissingDependencyError, ModelFileError
from gfl_edge.ops.boxes import pairwise_iou
from gfl_edge.ops.onnx_graph import without_nms

IMAGE = "coco/val2017_mix397/000000000785.jpg"  # a woman on skis
NAME = "nanodet-m-320"


@pytest.fixture(scope="module")
def model(exported):
    return exported(NAME)


@pytest.fixture(scope="module")
def frame(data):
    return cv2.imread(str(data(IMAGE)))


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def opened(model):
    """A detector of the model by backend and place of NMS, each compiled once; not to be changed nor closed."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda *choices: stack.enter_context(gfl_edge.Detector(model, *choices)))


@pytest.mark.parametrize(
    ("name", "score", "iou"), [(NAME, 0.3, 0.5), pytest.param("nanodet-plus-m-416", 0.4, 0.6, marks=pytest.mark.slow)]
)
def test_finds_what_the_annotations_say(exported, frame, data, name, score, iou):
    import json

    content = json.loads(data("coco/instances_val2017_mix397.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    truth = [a for a in content["annotations"] if a["image_id"] == 785]
    detections = gfl_edge.Detector(exported(name))(frame).above(score)
    for annotation in truth:
        x, y, w, h = annotation["bbox"]
        same = detections[[name == names[annotation["category_id"]] for _, _, name in detections]]
        assert pairwise_iou(same.boxes, np.array([[x, y, x + w, y + h]], np.float32)).max() > iou


@pytest.mark.parametrize("nms", ["graph", "host"])
def test_backends_and_places_of_nms_agree(opened, frame, backend, nms):
    reference = opened("onnxruntime", "graph")(frame)
    found = opened(backend, nms)(frame)
    assert len(found) == len(reference)
    sure = reference.scores > 0.1  # below, two scores may be so close that rounding swaps them
    np.testing.assert_allclose(found.scores, reference.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes[sure], reference.boxes[sure], atol=0.05)
    np.testing.assert_array_equal(found.class_ids[sure], reference.class_ids[sure])


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("small", "fp32"),
        *(pytest.param("nanodet-plus-m-416", precision, marks=pytest.mark.slow) for precision in ("fp32", "fp16")),
    ],
)
@pytest.mark.parametrize("image", [IMAGE, "coco/val2017_mix397/000000000139.jpg"])
def test_raw_maps_give_what_the_graph_gives(exported, small_onnx, data, backend, name, precision, image):
    whole, raw = (
        small_onnx[precision, nms] if name == "small" else exported(name, precision, nms) for nms in ("graph", "raw")
    )
    frame = cv2.imread(str(data(image)))
    reference = gfl_edge.Detector(whole, "onnxruntime", "graph")(frame)
    found = gfl_edge.Detector(raw, backend)(frame)
    exact = precision == "fp32"  # both libraries leave out roundings to FP16 before a cast, which raw maps do not have
    assert abs(len(found) - len(reference)) <= (0 if exact else 5)
    sure = reference.scores > 0.1
    count = int(sure.sum())
    assert count
    np.testing.assert_allclose(found.scores[:count], reference.scores[sure], atol=1e-4 if exact else 0.02)
    if exact:
        np.testing.assert_allclose(found.boxes[:count], reference.boxes[sure], atol=0.05)
        np.testing.assert_array_equal(found.class_ids[:count], reference.class_ids[sure])


def test_batch_equals_single_frames(opened, frame, backend):
    detector = opened(backend)
    frames = [frame, frame[:200, :300].copy(), cv2.flip(frame, 1)]
    together = detector.detect_batch(frames)
    for one, found in zip(frames, together, strict=True):
        alone = detector(one)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.01)


def test_results_survive_the_next_call(opened, frame, backend):
    detector = opened(backend, "graph")
    first = detector(frame)
    copy = first.boxes.copy(), first.scores.copy(), first.class_ids.copy()
    detector(np.zeros_like(frame))
    for array, kept in zip((first.boxes, first.scores, first.class_ids), copy, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_stages_are_timed(opened, frame):
    detector = opened()
    ms = detector.infer(detector.prepare([frame])).ms
    assert list(ms) == ["preprocess", "network", "postprocess"]
    assert min(ms.values()) > 0


def test_one_color_gives_no_confident_detections(opened):
    detections = opened()(np.full((50, 60, 3), 128, np.uint8))
    assert len(detections.above(0.5)) == 0


@pytest.mark.parametrize(
    "bad", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.uint16), np.zeros((1, 1, 3), np.uint8)]
)
def test_a_bad_frame_does_not_spoil_the_detector(opened, frame, bad):
    detector = opened()
    before = detector(frame)
    with pytest.raises(FrameError):
        detector(bad)
    np.testing.assert_array_equal(detector(frame).boxes, before.boxes)


def test_prepared_frames_are_not_overwritten(opened, frame, backend):
    """Several wait for the network while others are made ready, by another thread."""
    detector = opened(backend)
    frames = [frame, cv2.flip(frame, 1), frame[:200, :300].copy(), np.zeros_like(frame)] * 3
    expected = [detector(one) for one in frames]
    waiting = [detector.prepare([one]) for one in frames[:3]]
    for number, one in enumerate(frames):
        found = []
        network = threading.Thread(target=lambda: found.extend(detector.infer(waiting.pop(0)).detections))  # noqa: B023
        network.start()
        waiting.append(detector.prepare([frames[(number + 3) % len(frames)]]))
        network.join()
        np.testing.assert_array_equal(found[0].boxes, expected[number].boxes, err_msg=str(one.shape))


def test_buffers_are_used_again(model, frame):
    detector = gfl_edge.Detector(model)
    seen = set()
    for _ in range(20):
        first, second = detector.prepare([frame]), detector.prepare([frame])
        assert first.inputs is not second.inputs
        seen |= {first.inputs.ctypes.data, second.inputs.ctypes.data}
        detector.infer(first)
        detector.infer(second)
    assert len(seen) == 2


def test_frames_are_inferred_once(opened, frame):
    detector = opened()
    prepared = detector.prepare([frame])
    detector.infer(prepared)
    with pytest.raises(InputError, match="prepare them again"):
        detector.infer(prepared)


def test_closing_waits_for_the_network(model, frame):
    detector = gfl_edge.Detector(model)
    entered, may_go_on, run = threading.Event(), threading.Event(), detector.backend.run

    def slow(images):
        entered.set()
        assert may_go_on.wait(20)
        return run(images)

    detector.backend.run = slow
    found = []
    network = threading.Thread(target=lambda: found.append(detector(frame)))
    closing = threading.Thread(target=detector.close)
    network.start()
    assert entered.wait(20)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    may_go_on.set()
    closing.join(20)
    network.join(20)
    assert len(found) == 1


def test_empty_batch(opened):
    with pytest.raises(InputError, match="got no frames"):
        opened().detect_batch([])


@pytest.mark.parametrize("shape", [(1, 416, 416, 3), (320, 320, 3), (0, 320, 320, 3), (1, 3, 320, 320)])
def test_wrong_input_size(opened, backend, shape):
    detector = opened(backend)
    with pytest.raises(InputError, match=rf"{NAME} takes uint8 \[N, 320, 320, 3\]"):
        detector.backend.run(np.zeros(shape, np.uint8))


def test_wrong_input_type(opened, backend):
    with pytest.raises(InputError, match="input is float32"):
        opened(backend).backend.run(np.zeros((1, 320, 320, 3), np.float32))


def test_backend_describes_itself(opened, backend):
    described = opened(backend).backend.describe()
    assert described["library"] == backend
    assert described["version"][0].isdigit()


def test_cutting_nms_off_leaves_the_candidates(model):
    proto = onnx.load(model)
    assert without_nms(proto, gfl_edge.spec.read_spec(model)).nms == "none"
    onnx.checker.check_model(proto, full_check=True)
    assert [o.name for o in proto.graph.output] == ["boxes", "scores"]


def test_onnx_without_our_metadata(data):
    with pytest.raises(ContractError, match="carries no gfl_edge metadata"):
        gfl_edge.Detector(data("weights/nanodet_m/nanodet_m_320.onnx"))


@pytest.mark.parametrize("name", ["model.pth", "model", "model.onnx.gz"])
def test_other_kinds_of_files(tmp_path, name):
    with pytest.raises(ModelFileError, match=r"a model is an \.onnx or \.engine file"):
        gfl_edge.Detector(tmp_path / name)


def test_missing_files(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        gfl_edge.Detector(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="no such engine"):
        gfl_edge.Detector(tmp_path / "m.engine")


@pytest.mark.parametrize(
    ("backend", "nms", "message"),
    [
        ("cuda", "auto", "unknown choice 'cuda': expected one of auto, openvino"),
        ("auto", "gpu", "unknown choice 'gpu'"),
        ("rtx", "auto", "is an ONNX file, backend rtx runs engines"),
        ("tensorrt", "auto", "is an ONNX file, backend tensorrt runs engines"),
    ],
)
def test_choices_that_do_not_fit(model, backend, nms, message):
    with pytest.raises(InputError, match=message):
        gfl_edge.Detector(model, backend, nms)


def test_graph_nms_of_a_model_without(small_onnx):
    with pytest.raises(InputError, match="was exported with --nms none"):
        gfl_edge.Detector(small_onnx["fp32", "none"], nms="graph")


@pytest.mark.parametrize("nms", ["auto", "graph", "host"])
def test_the_plugin_is_not_for_the_cpu(small_onnx, backend, nms):
    with pytest.raises(InputError, match=r"exported with --nms plugin.*--flavor tensorrt.*--nms graph, none or raw"):
        gfl_edge.Detector(small_onnx["fp32", "plugin"], backend, nms)


def test_graph_nms_of_raw_maps(small_onnx):
    with pytest.raises(InputError, match="was exported with --nms raw"):
        gfl_edge.Detector(small_onnx["fp32", "raw"], nms="graph")


def test_an_engine_is_not_for_the_cpu(tmp_path):
    (tmp_path / "m.engine").write_bytes(b"x")
    with pytest.raises(InputError, match="is an engine, backend openvino runs ONNX files"):
        gfl_edge.Detector(tmp_path / "m.engine", "openvino")


def test_without_any_cpu_library_the_extra_is_named(model, monkeypatch):
    monkeypatch.setattr(select.optional, "available", lambda name: False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gfl-edge\[cpu\]'"):
        gfl_edge.Detector(model)


def test_without_openvino_onnxruntime_runs(model, monkeypatch):
    available = select.optional.available
    monkeypatch.setattr(select.optional, "available", lambda name: name != "openvino" and available(name))
    assert gfl_edge.Detector(model).backend.name == "onnxruntime"


def test_a_graph_that_the_library_refuses(model, tmp_path, backend):
    proto = onnx.load(model)
    node = next(node for node in proto.graph.node if node.op_type == "Conv")
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("auto_pad", "NONSENSE"))
    onnx.save(proto, tmp_path / "odd.onnx")
    with pytest.raises(BackendError, match=f"cannot load {NAME}"):
        gfl_edge.Detector(tmp_path / "odd.onnx", backend)


def test_a_closed_detector_is_closed_for_good(model):
    with gfl_edge.Detector(model) as detector:
        pass
    detector.close()


@pytest.mark.skipif(sys.platform != "linux", reason="alternate signal stacks are looked at on Linux")
def test_openvino_leaves_the_signal_stack_alone(exported, pytestconfig):
    """Python handles signals on it: where it is gone, Ctrl-C and every child that ends kill the program."""
    code = """
import ctypes, faulthandler, sys
import numpy as np
from gfl_edge.detector import Detector

class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def current():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.flags, stack.size

faulthandler.enable()  # installs one
before = current()
assert before[0]
with Detector(sys.argv[1], "openvino") as detector:
    detector(np.zeros((64, 64, 3), np.uint8))
    detector.backend.describe()
    assert current() == before
assert current() == before
"""
    subprocess.run([sys.executable, "-c", code, exported(NAME)], cwd=pytestconfig.rootpath, check=True)
