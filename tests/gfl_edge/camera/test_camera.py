"""The camera loop with a detector that finds the same things in every frame."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfl_edge.camera import run_camera, status
from gfl_edge.camera.status import CAMERA_STAGES, StageTimes, StatusLine
from gfl_edge.camera.stop_signals import StopSignals
from gfl_edge.camera.summary import CameraSummary
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.errors import FrameError, InputError, SourceError
from gfl_edge.media import sinks, sources
from gfl_edge.media.sinks import MEASURED_FRAMES, VideoSink, Window, why_no_window
from gfl_edge.media.sources import Frame
from gfl_edge.ops.preprocess import check_frame
from tests.support.fake_sources import Camera, Cameras, Clock
from tests.support.media_files import assert_nothing_left_over, frames_of, make_image, make_video, rate_of

pytestmark = pytest.mark.usefixtures("ctrl_c", "no_screen")


class FakeDetector:
    """Finds a person (0.9) in the left half of every frame and a dog (0.2) in the right half."""

    class Backend:
        name = "fake"
        max_batch: int | None = None

    def __init__(self) -> None:
        self.backend = self.Backend()
        self.calls = self.closed = 0

    def __call__(self, frame: np.ndarray) -> Detections:
        height, width = check_frame(frame).shape[:2]
        self.calls += 1
        boxes = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]], np.float32)
        return Detections(boxes, np.array([0.9, 0.2], np.float32), np.array([0, 1], np.int32), ("person", "dog"))

    def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        return frames

    def infer(self, prepared: list[np.ndarray]) -> Inference:
        ms = {"preprocess": 1.0, "network": 20.0, "postprocess": 0.5}
        return Inference([self(frame) for frame in prepared], ms)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> FakeDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def detector() -> FakeDetector:
    return FakeDetector()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".AVI"])
def test_video_in_video_and_lines_out(tmp_path: Path, detector: FakeDetector, suffix: str) -> None:
    source = make_video(tmp_path / "in.avi", frames=12, fps=20)
    output, lines = tmp_path / "new" / f"out{suffix}", tmp_path / "logs" / "out.jsonl"
    summary = run_camera(detector, source, output=output, json_lines=lines)

    assert (summary.frames, summary.stopped_by, summary.skipped, summary.reconnects) == (12, "end of source", (), 0)
    assert (summary.output, summary.json_lines) == (output, str(lines))
    assert summary.fps == pytest.approx(12 / summary.seconds)
    assert tuple(summary.stage_ms) == CAMERA_STAGES
    assert [summary.stage_ms[stage] for stage in ("preprocess", "network", "postprocess")] == [1.0, 20.0, 0.5]
    assert all(summary.stage_ms[stage] > 0 for stage in ("read", "draw", "write"))

    written = frames_of(output)
    assert len(written) == 12
    assert written[0].shape == (48, 64, 3)
    assert rate_of(output) == 20
    original = frames_of(source)[5]
    assert np.abs(written[5].astype(int) - original).mean() > 5, "annotated"
    assert_nothing_left_over(output.parent)

    records = lines_of(lines)
    assert [record["frame"] for record in records] == list(range(12))
    assert [record["time_s"] for record in records] == pytest.approx([i / 20 for i in range(12)])
    assert records[3]["name"] == "3"
    assert records[3]["detections"] == [
        {"box_xyxy": [0.0, 0.0, 32.0, 48.0], "score": 0.9, "class_id": 0, "class_name": "person"}
    ], "the dog is below the score"
    assert list(records[3]["ms"]) == ["read", "preprocess", "network", "postprocess"]
    assert not detector.closed, "a detector that was handed in stays open"


def test_summary_is_plain_json(tmp_path: Path, detector: FakeDetector) -> None:
    source = make_video(tmp_path / "in.avi", frames=3)
    summary = run_camera(detector, source, output=tmp_path / "out.avi").to_dict()
    assert json.loads(json.dumps(summary)) == {
        **summary,
        "skipped": [],
        "sources": [{**summary["sources"][0], "skipped": []}],
    }
    assert summary["output"] == str(tmp_path / "out.avi")
    assert summary["json_lines"] is None


def test_score_decides_what_is_handed_on(tmp_path: Path, detector: FakeDetector) -> None:
    seen: list[tuple[int, list[str]]] = []
    run_camera(
        detector,
        make_video(tmp_path / "in.avi", frames=2),
        score=0.1,
        on_frame=lambda frame, found: seen.append((frame.index, [name for _, _, name in found])),
    )
    assert seen == [(0, ["person", "dog"]), (1, ["person", "dog"])]


def test_max_frames(tmp_path: Path, detector: FakeDetector) -> None:
    output = tmp_path / "out.avi"
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=9), output=output, max_frames=4)
    assert (summary.frames, summary.stopped_by, detector.calls) == (4, "max_frames", 4)
    assert len(frames_of(output)) == 4


def test_model_path_is_opened_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, FakeDetector]] = []

    def build(*arguments: object) -> FakeDetector:
        opened.append((arguments, FakeDetector()))
        return opened[-1][1]

    monkeypatch.setattr("gfl_edge.camera.run.Detector", build)
    run_camera("model.onnx", make_video(tmp_path / "in.avi", frames=2), backend="openvino")
    ((arguments, detector),) = opened
    assert arguments == ("model.onnx", "openvino")
    assert (detector.calls, detector.closed) == (2, 1)
    with pytest.raises(SourceError):
        run_camera("model.onnx", tmp_path / "missing.avi")
    assert opened[1][1].closed == 1, "closed too if the source cannot be opened"


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
from tests.gfl_edge.camera.test_camera import FakeDetector
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


def test_outside_the_main_thread(tmp_path: Path, detector: FakeDetector) -> None:
    summaries: list[CameraSummary] = []
    source = make_video(tmp_path / "in.avi", frames=3)
    thread = threading.Thread(target=lambda: summaries.append(run_camera(detector, source)))
    thread.start()
    thread.join(20)
    assert [summary.frames for summary in summaries] == [3]


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


def test_folder_of_mixed_sizes(tmp_path: Path, detector: FakeDetector) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, hw in (("a.png", (60, 80)), ("b.png", (60, 30)), ("c.png", (200, 800)), ("d.png", (60, 80))):
        make_image(folder / name, level=200, hw=hw)
    output = tmp_path / "out.avi"
    summary = run_camera(detector, folder, output=output, score=1.0)  # nothing is drawn
    assert summary.frames == 4
    written = frames_of(output)
    assert [frame.shape for frame in written] == [(60, 80, 3)] * 4
    assert rate_of(output) == sources.IMAGES_PER_SECOND
    assert written[1][:, :20].max() < 30 < 150 < written[1][:, 30:50].min(), "black borders left and right"
    assert written[2][:15].max() < 30 < 150 < written[2][25:35].min(), "black borders above and below"


def test_pictures_that_cannot_be_used_are_named_and_skipped(
    tmp_path: Path, detector: FakeDetector, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_image(folder / "a.png", hw=(1, 1))
    (folder / "b.jpg").write_bytes(b"damaged")
    make_image(folder / "c.png")
    make_image(folder / "d.png", hw=(500, 1))
    lines = tmp_path / "out.jsonl"
    summary = run_camera(detector, folder, output=tmp_path / "out.mp4", json_lines=lines)
    assert (summary.frames, sorted(summary.skipped)) == (1, ["a.png", "b.jpg", "d.png"])
    assert [(record["frame"], record["name"]) for record in lines_of(lines)] == [(2, "c.png")]
    assert "a.png skipped: frame is uint8 [1, 1, 3]" in caplog.text
    assert len(frames_of(tmp_path / "out.mp4")) == 1


def test_folder_without_any_usable_picture(tmp_path: Path, detector: FakeDetector) -> None:
    make_image(tmp_path / "a.png", hw=(1, 1))
    with pytest.raises(SourceError, match="could use none of its 1 images"):
        run_camera(detector, tmp_path)


def test_frame_that_is_refused_in_a_video_is_an_error(tmp_path: Path) -> None:
    class Refusing(FakeDetector):
        def __call__(self, frame: np.ndarray) -> Detections:
            raise FrameError("frame is refused")

    with pytest.raises(FrameError, match="refused"):
        run_camera(Refusing(), make_video(tmp_path / "in.avi", frames=3))


class PatientCameras(Cameras):
    """Cameras whose next frame, or drop, comes when the one before was delivered, so that none is too old."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__(lengths)
        self.delivered = threading.Semaphore(1)
        self.over = threading.Event()

    def __call__(self, *opening: object) -> Camera:
        camera = super().__call__(*opening)
        read = camera.read

        def patient() -> tuple[bool, np.ndarray | None]:
            if self.over.is_set() or not self.delivered.acquire(timeout=20):
                return False, None
            found = read()
            if not found[0]:
                self.delivered.release()
            return found

        camera.read = patient  # type: ignore[method-assign]
        return camera

    def on_frame(self, frame: Frame, detections: Detections) -> None:
        if frame.index == 9:
            self.over.set()
        self.delivered.release()


