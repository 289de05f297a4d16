"""What the user calls a source: every kind of text and value, what is refused, and sources that come late."""

from __future__ import annotations

import os
import socket
import threading
import traceback
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.errors import InputError, SourceError
from gfl_edge.media import opening
from gfl_edge.media.opening import Source, open_source
from tests.support.fake_sources import Cameras, Clock, plug_in
from tests.support.media_files import make_image, make_video


def test_missing_path() -> None:
    with pytest.raises(SourceError, match=r"nowhere/clip\.mp4 does not exist: expected a camera number"):
        open_source("nowhere/clip.mp4")


def test_empty_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        open_source(tmp_path / "empty.mp4")


def test_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"no video at all " * 100)
    with pytest.raises(SourceError, match=r"text\.mp4 \(1600 bytes\) is no video that OpenCV can decode"):
        open_source(tmp_path / "text.mp4")


def test_video_without_frames(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no video that OpenCV can decode"):
        open_source(make_video(tmp_path / "hollow.avi", frames=0))


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"holds no images: expected files ending in \.jpg, "):
        open_source(tmp_path)


def test_a_folder_of_folders_names_one_that_has_images(tmp_path: Path) -> None:
    for name in ("labels", "train", "val"):
        (tmp_path / name).mkdir()
    make_image(tmp_path / "val" / "a.JPG")
    with pytest.raises(SourceError, match=rf"\. Did you mean {tmp_path / 'val'}\?$"):
        open_source(tmp_path)


def test_folder_of_corrupt_images(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"none of its 2 images can be decoded: .*a\.jpg is no image that OpenCV"):
        open_source(tmp_path)


@pytest.mark.parametrize("number", [73, "73", "/dev/video73"])
def test_camera_that_is_not_there(number: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("video0", "video2", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(opening, "DEVICES", tmp_path)
    with pytest.raises(SourceError, match=r"camera 73 cannot be opened.* has .*video0, .*video2\. Check the number"):
        open_source(number, reconnect_seconds=0)


def test_no_camera_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Cameras([]))
    monkeypatch.setattr(opening, "DEVICES", tmp_path)
    with pytest.raises(SourceError, match=r"camera 0 cannot be opened.* has no .*/video\*"):
        open_source(0, reconnect_seconds=0)


def test_pipeline_without_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   NO\n")
    with pytest.raises(SourceError, match=r"is a GStreamer pipeline, and OpenCV [45]\S* was built without GStreamer"):
        open_source("nvarguscamerasrc ! video/x-raw(memory:NVMM) ! nvvidconv ! appsink " + "! queue " * 100)


def test_pipeline_goes_to_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   YES (1.20.3)\n")
    cameras = plug_in(monkeypatch, Cameras([2]))
    with open_source("videotestsrc ! appsink") as source:
        assert source.live
    assert cameras.openings == [("videotestsrc ! appsink", cv2.CAP_GSTREAMER)]
    assert cameras.held == 0


def test_pipeline_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   YES (1.20.3)\n")
    plug_in(monkeypatch, Cameras([]))
    with pytest.raises(SourceError, match=r"videotestsrc ! nosink cannot be opened .* must end in.*appsink"):
        open_source("videotestsrc ! nosink", reconnect_seconds=0)


def test_existing_file_with_exclamation_mark_is_a_file(tmp_path: Path) -> None:
    with open_source(str(make_video(tmp_path / "holiday!.avi", frames=2))) as source:
        assert len(list(source)) == 2


def test_stream_that_cannot_be_opened() -> None:
    with pytest.raises(SourceError, match=r"rtsp://user:\*\*\*@127\.0\.0\.1:1/door cannot be opened") as raised:
        open_source("rtsp://user:s3cr:t@127.0.0.1:1/door", reconnect_seconds=0)
    assert "s3cr" not in str(raised.value), "passwords do not get into messages"


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_reconnect_seconds_is_checked(seconds: float) -> None:
    with pytest.raises(InputError, match="reconnect_seconds"):
        open_source(0, reconnect_seconds=seconds)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (-1, "camera number -1: expected 0 to 99"),
        ("-1", "camera number -1: expected 0 to 99"),
        (" -7 ", "camera number -7: expected 0 to 99"),
        (99999999999, "camera number 99999999999: expected 0 to 99"),
        ("9" * 5000, "camera number 9999999999999999999999999999999999999999: expected 0 to 99"),
        (100, "camera number 100: expected 0 to 99, as N in /dev/videoN"),
        (np.int64(-3), "camera number -3: expected 0 to 99"),
        (True, "source is True: expected a camera number"),
        (None, "source is None: expected a camera number"),
        (float("nan"), "source is nan: expected a camera number"),
        (1.5, "source is 1.5: expected a camera number"),
        (b"0", "source is a bytes: expected a camera number"),
        ([0], "source is a list: expected a camera number"),
        ("", "source is '', which is empty"),
        (" \n", "source is ' \\n', which is empty"),
        ("clip\0.mp4", r"source clip\x00.mp4 has a zero byte in it"),
        ("rtsp://u:s3cret@h/\0", r"source rtsp://u:***@h/\x00 has a zero byte in it"),
        ("1.5", "1.5 does not exist: expected a camera number"),
        ("0x1", "0x1 does not exist: expected a camera number"),
        ("+1", "+1 does not exist: expected a camera number"),
        ("\N{FULLWIDTH DIGIT ONE}", "\N{FULLWIDTH DIGIT ONE} does not exist"),
        ("/dev/video-1", "/dev/video-1 does not exist"),
        ("a" * 5000, "cannot be opened (File name too long)"),
        ("no/\ud800.mp4", r"no/\xd800.mp4 cannot be opened ("),
        ("/dev/null", "/dev/null is a device, pipe or socket and no camera"),
        ("/dev/zero", "/dev/zero is a device, pipe or socket and no camera"),
        (
            "rtps://u:s3cret@127.0.0.1:1/s",
            "rtps://u:***@127.0.0.1:1/s cannot be opened or gives no frame. Did you mean rts",
        ),
    ],
)
def test_what_is_no_source_is_refused_at_once(source: Source, said: str) -> None:
    with pytest.raises(InputError) as raised:
        open_source(source)
    assert said in str(raised.value)
    assert raised.value.__cause__ is None, "no other message tells more than ours"


