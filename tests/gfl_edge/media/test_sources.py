"""Frame sources: every kind, every way in which one can be broken, and streams that drop."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.errors import SourceError
from gfl_edge.media import sources
from gfl_edge.media.opencv import LOG_LEVEL_SILENT, logging_functions, quiet_opencv
from gfl_edge.media.opening import open_source
from gfl_edge.media.sinks import VideoSink
from tests.support.fake_sources import Cameras, Clock, plug_in
from tests.support.media_files import frames_of, make_image, make_uneven_video, make_video


def test_video_file(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.avi", frames=6, fps=20)
    with open_source(path) as source:
        assert (source.live, source.fps, source.total) == (False, 20.0, 6)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.name for frame in frames] == ["0", "1", "2", "3", "4", "5"]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25])
    assert all(frame.image.dtype == np.uint8 and frame.image.shape == (48, 64, 3) for frame in frames)
    assert [round(frame.image.mean() / 8) for frame in frames] == list(range(6)), "no frame lost or doubled"


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """As of an old archive or a stick of other letters: OpenCV's bindings end the process by a signal there."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    path = make_video(tmp_path / "clip.avi", frames=3).rename(folder / os.fsdecode(b"\xe4.avi"))
    with open_source(path) as source, VideoSink(folder / "out.avi", source.fps) as sink:
        for frame in source:
            sink.write(frame.image, frame.time_s)
    assert len(frames_of((folder / "out.avi").rename(tmp_path / "out.avi"))) == 3
    with pytest.raises(SourceError, match="does not exist"):
        open_source(folder / os.fsdecode(b"\xff.avi"))
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(os.fsdecode(b"rtsp://127.0.0.1:1/\xe4"), reconnect_seconds=0)


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    """Of phones and screen recorders, whose rate varies."""
    times_ms = [0, 40, 80, 500, 540, 1500, 1540, 3000]
    with open_source(make_uneven_video(tmp_path / "clip.mp4", times_ms)) as source:
        frames = list(source)
    assert [frame.time_s for frame in frames] == pytest.approx([time / 1000 for time in times_ms])
    assert [round(frame.image.mean() / 8) for frame in frames] == list(range(8))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),
        ([-1, -1, -1], [0, 0.1, 0.2]),
        ([float("nan"), float("inf"), 0], [0, 0.1, 0.2]),
        ([0, 0.05, 0.3, 0.35], [0, 0.05, 0.3, 0.35]),
        ([1.4, 1.5, 1.6], [1.4, 1.5, 1.6]),
        ([0, 5, 0, 5.2], [0, 5, 5.1, 5.2]),
        ([0, 5, 5.1, 0, 0.1, 0.2], [0, 5, 5.1, 5.2, 5.3, 5.4]),
        ([3, 5, 3, 3.1, 3.3], [3, 5, 5.1, 5.2, 5.4]),
        ([0, 0.1, 0.1, 0.2, 0.4], [0, 0.1, 0.2, 0.3, 0.4]),
        ([0, 1.0, 0.99, 1.2], [0, 1.0, 1.1, 1.2]),
    ],
    ids=[
        *("no clock", "less than no clock", "no numbers", "uneven", "from later on", "a frame without", "from 0 again"),
        *("joined recordings", "a time twice", "jitter"),
    ],
)
def test_the_clock_of_a_file_only_goes_forward(said: list[float], expected: list[float]) -> None:
    clock = sources.FileClock(fps=10)
    assert [clock.time_s(time) for time in said] == pytest.approx(expected)


def test_video_that_ends_early_is_an_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_video(tmp_path / "clip.avi", frames=30, fps=5)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_source(path) as source:
        count = sum(1 for _ in source)
    assert 1 <= count < 25
    assert f"ends after {count} frames, its header declares 30" in caplog.text


def test_rate_that_is_no_rate_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "raw.h264").write_bytes(b"x")
    plug_in(monkeypatch, Cameras([3], fps=90000))
    with open_source(tmp_path / "raw.h264") as source:
        assert source.fps is None
        assert [frame.time_s for frame in source] == pytest.approx([0, 1 / 30, 2 / 30])


def test_folder_is_sorted_and_takes_only_images(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpg", "d.webp", "c.bmp", "e.TIFF", "f.jpeg", "g.tif"]
    for level, name in enumerate(names):
        make_image(tmp_path / name, 10 * level)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._a.jpg").write_bytes(b"macOS leaves such files")
    with open_source(tmp_path) as source:
        assert (source.live, source.total) == (False, 7)
        frames = list(source)
    assert [frame.name for frame in frames] == ["a.jpg", "b.PNG", "c.bmp", "d.webp", "e.TIFF", "f.jpeg", "g.tif"]
    assert [frame.time_s for frame in frames] == list(range(7))
    assert source.skipped == []


def test_corrupt_images_are_named_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "c.jpg", "e.png"):
        make_image(tmp_path / name)
    (tmp_path / "b.jpg").write_bytes(b"this is no JPEG")
    (tmp_path / "d.png").write_bytes(b"")
    (tmp_path / "f.bmp").mkdir()
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [(frame.index, frame.name) for frame in frames] == [(0, "a.jpg"), (2, "c.jpg"), (4, "e.png")]
    assert source.skipped == ["b.jpg", "d.png", "f.bmp"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert "b.jpg skipped" in warnings[0]


def test_first_image_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"this is no JPEG")
    make_image(tmp_path / "b.jpg")
    with open_source(tmp_path) as source:
        assert [frame.name for frame in source] == ["b.jpg"]
    assert source.skipped == ["a.jpg"]