def test_camera_that_drops_is_recorded_on(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    writing, playing = cv2.VideoWriter, cv2.VideoCapture
    cameras = PatientCameras([4, 0, 3, 0, 0, 5])
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    summary = run_camera(detector, 0, output=tmp_path / "out.avi", max_frames=10, on_frame=cameras.on_frame)
    assert (summary.frames, summary.reconnects, summary.stopped_by) == (10, 2, "max_frames")
    assert summary.dropped == 0
    monkeypatch.setattr(cv2, "VideoCapture", playing)
    assert cv2.VideoWriter is writing
    assert len(frames_of(tmp_path / "out.avi")) == 10


def test_camera_that_is_lost_leaves_a_video(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    playing = cv2.VideoCapture
    cameras = PatientCameras([4])
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    output, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    with pytest.raises(SourceError, match=r"camera 0 dropped after 4 frames .* within 5 s \(4 attempts\)"):
        run_camera(detector, "0", output=output, json_lines=lines, reconnect_seconds=5, on_frame=cameras.on_frame)
    monkeypatch.setattr(cv2, "VideoCapture", playing)
    assert (len(frames_of(output)), len(lines_of(lines))) == (4, 4)
    assert not detector.closed


def test_ctrl_c_while_reconnecting(detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    interrupted = threading.Event()

    def sleep(_: float) -> None:
        if not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)

    clock.sleep = sleep  # type: ignore[method-assign]
    cameras = PatientCameras([4])
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    summary = run_camera(detector, 0, on_frame=cameras.on_frame)
    assert (summary.frames, summary.stopped_by) == (4, "interrupt")
    assert cameras.held == 0


def test_video_of_a_live_source_plays_as_fast_as_it_was_seen(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    with VideoSink(tmp_path / "out.avi", fps=30, measure=True) as sink:
        sink.write(image, 0.0)
        for i in range(2 * MEASURED_FRAMES):
            sink.write(image, 3.0 + i / 8)  # the first frame took 3 s, the others come at 8 per second
    assert rate_of(tmp_path / "out.avi") == 8
    assert len(frames_of(tmp_path / "out.avi")) == 1 + 2 * MEASURED_FRAMES


@pytest.mark.parametrize(("declared", "expected"), [(15.0, 15.0), (None, 30.0)])
def test_video_too_short_to_measure(tmp_path: Path, declared: float | None, expected: float) -> None:
    with VideoSink(tmp_path / "out.avi", declared, measure=True) as sink:
        for time_s in (0.0, 5.0):
            sink.write(np.zeros((48, 64, 3), np.uint8), time_s)
    assert rate_of(tmp_path / "out.avi") == expected
    assert len(frames_of(tmp_path / "out.avi")) == 2


def test_lines_on_stdout(tmp_path: Path, detector: FakeDetector, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=3), json_lines="-")
    assert summary.json_lines == "-"
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["frame"] for record in records] == [0, 1, 2]
    print("stdout is still open")
    assert capsys.readouterr().out == "stdout is still open\n"


def test_lines_are_flushed_one_by_one(tmp_path: Path, detector: FakeDetector) -> None:
    lines, seen = tmp_path / "out.jsonl", []
    run_camera(
        detector,
        make_video(tmp_path / "in.avi", frames=3),
        json_lines=lines,
        on_frame=lambda frame, found: seen.append(len(lines_of(lines))),
    )
    assert seen == [1, 2, 3]


def test_nothing_on_stdout_without_lines(
    tmp_path: Path, detector: FakeDetector, capfd: pytest.CaptureFixture[str]
) -> None:
    run_camera(detector, make_video(tmp_path / "in.avi", frames=3), output=tmp_path / "out.mp4")
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(tmp_path: Path, detector: FakeDetector) -> None:
    output = tmp_path / "out.avi"
    with pytest.raises(InputError, match=r"/dev/full cannot be written any more .*No space left"):
        run_camera(detector, make_video(tmp_path / "in.avi", frames=3), json_lines="/dev/full", output=output)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "out.mkv"}, r"out\.mkv: cannot write a video of type '\.mkv', expected one of \.mp4, \.avi"),
        ({"output": "out"}, r"type 'none', expected one of \.mp4, \.avi"),
        ({"score": 1.5}, r"score 1\.5: expected 0\.\.1"),
        ({"score": float("nan")}, "score nan"),
        ({"max_frames": 0}, "max_frames 0: expected 1 or more"),
        ({"reconnect_seconds": -1}, "reconnect_seconds -1"),
        ({"output": "in.avi"}, r"in\.avi is the source and would be written over"),
        ({"json_lines": "in.avi"}, r"in\.avi is the source and would be written over"),
        ({"output": "out.avi", "json_lines": "out.avi"}, "give two files"),
        ({"output": "in.avi/out.avi"}, r"out\.avi cannot be written .* Choose another folder"),
        ({"json_lines": "in.avi/out.jsonl"}, r"out\.jsonl cannot be written .* Choose another file"),
        ({"show": True}, r"no window can be opened: neither DISPLAY nor WAYLAND_DISPLAY is set"),
    ],
)
def test_settings_are_checked(
    tmp_path: Path,
    detector: FakeDetector,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    content = make_video(tmp_path / "in.avi", frames=2).read_bytes()
    with pytest.raises(InputError, match=message):
        run_camera(detector, "in.avi", **settings)
    assert (tmp_path / "in.avi").read_bytes() == content


class Screen:
    """Stands in for OpenCV's windows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: list[int], closed_after: int = 1000) -> None:
        self.keys, self.closed_after = keys, closed_after
        self.shown: list[np.ndarray] = []
        self.destroyed = 0
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(sinks, "_window_opens", lambda: True)
        for name in ("namedWindow", "resizeWindow", "imshow", "waitKey", "getWindowProperty", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, getattr(self, name))

    def namedWindow(self, title: str, flags: int) -> None:  # noqa: N802
        pass

    def resizeWindow(self, title: str, width: int, height: int) -> None:  # noqa: N802
        self.size = (width, height)

    def imshow(self, title: str, image: np.ndarray) -> None:
        self.shown.append(image)

    def waitKey(self, ms: int) -> int:  # noqa: N802
        return self.keys[len(self.shown) - 1] if len(self.shown) <= len(self.keys) else -1

    def getWindowProperty(self, title: str, prop: int) -> float:  # noqa: N802
        return 0.0 if len(self.shown) >= self.closed_after else 1.0

    def destroyAllWindows(self) -> None:  # noqa: N802
        self.destroyed += 1


@pytest.mark.parametrize(
    ("keys", "closed_after", "frames"),
    [([-1, -1, ord("q")], 1000, 3), ([-1, 27], 1000, 2), ([ord("x")], 4, 4)],
    ids=["q", "Esc", "close button"],
)
def test_window_is_closed_by_the_user(
    tmp_path: Path,
    detector: FakeDetector,
    monkeypatch: pytest.MonkeyPatch,
    keys: list[int],
    closed_after: int,
    frames: int,
) -> None:
    screen = Screen(monkeypatch, keys, closed_after)
    output = tmp_path / "out.avi"
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=9), output=output)
    assert (summary.frames, summary.stopped_by, screen.destroyed) == (frames, "user", 1)
    assert screen.size == (64, 48)
    assert len(frames_of(output)) == frames
    assert len({image.shape for image in screen.shown}) == 1


def test_window_until_the_end(tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=3), show=True)
    assert (summary.stopped_by, len(screen.shown), screen.destroyed) == ("end of source", 3, 1)


def test_no_window_if_none_is_wanted(tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    run_camera(detector, make_video(tmp_path / "in.avi", frames=3), show=False)
    assert screen.shown == []


def test_large_frames_fit_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    with Window("test") as window:
        assert window.show(np.zeros((2160, 3840, 3), np.uint8))
    assert screen.size == (1280, 720)


def test_opencv_without_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    assert "opencv-python-headless" in str(why_no_window())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has displays that may be dead")
def test_dead_display(tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qt aborts the process on a display that does not answer: the loop must notice before."""
    monkeypatch.setenv("DISPLAY", ":4711")
    source = make_video(tmp_path / "in.avi", frames=2)
    assert run_camera(detector, source).frames == 2
    with pytest.raises(InputError, match="the display :4711 cannot be opened"):
        run_camera(detector, source, show=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "seconds"), [(Terminal(), 0.5), (io.StringIO(), 10.0)])
