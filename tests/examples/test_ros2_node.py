"""The ROS 2 node, by stand-ins of ROS whose messages are as strict as its own."""

from __future__ import annotations

import array
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from examples import ros2_node
from examples.ros2_node import DetectorNode, frame_of, main, ros
from gfl_edge.detections import Detections
from gfl_edge.errors import FrameError, InputError, MissingDependencyError
from gfl_edge.ops.preprocess import Nv12Frame
from tests.support import fake_ros
from tests.support.fake_detector import FakeDetector
from tests.support.fake_jetson import nv12
from tests.support.fake_ros import Node, Ros

IMAGE = cv2.resize(np.random.default_rng(0).integers(60, 190, (3, 4, 3), np.uint8), (64, 48))


class RosDetector(FakeDetector):
    """Also takes NV12."""

    def __call__(self, frame: object) -> Detections:
        return super().__call__(frame.to_bgr() if isinstance(frame, Nv12Frame) else frame)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Ros:
    return Ros(monkeypatch)


def start(fake: Ros, **parameters: object) -> tuple[DetectorNode, Node]:
    fake.parameters = parameters
    node = DetectorNode(ros(), RosDetector())  # type: ignore[arg-type]
    return node, fake.nodes[-1]


def image_message(pixels: np.ndarray, encoding: str, padding: int = 0, height: int | None = None) -> fake_ros.Message:
    rows = pixels.reshape(pixels.shape[0], -1)
    data = np.pad(rows, ((0, 0), (0, padding)))
    header = fake_ros.Header(stamp=fake_ros.Time(sec=7, nanosec=500_000_000), frame_id="door")
    return fake_ros.Image(
        header=header,
        height=height or rows.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=data.shape[1],
        data=array.array("B", data.tobytes()),
    )


def test_detections_carry_the_header_and_boxes_by_their_centers(fake: Ros) -> None:
    _, node = start(fake)
    kind, callback, qos = node.subscriptions["image"]
    assert (kind, qos.depth, qos.reliability) == (fake_ros.Image, 1, "best effort")
    message = image_message(IMAGE, "bgr8")
    callback(message)
    (sent,) = node.publishers["detections"].sent
    assert sent.header is message.header
    (person,) = sent.detections  # the dog is below the score
    assert person.header is message.header
    assert (person.bbox.center.position.x, person.bbox.center.position.y) == (16.0, 24.0)
    assert (person.bbox.size_x, person.bbox.size_y, person.id) == (32.0, 48.0, "")
    assert person.results[0].hypothesis.class_id == "person"
    assert person.results[0].hypothesis.score == pytest.approx(0.9)
    assert node.publishers["annotated"].sent == [], "nobody listens"


@pytest.mark.parametrize(
    ("parameters", "classes"),
    [
        ({"score": 0.1}, ["person", "dog"]),
        ({"score": 0.1, "classes": ["dog"]}, ["dog"]),
        ({"score": 0.95}, []),
        ({}, ["person"]),
    ],
)
def test_parameters_say_what_counts(fake: Ros, parameters: dict[str, object], classes: list[str]) -> None:
    _, node = start(fake, **parameters)
    node.subscriptions["image"][1](image_message(IMAGE, "bgr8"))
    (sent,) = node.publishers["detections"].sent
    assert [one.results[0].hypothesis.class_id for one in sent.detections] == classes


def test_whoever_listens_gets_annotated_images(fake: Ros) -> None:
    _, node = start(fake)
    node.publishers["annotated"].listeners = 1
    message = image_message(IMAGE, "bgr8")
    node.subscriptions["image"][1](message)
    (sent,) = node.publishers["annotated"].sent
    assert (sent.encoding, sent.height, sent.width, sent.step) == ("bgr8", 48, 64, 192)
    image = np.frombuffer(sent.data, np.uint8).reshape(48, 64, 3)
    assert np.abs(image[24:, 40:].astype(int) - IMAGE[24:, 40:]).max() == 0
    assert np.abs(image.astype(int) - IMAGE).mean() > 1


def test_compressed_images_in_and_out(fake: Ros) -> None:
    _, node = start(fake, image_transport="compressed")
    kind, callback, _ = node.subscriptions["image/compressed"]
    assert kind is fake_ros.CompressedImage
    node.publishers["annotated/compressed"].listeners = 1
    content = cv2.imencode(".png", IMAGE)[1].tobytes()
    callback(fake_ros.CompressedImage(format="png", data=array.array("B", content)))
    assert len(node.publishers["detections"].sent[0].detections) == 1
    (sent,) = node.publishers["annotated/compressed"].sent
    assert sent.format == "jpeg"
    assert cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)


@pytest.mark.parametrize("content", [b"", b"no image", cv2.imencode(".jpg", IMAGE)[1].tobytes()[:100]])
def test_what_is_no_image_is_left_out(fake: Ros, content: bytes) -> None:
    _, node = start(fake, image_transport="compressed")
    node.subscriptions["image/compressed"][1](fake_ros.CompressedImage(format="jpeg", data=array.array("B", content)))
    assert node.publishers["detections"].sent == []
    assert node.logger.lines[-1].startswith("image left out: ")


