"""Every way in which a run ends early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.camera import run as camera_run
from gfl_edge.camera import run_camera
from gfl_edge.camera.stop_signals import StopSignals
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.errors import InputError
from gfl_edge.media.sinks import VideoSink
from gfl_edge.media.sources import Frame
from tests.support.fake_detector import FakeDetector
from tests.support.fake_sources import FakeSource, Sources
from tests.support.media_files import assert_nothing_left_over, frames_of, lines_of, make_video


def send(number: signal.Signals, at_frame: int) -> Callable[[Frame, Detections], None]:
    def on_frame(frame: Frame, _: Detections) -> None:
        if frame.index == at_frame:
            os.kill(os.getpid(), number)

    return on_frame


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_signal_keeps_what_was_recorded(
    tmp_path: Path, detector: FakeDetector, number: signal.Signals, suffix: str
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    output, lines = tmp_path / f"out{suffix}", tmp_path / "out.jsonl"
    summary = run_camera(
        detector,
        make_video(tmp_path / "in.avi", frames=20),
        output=output,
        json_lines=lines,
        on_frame=send(number, at_frame=6),
    )
    assert (summary.frames, summary.stopped_by, summary.output) == (7, "interrupt", output)
    assert len(frames_of(output)) == 7
    assert [record["frame"] for record in lines_of(lines)] == list(range(7))
    assert_nothing_left_over(tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_threads_that_cannot_start_end_a_run_as_python_says_it(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source = make_video(tmp_path / "in.avi", frames=9)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_camera(detector, source, output=tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.avi"]


@pytest.fixture
def hangup() -> Iterator[Callable[[object], None]]:
    """Say what SIGHUP does, as a terminal or nohup would; afterwards it does what it did."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler) and None  # type: ignore[arg-type]
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("handler", "frames"), [(signal.SIG_DFL, 7), (signal.SIG_IGN, 20)])
def test_a_terminal_that_is_closed_keeps_what_was_recorded(
    tmp_path: Path, detector: FakeDetector, hangup: Callable[[object], None], handler: object, frames: int
) -> None:
    hangup(handler)
    output, source = tmp_path / "out.mp4", make_video(tmp_path / "in.avi", frames=20)
    summary = run_camera(detector, source, output=output, on_frame=send(signal.SIGHUP, at_frame=6))
    assert (summary.frames, summary.stopped_by) == (frames, "interrupt" if frames < 20 else "end of source")
    assert len(frames_of(output)) == frames
    assert signal.getsignal(signal.SIGHUP) is handler


def test_signal_while_writing_waits_for_the_frame(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = VideoSink.write

    def interrupted(self: VideoSink, image: np.ndarray, time_s: float) -> None:
        if self.frames == 3:
            os.kill(os.getpid(), signal.SIGINT)
        write(self, image, time_s)

    monkeypatch.setattr(VideoSink, "write", interrupted)
    output, lines = tmp_path / "out.avi", tmp_path / "out.jsonl"
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=9), output=output, json_lines=lines)
    assert (summary.frames, summary.stopped_by) == (4, "interrupt")
    assert (len(frames_of(output)), len(lines_of(lines))) == (4, 4), "the frame is in both"


@pytest.mark.parametrize(("at_frame", "stopped_by", "frames"), [(4, "interrupt", 5), (99, "end of source", 9)])
def test_signal_does_not_disturb_the_closing(
    tmp_path: Path,
    detector: FakeDetector,
    monkeypatch: pytest.MonkeyPatch,
    at_frame: int,
    stopped_by: str,
    frames: int,
) -> None:
    close = VideoSink.close

    def impatient(self: VideoSink) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        close(self)

    monkeypatch.setattr(VideoSink, "close", impatient)
    output = tmp_path / "out.mp4"
    source = make_video(tmp_path / "in.avi", frames=9)
    summary = run_camera(detector, source, output=output, on_frame=send(signal.SIGINT, at_frame))
    assert summary.stopped_by == stopped_by
    assert len(frames_of(output)) == frames


def test_keyboard_interrupt_in_the_detector(tmp_path: Path, detector: FakeDetector) -> None:
    class Interrupted(FakeDetector):
        def __call__(self, frame: np.ndarray) -> Detections:
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().__call__(frame)

    output = tmp_path / "out.avi"
    summary = run_camera(Interrupted(), make_video(tmp_path / "in.avi", frames=9), output=output)
    assert (summary.frames, summary.stopped_by) == (3, "interrupt")
    assert len(frames_of(output)) == 3


def test_interrupt_before_the_first_frame_leaves_no_video(tmp_path: Path) -> None:
    class Interrupted(FakeDetector):
        def __call__(self, frame: np.ndarray) -> Detections:
            raise KeyboardInterrupt

    summary = run_camera(Interrupted(), make_video(tmp_path / "in.avi", frames=9), output=tmp_path / "out.avi")
    assert (summary.frames, summary.output, summary.fps) == (0, None, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["in.avi"]


def test_error_keeps_what_was_recorded(tmp_path: Path, detector: FakeDetector) -> None:
    def on_frame(frame: Frame, _: Detections) -> None:
        if frame.index == 4:
            raise RuntimeError("the application's own")

    output = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="own"):
        run_camera(detector, make_video(tmp_path / "in.avi", frames=9), output=output, on_frame=on_frame)
    assert len(frames_of(output)) == 5