def test_single_image_is_a_folder_of_one(tmp_path: Path) -> None:
    with open_source(str(make_image(tmp_path / "one.PNG", level=77))) as source:
        (frame,) = source
    assert (source.total, frame.name, frame.image.mean()) == (1, "one.PNG", 77)


def test_stream_with_a_length_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = plug_in(monkeypatch, Cameras([3, 3, 3], declared_frames=3))
    with open_source("https://example.org/clip.mp4") as source:
        assert not source.live
        assert len(list(source)) == 3
    assert len(cameras.openings) == 1


def test_camera_that_drops_comes_back(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cameras = plug_in(monkeypatch, Cameras([3, 0, 0, 2, 1]))
    seen = []
    with open_source(5, reconnect_seconds=20) as source:
        assert (source.live, source.fps, source.total) == (True, 15.0, None)
        with pytest.raises(SourceError, match=r"camera 5 dropped after 6 frames and did not come back within 20 s"):
            seen.extend(source)  # list.extend keeps what came before the error
    assert [frame.index for frame in seen] == list(range(6)), "numbers go on after a drop"
    assert source.reconnects == 2
    assert clock.sleeps[:4] == [0.5, 1.0, 2.0, 0.5], "the delay starts anew after each drop"
    assert all(opening == (5,) for opening in cameras.openings)
    assert cameras.held == 0
    attempts = [record for record in caplog.records if "attempt" in record.getMessage()]
    assert len(attempts) == len(cameras.openings) - 1, "every attempt is logged"


def test_backoff_doubles_up_to_8_seconds_and_keeps_to_the_limit(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    plug_in(monkeypatch, Cameras([1]))
    start = clock.now
    with open_source(0, reconnect_seconds=30) as source, pytest.raises(SourceError, match=r"30 s \(7 attempts\)"):
        list(source)
    assert clock.sleeps == [0.5, 1, 2, 4, 8, 8, 6.5]
    assert clock.now - start == 30


def test_no_reconnecting(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    cameras = plug_in(monkeypatch, Cameras([2, 2]))
    with open_source(0, reconnect_seconds=0) as source, pytest.raises(SourceError, match="reconnecting is off"):
        list(source)
    assert (len(cameras.openings), clock.sleeps) == (1, [])


def test_live_frames_carry_the_wall_clock(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    plug_in(monkeypatch, Cameras([5]))
    with open_source(0) as source:
        frames: Iterator[sources.Frame] = iter(source)
        first = next(frames)
        clock.now += 0.25
        assert next(frames).time_s - first.time_s == pytest.approx(0.25)
    assert first.time_s == clock.time() - 0.25


@pytest.mark.parametrize("variables", [{}, {"OPENCV_FFMPEG_LOGLEVEL": "16"}, {"OPENCV_LOG_LEVEL": "INFO"}])
def test_settings_of_the_process_are_left_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name in ("OPENCV_LOG_LEVEL", "OPENCV_FFMPEG_LOGLEVEL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    log = logging_functions()
    environment, level = dict(os.environ), log.getLogLevel()
    log.setLogLevel(2)  # errors
    try:
        with open_source(make_video(tmp_path / "clip.avi", frames=2)) as source:
            list(source)
        assert dict(os.environ) == environment
        assert log.getLogLevel() == 2
    finally:
        log.setLogLevel(level)


def test_opencv_and_ffmpeg_are_quiet(tmp_path: Path) -> None:
    """In a process of its own, as FFmpeg's level is fixed once and the tests around write videos themselves."""
    (tmp_path / "text.mp4").write_bytes(b"no video at all " * 100)
    script = """
import sys
from gfl_edge.errors import SourceError
from gfl_edge.media.opening import open_source
for source in sys.argv[1:]:
    try:
        open_source(source, reconnect_seconds=0)
    except SourceError:
        print("refused")
"""
    sources = [str(tmp_path / "text.mp4"), "73", "rtsp://127.0.0.1:1/door"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV_")}
    run = subprocess.run(
        [sys.executable, "-c", script, *sources], capture_output=True, text=True, check=True, env=environment
    )
    assert (run.stdout, run.stderr) == ("refused\n" * 3, "")


def test_threads_that_keep_opencv_quiet_leave_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends does not wake it for the others, and the last restores what the first found."""
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    log = logging_functions()
    before, wrong = log.getLogLevel(), []

    def read() -> None:
        for _ in range(300):
            with quiet_opencv():
                if log.getLogLevel() != LOG_LEVEL_SILENT or "OPENCV_FFMPEG_LOGLEVEL" not in os.environ:
                    wrong.append(threading.current_thread().name)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert log.getLogLevel() == before
    assert "OPENCV_FFMPEG_LOGLEVEL" not in os.environ


def test_waiting_for_a_lost_camera_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Cameras([2]))
    with open_source(0, reconnect_seconds=60) as source:
        frames: list[int] = []
        thread = threading.Thread(target=lambda: frames.extend(frame.index for frame in source))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        source.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert frames == [0, 1]


@pytest.mark.parametrize("declared", [-1, 5])
def test_frames_that_cannot_be_decoded_are_left_out(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, caplog: pytest.LogCaptureFixture, declared: int
) -> None:
    """Of streams and files: OpenCV gives nothing, as at the end, but there is more."""
    cameras = plug_in(monkeypatch, Cameras([5], damaged=3, declared_frames=declared))
    with open_source("http://10.0.0.1/x", reconnect_seconds=0) as source:
        frames = itertools.islice(source, 5)
        assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
        assert (source.damaged, len(cameras.openings)) == (12, 1)
    assert "frames that could not be decoded and are left out: 9" in caplog.text
    assert "left out: 12" not in caplog.text, "not each time"
