"""Which decoder a Jetson takes, and that its frames are the same; the decoder is a stand-in.

tests/gfl_edge/media/test_gstreamer.py has real pipelines, with software in place of the hardware.
"""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.environment import is_jetson
from gfl_edge.errors import InputError, SourceError
from gfl_edge.media import hardware
from gfl_edge.media.gstreamer import gives_nv12
from gfl_edge.media.opening import open_source
from gfl_edge.media.sources import Frame
from gfl_edge.ops.preprocess import Nv12Frame
from tests.support.fake_jetson import Jetson
from tests.support.media_files import frames_of, make_video


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Jetson:
    caplog.set_level(logging.INFO, logger="gfl_edge")
    return Jetson(monkeypatch)


@pytest.fixture
def video(tmp_path: Path, jetson: Jetson) -> Path:
    path = make_video(tmp_path / "a.avi", frames=30, fps=10)
    jetson.video = str(path)
    return path


def all_of(source: object) -> list[Frame]:
    with open_source(source) as opened:  # type: ignore[arg-type]
        return list(opened)


def assert_same(frames: list[Frame], path: Path) -> None:
    expected = frames_of(path)
    assert len(frames) == len(expected)
    for frame, image in zip(frames, expected, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 3


def test_files_are_decoded_in_hardware_and_come_as_nv12(
    jetson: Jetson, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = all_of(str(video))
    assert jetson.pipelines == [
        f'filesrc location="{video}" ! parsebin ! h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=NV12 ! '
        "appsink sync=false max-buffers=2"
    ]
    assert {type(frame.pixels) for frame in frames} == {Nv12Frame}
    assert_same(frames, video)
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(30)])
    assert caplog.messages == [f"{video} is decoded in hardware (H.264)"]


@pytest.mark.parametrize(
    ("fourcc", "elements"),
    [
        ("hvc1", "h265parse ! nvv4l2decoder"),
        ("HEVC", "h265parse ! nvv4l2decoder"),
        ("VP90", "parsebin ! nvv4l2decoder"),
        ("av01", "av1parse ! nvv4l2decoder"),
        ("mp4v", "mpeg4videoparse ! nvv4l2decoder"),
        ("mpg2", "mpegvideoparse ! nvv4l2decoder"),
    ],
)
def test_each_codec_has_its_parser(jetson: Jetson, video: Path, fourcc: str, elements: str) -> None:
    jetson.fourcc = fourcc
    assert {type(frame.pixels) for frame in all_of(video)} == {Nv12Frame}
    assert f" {elements} ! nvvidconv" in jetson.pipelines[0]


def test_a_file_that_does_not_name_its_codec_is_tried(
    jetson: Jetson, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jetson.fourcc, jetson.works = "\0\0\0\0", "h265parse"
    assert_same(all_of(video), video)
    assert [name in pipeline for name, pipeline in zip(("h264", "h265"), jetson.pipelines, strict=True)] == [True, True]
    assert "is decoded in hardware (H.265)" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"works": "nothing"}, "the hardware decoder does not take it (avc1)"),
        ({"works": "nothing", "fourcc": ""}, "the hardware decoder does not take it (unknown codec)"),
        ({"change": lambda image: image[::-1, ::-1].copy()}, "its first frame differs by"),
        (
            {"change": lambda image: np.clip(image.astype(int) + 30, 0, 255).astype(np.uint8)},
            "its first frame differs by",
        ),
        ({"change": lambda image: image[:-2]}, "gives frames of 64x46 pixels instead of 64x48"),
        ({"frames": 0}, "the hardware decoder does not take it"),
    ],
)
def test_what_the_decoder_does_otherwise_is_decoded_in_software(
    jetson: Jetson, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: dict[str, object], reason: str
) -> None:
    jetson.video = str(tmp_path / "a.avi")
    writer = cv2.VideoWriter(jetson.video, cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 48))
    for _ in range(5):
        writer.write(np.linspace(0, 200, 64 * 48 * 3).astype(np.uint8).reshape(48, 64, 3))
    writer.release()
    for name, value in spoil.items():
        setattr(jetson, name, value)
    frames = all_of(jetson.video)
    assert [type(frame.pixels) for frame in frames] == [np.ndarray] * 5
    (message,) = caplog.messages
    assert message.startswith(f"{jetson.video} is decoded in software: ")
    assert reason in message


def test_a_decoder_that_stops_on_the_way_loses_no_frame(
    jetson: Jetson, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jetson.frames = 10
    frames = all_of(video)
    assert [type(frame.pixels) for frame in frames] == [Nv12Frame] * 10 + [np.ndarray] * 20
    assert_same(frames, video)
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(30)])
    assert "the hardware decoder stopped after 10 frames; going on in software" in caplog.text


def test_a_decoder_that_hangs_is_left(
    jetson: Jetson, video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "OPEN_SECONDS", 0.05)
    jetson.hangs = threading.Event()
    frames = all_of(video)
    jetson.hangs.set()
    assert_same(frames, video)
    assert "is decoded in software" in caplog.text