def test_sigterm_ends_a_process_cleanly(tmp_path: Path) -> None:
    """From outside, while the network hangs."""
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.support.fake_detector import FakeDetector
from gfl_edge.camera import run_camera

class Slow(FakeDetector):
    def __call__(self, frame):
        if self.calls == 3:
            time.sleep(60)
        return super().__call__(frame)

def on_frame(frame, found):
    if frame.index == 2:
        print("ready", file=sys.stderr, flush=True)

print(run_camera(Slow(), sys.argv[1], output=sys.argv[2], show=False, on_frame=on_frame).to_dict())
"""
    source, output = make_video(tmp_path / "in.avi", frames=9), tmp_path / "out.mp4"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "'stopped_by': 'interrupt'" in out
    assert len(frames_of(output)) == 3


def test_ctrl_c_handler_of_the_application_is_left_alone() -> None:
    def own(number: int, frame: object) -> None:
        pass

    previous = signal.signal(signal.SIGINT, own)
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGINT) is own
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", ["read", "preprocess", "network", "draw", "on_frame"])
def test_ctrl_c_in_a_stage_that_hangs(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    released, output, lines = threading.Event(), tmp_path / "out.avi", tmp_path / "out.jsonl"

    class Hanging(FakeDetector):
        def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
            if where == "preprocess" and frames[0][0, 0, 0] == 5:
                released.wait()
            return frames

        def infer(self, prepared: list[np.ndarray]) -> Inference:
            if where == "network" and prepared[0][0, 0, 0] == 5:
                released.wait()
            return super().infer(prepared)

    def draw(image: np.ndarray, found: Detections, **_: object) -> np.ndarray:
        if where == "draw" and image[0, 0, 0] == 5:
            released.wait()
        return image

    def on_frame(frame: Frame, _: Detections) -> None:
        if frame.index == 4:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            if where == "on_frame":
                time.sleep(60)

    monkeypatch.setattr(camera_run, "draw_detections", draw)
    source = FakeSource(count=5 if where == "read" else 100, hangs=released)
    start = time.monotonic()
    try:
        summary = run_camera(
            Hanging(),
            sources.add(source)[0],
            output=output,
            json_lines=lines,
            on_frame=on_frame,
        )
    finally:
        released.set()
    assert time.monotonic() - start < 10, "0.1 s until the signal, and 0.1 s for each thread that hangs"
    assert (summary.frames, summary.stopped_by) == (5, "interrupt")
    assert (len(frames_of(output)), len(lines_of(lines))) == (5, 5)
    assert_nothing_left_over(tmp_path)


@pytest.mark.usefixtures("impatient")
def test_ctrl_c_while_a_source_opens(detector: FakeDetector, sources: Sources) -> None:
    names, opens = sources.add(FakeSource()), threading.Event()
    sources.opening["fake"] = opens
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_camera(detector, names)
    finally:
        opens.set()
    assert time.monotonic() - start < 2.5


def test_a_source_is_closed_by_the_thread_that_reads_it(detector: FakeDetector, sources: Sources) -> None:
    """Releasing a capture in the middle of a read in another thread would crash."""
    source = FakeSource(count=None, live=True, period_s=0.001)
    run_camera(detector, sources.add(source)[0], max_frames=3)
    assert source.closed == ["gfl_edge read fake"]


@pytest.mark.parametrize("stage", ["preprocess", "network", "draw", "write"])
def test_an_error_in_a_stage(tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    output, lines = tmp_path / "out.avi", tmp_path / "out.jsonl"

    def fail(here: str, image: np.ndarray) -> None:
        if here == stage and image[0, 0, 0] == 4:
            raise InputError(f"{stage} failed")

    class Failing(FakeDetector):
        def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
            fail("preprocess", frames[0])
            return frames

        def infer(self, prepared: list[np.ndarray]) -> Inference:
            fail("network", prepared[0])
            return super().infer(prepared)

    def draw(image: np.ndarray, found: Detections, **_: object) -> np.ndarray:
        fail("draw", image)
        return image

    write = VideoSink.write

    def failing_write(self: VideoSink, image: np.ndarray, time_s: float) -> None:
        fail("write", image)
        write(self, image, time_s)

    monkeypatch.setattr(camera_run, "draw_detections", draw)
    monkeypatch.setattr(VideoSink, "write", failing_write)
    with pytest.raises(InputError, match=f"{stage} failed"):
        run_camera(Failing(), sources.add(FakeSource(count=100))[0], output=output, json_lines=lines)
    assert len(frames_of(output)) == 4, "all that came before are there"