def test_identities_of_objects_are_their_ids(fake: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tracker:
        def update(self, found: Detections, time_s: float) -> Detections:
            assert time_s == 7.5
            return replace(found, track_ids=np.array([42], np.int64))

    monkeypatch.setattr(ros2_node, "ObjectTracker", Tracker)
    _, node = start(fake, track=True)
    node.subscriptions["image"][1](image_message(IMAGE, "bgr8"))
    assert [one.id for one in node.publishers["detections"].sent[0].detections] == ["42"]


@pytest.mark.parametrize(
    ("encoding", "convert"),
    [
        ("bgr8", lambda image: image),
        ("rgb8", lambda image: image[..., ::-1]),
        ("bgra8", lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)),
        ("rgba8", lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_encodings_of_color(encoding: str, convert: object, padding: int) -> None:
    found = frame_of(image_message(np.ascontiguousarray(convert(IMAGE)), encoding, padding))  # type: ignore[operator]
    np.testing.assert_array_equal(found, IMAGE)


def test_gray_and_yuv() -> None:
    gray = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(frame_of(image_message(gray, "mono8", 3)), cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    y, u, v = cv2.split(cv2.cvtColor(IMAGE, cv2.COLOR_BGR2YUV))
    limited = (16 + y * (219 / 255)).astype(np.uint8)
    packed = np.empty((48, 64, 2), np.uint8)
    packed[..., 1], packed[:, ::2, 0], packed[:, 1::2, 0] = limited, u[:, ::2], v[:, ::2]
    assert np.abs(frame_of(image_message(packed, "uyvy")).astype(int) - IMAGE).mean() < 8
    assert np.abs(frame_of(image_message(packed[..., ::-1], "yuv422_yuy2")).astype(int) - IMAGE).mean() < 8


def test_nv12_stays_nv12_until_the_gpu() -> None:
    found = frame_of(image_message(nv12(IMAGE), "nv12", padding=64, height=48))
    assert isinstance(found, Nv12Frame)
    assert found.size_hw == (48, 64)
    assert np.abs(found.to_bgr().astype(int) - IMAGE).mean() < 4


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (image_message(IMAGE, "mono16"), "its encoding is 'mono16', expected nv12 or one of bgr8"),
        (image_message(IMAGE, "bgra8"), "it has 9216 bytes, expected 48 rows of 192 for 64x48 pixels of bgra8"),
        (image_message(IMAGE, "bgr8", height=49), "expected 49 rows of 192"),
        (image_message(np.zeros((4, 5, 2), np.uint8), "uyvy"), "it is 5 pixels wide"),
        (fake_ros.Image(encoding="bgr8"), "it has 0 bytes"),
    ],
)
def test_images_that_are_not_what_they_say(message: fake_ros.Message, error: str) -> None:
    with pytest.raises(FrameError, match=error):
        frame_of(message)


def test_an_image_that_cannot_be_used_does_not_end_the_node(fake: Ros) -> None:
    _, node = start(fake)
    callback = node.subscriptions["image"][1]
    callback(image_message(IMAGE, "mono16"))
    callback(image_message(IMAGE, "bgr8"))
    assert len(node.publishers["detections"].sent) == 1
    assert "image left out: its encoding is 'mono16'" in node.logger.lines[-1]


def test_parameters_that_cannot_be_used(fake: Ros) -> None:
    for parameters, message in (
        ({"image_transport": "theora"}, "image_transport is 'theora': expected one of raw, compressed"),
        ({"classes": ["cat"]}, "cat"),
        ({"score": 1.5}, "score"),
    ):
        with pytest.raises(InputError, match=message):
            start(fake, **parameters)
        assert fake.nodes[-1].destroyed == 1


class TestMain:
    def test_it_runs_until_ctrl_c(self, fake: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
        detector = RosDetector()
        monkeypatch.setattr(ros2_node, "Detector", lambda model: detector)

        def interrupted(node: Node) -> None:
            assert fake.up
            raise KeyboardInterrupt

        fake.spin = interrupted
        assert main([]) == 0
        assert (detector.closed, fake.nodes[0].destroyed, fake.up) == (1, 1, False)

    def test_a_model_that_is_not_there(self, fake: Ros, capsys: pytest.CaptureFixture[str]) -> None:
        fake.parameters = {"model": "missing.onnx"}
        assert main([]) == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert fake.nodes[0].destroyed == 1

    def test_without_ros(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setitem(sys.modules, "rclpy", None)
        with pytest.raises(MissingDependencyError, match=r"source /opt/ros/humble/setup\.bash"):
            ros()
        assert main([]) == 1
        assert "ROS 2 is not there" in capsys.readouterr().err