def test_status_line(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, seconds: float) -> None:
    time = Clock()
    monkeypatch.setattr(status, "time", time)
    times = StageTimes()
    with StatusLine(total=400, load=lambda: "waiting: network 1; dropped 7", stream=stream) as line:
        for index in range(210):
            time.now += 0.1
            times.add(dict.fromkeys(CAMERA_STAGES, 1.0 if index < 100 else 4.0))
            line.update(index + 1, times)
    text = stream.getvalue()
    drawn = [line for line in text.replace("\r", "\n").split("\n") if line]
    assert len(drawn) == pytest.approx(21 / seconds, abs=4)
    assert (
        "/400, 10.0 FPS; ms: read 4.0, preprocess 4.0, network 4.0, postprocess 4.0, draw 4.0, write 4.0; "
        "waiting: network 1; dropped 7"
    ) in drawn[-1]
    assert text.endswith("\n")
    assert ("\r" in text) == stream.isatty()


def test_stage_times(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock()
    monkeypatch.setattr(status, "time", time)
    times = StageTimes()
    assert (times.recent_fps(), times.mean_ms()["read"]) == (0.0, 0.0)
    for ms in (9.0, 9.0, 9.0, 1.0, 1.0, 1.0):
        times.add(dict.fromkeys(CAMERA_STAGES, ms))
        time.now += 0.75
    assert times.mean_ms()["network"] == 5.0
    assert times.recent_ms()["network"] == 1.0
    assert times.recent_fps() == pytest.approx(1 / 0.75)
    time.now += 100
    times.add(dict.fromkeys(CAMERA_STAGES, 1.0))
    assert 0 < times.recent_fps() < 0.02, "slower than a frame in two seconds"