def test_digits_are_a_camera_and_a_path_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("7").write_bytes(b"no video at all " * 100)
    with pytest.raises(SourceError, match=r"camera 7 cannot be opened.*For the file of that name say \./7"):
        open_source("7", reconnect_seconds=0)
    for source in (Path("7"), "./7"):
        with pytest.raises(SourceError, match=r"^(\./)?7 \(\d+ bytes\) is no video") as raised:
            open_source(source)
        assert "camera" not in str(raised.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.mp4"))
    for name, said in {
        "pipe.mp4": "is a device, pipe or socket",
        "s.mp4": "is a device, pipe or socket",
        "zero.mp4": "is a device, pipe or socket",
        "circle.mp4": "Too many levels of symbolic links",
    }.items():
        with pytest.raises(SourceError, match=said):
            open_source(tmp_path / name)


def test_a_camera_by_a_link_to_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As udev makes them in /dev/v4l/by-id."""
    (tmp_path / "usb-front").symlink_to("/dev/video3")
    (tmp_path / "usb-back").symlink_to("/dev/video123")
    cameras = plug_in(monkeypatch, Cameras([1, 1]))
    for link, name in (("usb-front", "camera 3"), ("usb-back", "/dev/video123")):
        with open_source(str(tmp_path / link)) as source:
            assert (source.live, source.name) == (True, name)
    assert cameras.openings == [(3,), ("/dev/video123", cv2.CAP_V4L2)]


def test_a_source_that_is_down_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cameras = plug_in(monkeypatch, Cameras([0, 0, 0, 2]))
    with open_source("rtsp://u:s3cret@10.0.0.1/door", reconnect_seconds=20) as source:
        assert next(iter(source)).index == 0
        assert source.reconnects == 0, "it was not there before"
    assert clock.sleeps == [0.5, 1, 2]
    assert len(cameras.openings) == 4
    assert "rtsp://u:***@10.0.0.1/door cannot be opened or gives no frame; trying again for 20 s" in caplog.text
    assert "rtsp://u:***@10.0.0.1/door is there" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("source", [0, "rtsp://10.0.0.1/door", "http://10.0.0.1/x"])
def test_a_source_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch, clock: Clock, source: int | str) -> None:
    plug_in(monkeypatch, Cameras([]))
    with pytest.raises(SourceError, match=r"cannot be opened or gives no frame within 30 s \(7 attempts more\)"):
        open_source(source)
    assert clock.sleeps == [0.5, 1, 2, 4, 8, 8, 6.5]


def test_waiting_for_a_source_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Cameras([]))
    stopped = threading.Event()
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(0, reconnect_seconds=float("inf"), stopped=stopped)


def test_frames_larger_than_any_image_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFL_EDGE_MAX_PIXELS", "3000")
    with pytest.raises(SourceError, match=r"clip\.avi has frames of 64x48 pixels: too large, at most 3000 pixels"):
        open_source(make_video(tmp_path / "clip.avi", frames=1))


def test_an_exception_of_opencv_is_a_source_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret"

    def fail(*opening: object) -> None:
        raise cv2.error(f"OpenCV(4.14.0) cannot open {opening[0]}")

    monkeypatch.setattr(cv2, "VideoCapture", fail)
    with pytest.raises(SourceError, match="cannot be opened") as raised:
        open_source(f"rtsp://u:{secret}@h", reconnect_seconds=0)
    assert secret not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, [0]),
        ("a", ["a"]),
        (b"01", [b"01"]),
        (None, [None]),
        (1.5, [1.5]),
        ([0, "a"], [0, "a"]),
        (np.array([2, 1]), [2, 1]),
        (np.array(3), [np.array(3)]),
        ((n for n in (1, 2)), [1, 2]),
        ({"a": 1}, [{"a": 1}]),
    ],
)
def test_one_source_or_several(given: object, expected: list[object]) -> None:
    assert opening.sources_of(given) == expected  # type: ignore[arg-type]