def test_names_of_files_cannot_add_to_the_pipeline(jetson: Jetson, tmp_path: Path) -> None:
    path = make_video(tmp_path / "plain.avi", frames=2).rename(tmp_path / 'a" ! filesink location="b\\.avi')
    jetson.video = None
    all_of(path)
    name = str(path).replace("\\", "\\\\").replace('"', '\\"')
    assert jetson.pipelines[0].startswith(f'filesrc location="{name}" ! parsebin')


def test_elsewhere_nothing_is_tried_or_said(
    jetson: Jetson, video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "is_jetson", lambda: False)
    assert {type(frame.pixels) for frame in all_of(video)} == {np.ndarray}
    assert (jetson.pipelines, caplog.messages) == ([], [])


def test_software_can_be_chosen_and_is_said(
    jetson: Jetson, video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(hardware.VARIABLE, "software")
    all_of(video)
    assert (jetson.pipelines, caplog.messages) == (
        [],
        [f"{video} is decoded in software: GFL_EDGE_DECODER is software"],
    )
    monkeypatch.setenv(hardware.VARIABLE, "fast")
    with pytest.raises(InputError, match="GFL_EDGE_DECODER is 'fast': expected auto or software"):
        all_of(video)


def test_without_gstreamer_it_is_said(
    jetson: Jetson, video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "is_jetson", lambda: True)
    all_of(video)
    assert "is decoded in software: OpenCV" in caplog.text
    assert "was built without GStreamer" in caplog.text


class TestStreams:
    URL = "rtsp://me:pass%40word@127.0.0.1:8554/live"

    @pytest.fixture(autouse=True)
    def _there(self, jetson: Jetson, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hardware, "reachable", lambda url: True)

    def test_rtsp_is_decoded_in_hardware_by_its_codec(self, jetson: Jetson, caplog: pytest.LogCaptureFixture) -> None:
        jetson.works = "rtph265depay"
        with open_source(self.URL) as source:
            frame = next(iter(source))
        assert isinstance(frame.pixels, Nv12Frame)
        assert jetson.pipelines[1] == (
            'rtspsrc location="rtsp://127.0.0.1:8554/live" user-id="me" user-pw="pass@word" protocols=tcp latency=100 '
            "drop-on-latency=true ! rtph265depay ! h265parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=NV12 ! "
            "appsink sync=false max-buffers=1 drop=true"
        )
        assert jetson.plain == []
        assert caplog.messages == ["rtsp://me:***@127.0.0.1:8554/live is decoded in hardware (H.265)"]

    def test_what_the_decoder_does_not_take_is_decoded_in_software(
        self, jetson: Jetson, caplog: pytest.LogCaptureFixture
    ) -> None:
        jetson.works = "nothing"
        with open_source(self.URL) as source:
            assert isinstance(next(iter(source)).pixels, np.ndarray)
        assert len(jetson.pipelines) == 2
        assert "is decoded in software: the hardware decoder took no stream of it" in caplog.text
        assert "word" not in caplog.text

    def test_the_way_that_worked_is_first_when_it_drops(self, jetson: Jetson) -> None:
        jetson.works, jetson.frames = "rtph265depay", 3
        with open_source(self.URL) as source:
            frames = [frame for _, frame in zip(range(5), source, strict=False)]
        assert len(frames) == 5
        assert ["rtph265depay" in pipeline for pipeline in jetson.pipelines] == [False, True, True]
        assert source.reconnects == 1

    def test_a_camera_that_is_not_there_is_tried_once(self, jetson: Jetson, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hardware, "reachable", lambda url: False)
        jetson.video = None
        with pytest.raises(SourceError, match="cannot be opened"):
            open_source(self.URL, reconnect_seconds=0)
        assert (jetson.pipelines, len(jetson.plain)) == ([], 1)


def test_whether_a_camera_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hardware.reachable(f"rtsp://me:p@ss@127.0.0.1:{port}/live")
    assert not hardware.reachable(f"rtsp://127.0.0.1:{port}/live")
    assert not hardware.reachable("rtsp://127.0.0.1:999999/live")
    assert not hardware.reachable("rtsp://[/live")


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("nvarguscamerasrc ! nvvidconv ! video/x-raw,format=NV12 ! appsink drop=1", True),
        ("v4l2src ! video/x-raw, format=(string)NV12, width=640 ! appsink", True),
        (
            "nvarguscamerasrc ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! appsink",
            False,
        ),
        ("v4l2src ! video/x-raw,format=NV12 ! videoconvert ! appsink", False),
        ("v4l2src ! video/x-raw,format=NV12_10LE ! appsink", False),
    ],
)
def test_pipelines_that_give_nv12(pipeline: str, expected: bool) -> None:
    assert gives_nv12(pipeline) is expected


def test_which_machine_is_a_jetson(tmp_path: Path) -> None:
    assert not is_jetson(tmp_path)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert is_jetson(tmp_path)
