"""The camera's stages at the same time: throughput, latency, drops, several sources, and every way to end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfl_edge.camera import run as camera_run
from gfl_edge.camera import run_camera
from gfl_edge.cli import main as cli
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.errors import InputError, SourceError
from gfl_edge.media.sinks import VideoSink
from gfl_edge.media.sources import Frame
from tests.gfl_edge.camera.test_camera import (
    FakeDetector,
    Screen,
    lines_of,
)
from tests.support.fake_sources import FakeSource, Sources
from tests.support.media_files import assert_nothing_left_over, frames_of, make_image, make_video

pytestmark = pytest.mark.usefixtures("ctrl_c", "no_screen")


@pytest.fixture
def detector() -> FakeDetector:
    return FakeDetector()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    return Sources(monkeypatch)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ours() == []


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gfl_edge")]


class SlowDetector(FakeDetector):
    """Takes so many seconds to resize a batch, and to find what is in it."""

    def __init__(self, prepare_s: float = 0.0, infer_s: float = 0.0) -> None:
        super().__init__()
        self.prepare_s, self.infer_s = prepare_s, infer_s

    def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        time.sleep(self.prepare_s)
        return super().prepare(frames)

    def infer(self, prepared: list[np.ndarray]) -> Inference:
        time.sleep(self.infer_s)
        return super().infer(prepared)


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return function(*args, **kwargs)

    return call


class TestOverlap:
    @pytest.mark.parametrize("slowest", ["read", "preprocess", "network", "draw", "write"])
    def test_the_slowest_stage_sets_the_pace(
        self, tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, slowest: str
    ) -> None:
        count, most, other = 30, 0.04, 0.02
        seconds = {stage: most if stage == slowest else other for stage in ("read", "preprocess", "network")}
        monkeypatch.setattr(
            camera_run, "draw_detections", slowed(camera_run.draw_detections, most if slowest == "draw" else other)
        )
        monkeypatch.setattr(VideoSink, "write", slowed(VideoSink.write, most if slowest == "write" else other))
        (name,) = sources.add(FakeSource(count=count, period_s=seconds["read"]))
        slow = SlowDetector(seconds["preprocess"], seconds["network"])
        summary = run_camera(slow, name, output=tmp_path / "out.avi")  # type: ignore[arg-type]
        assert summary.frames == count
        one_after_the_other = count * (most + 4 * other)
        assert summary.seconds < 0.75 * one_after_the_other, "the slowest alone takes a third"
        assert summary.stage_ms["write"] >= 1000 * (most if slowest == "write" else other)

    def test_resizing_overlaps_with_the_network(self, sources: Sources) -> None:
        """Frame n + 1 is made ready while frame n is in the network."""
        events = []

        class Watched(FakeDetector):
            def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
                events.append(("prepare", int(frames[0][0, 0, 0])))
                return frames

            def infer(self, prepared: list[np.ndarray]) -> Inference:
                number = int(prepared[0][0, 0, 0])
                time.sleep(0.03)
                events.append(("inferred", number))
                return super().infer(prepared)

        run_camera(Watched(), sources.add(FakeSource(count=6))[0])  # type: ignore[arg-type]
        for number in range(5):
            assert events.index(("prepare", number + 1)) < events.index(("inferred", number))

    def test_a_source_of_the_applications_own(self, detector: FakeDetector) -> None:
        source = FakeSource("mine", 7)
        summary = run_camera(detector, source)  # type: ignore[arg-type]
        assert (summary.frames, summary.sources[0].name) == (7, "mine")
        assert source.closed == ["gfl_edge read mine"]

    def test_queues_are_told(self, tmp_path: Path, sources: Sources) -> None:
        (name,) = sources.add(FakeSource(count=20))
        summary = run_camera(SlowDetector(infer_s=0.01), name, output=tmp_path / "out.avi")  # type: ignore[arg-type]
        assert list(summary.queues) == ["preprocess", "network", "draw", "write"]
        assert all(queue.most <= queue.capacity <= 2 for queue in summary.queues.values())
        assert summary.queues["network"].mean > 1, "frames wait for the slow network"
        assert summary.queues["write"].mean < 0.5, "and nothing waits behind it"

    def test_nothing_is_drawn_that_nobody_sees(
        self, detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(camera_run, "draw_detections", None)
        summary = run_camera(detector, sources.add(FakeSource())[0])  # type: ignore[arg-type]
        assert list(summary.queues) == ["preprocess", "network", "write"]
        assert summary.stage_ms["draw"] == 0

    def test_frames_are_handed_on_in_order_by_the_callers_thread(self, sources: Sources) -> None:
        seen, threads = [], set()

        def on_frame(frame: Frame, _: Detections) -> None:
            seen.append(frame.index)
            threads.add(threading.current_thread())

        run_camera(FakeDetector(), sources.add(FakeSource(count=200))[0], on_frame=on_frame)  # type: ignore[arg-type]
        assert seen == list(range(200))
        assert threads == {threading.current_thread()}


class TestLive:
    def test_old_frames_are_dropped_and_counted(self, sources: Sources) -> None:
        source = FakeSource(count=150, live=True, period_s=0.005)
        seen: list[int] = []
        summary = run_camera(
            SlowDetector(infer_s=0.03),  # type: ignore[arg-type]
            sources.add(source)[0],
            on_frame=lambda frame, _: seen.append(frame.index),
        )
        assert seen == sorted(set(seen))
        assert seen[-1] == 149, "the newest is never dropped"
        assert summary.frames + summary.dropped == source.read == 150
        assert summary.dropped > 75

    def test_latency_is_bounded_by_the_slowest_stage(self, sources: Sources) -> None:
        (name,) = sources.add(FakeSource(count=200, live=True, period_s=0.005))
        summary = run_camera(SlowDetector(infer_s=0.05), name)  # type: ignore[arg-type]
        period_ms = 1000 * summary.seconds / summary.frames
        # One that is inferred, one that waits for it, and a frame that is as fresh as the queue in front allows
        assert 48 <= summary.latency_ms["p50"] < 3 * period_ms
        assert summary.latency_ms["p99"] < 6 * period_ms
        assert summary.latency_ms["p50"] <= summary.latency_ms["p99"] <= summary.latency_ms["max"]

    def test_latency_is_bounded_where_writing_is_slowest(
        self, tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(VideoSink, "write", slowed(VideoSink.write, 0.05))
        (name,) = sources.add(FakeSource(count=200, live=True, period_s=0.005))
        summary = run_camera(FakeDetector(), name, output=tmp_path / "out.avi")  # type: ignore[arg-type]
        period_ms = 1000 * summary.seconds / summary.frames
        assert summary.latency_ms["p50"] < 6 * period_ms, "a frame waits in front of each of four stages at most"

    def test_files_lose_no_frame(self, tmp_path: Path) -> None:
        source, lines = make_video(tmp_path / "in.avi", frames=30), tmp_path / "out.jsonl"
        summary = run_camera(SlowDetector(infer_s=0.01), source, json_lines=lines)  # type: ignore[arg-type]
        assert (summary.frames, summary.dropped) == (30, 0)
        assert [record["frame"] for record in lines_of(lines)] == list(range(30))


class TestSeveralSources:
    def test_each_has_its_own_video_and_summary(self, tmp_path: Path, detector: FakeDetector) -> None:
        folder = tmp_path / "pictures"
        folder.mkdir()
        for name in ("a.png", "b.png"):
            make_image(folder / name)
        given = [
            make_video(tmp_path / "in.avi", frames=12, fps=20),
            make_video(tmp_path / "small.avi", frames=5, fps=10, size_wh=(32, 32)),
            folder,
        ]
        lines = tmp_path / "out.jsonl"
        summary = run_camera(detector, given, output=tmp_path / "out.mp4", json_lines=lines)  # type: ignore[arg-type]
        assert (summary.frames, summary.output, summary.stopped_by) == (19, None, "end of source")
        assert [source.name for source in summary.sources] == [str(path) for path in given]
        assert [source.frames for source in summary.sources] == [12, 5, 2]
        assert [source.error for source in summary.sources] == [None] * 3
        videos = [tmp_path / f"out-{i}.mp4" for i in range(3)]
        assert [source.output for source in summary.sources] == videos
        assert [len(frames_of(video)) for video in videos] == [12, 5, 2]
        assert [frames_of(video)[0].shape for video in videos] == [(48, 64, 3), (32, 32, 3), (20, 30, 3)]
        for index, count in enumerate((12, 5, 2)):
            own = [record["frame"] for record in lines_of(lines) if record["source"] == index]
            assert own == list(range(count)), "in order"
        assert_nothing_left_over(tmp_path)
        plain = summary.to_dict()
        assert json.loads(json.dumps(plain))["sources"][1]["output"] == str(videos[1])

    @pytest.mark.parametrize(
        ("count", "output", "expected"),
        [(1, "{source}.avi", ["0.avi"]), (2, "a{source}/b.avi", ["a0/b.avi", "a1/b.avi"])],
    )
    def test_the_number_in_the_name_of_the_video(
        self, tmp_path: Path, detector: FakeDetector, sources: Sources, count: int, output: str, expected: list[str]
    ) -> None:
        names = sources.add(*(FakeSource(f"s{i}") for i in range(count)))
        summary = run_camera(detector, names, output=tmp_path / output)  # type: ignore[arg-type]
        assert [source.output for source in summary.sources] == [tmp_path / path for path in expected]

    def test_turns_are_fair(self, sources: Sources) -> None:
        """A source that delivers slowly is served whenever it has something, beside two that always have."""
        slow = FakeSource("slow", 20, live=True, period_s=0.03)
        names = sources.add(FakeSource("a", 300), slow, FakeSource("b", 300))
        summary = run_camera(SlowDetector(infer_s=0.004), names)  # type: ignore[arg-type]
        assert [summary.sources[i].frames for i in (0, 2)] == [300, 300]
        assert summary.sources[1].frames + summary.sources[1].dropped == 20
        assert summary.sources[1].dropped < 5
        assert summary.sources[1].latency_ms["p50"] < 200, "it waits for its turn, not 2 s for the files to end"

    def test_two_files_take_turns(self, sources: Sources) -> None:
        names, order = sources.add(FakeSource("a", 40), FakeSource("b", 40, hw=(30, 30))), []

        class Watched(SlowDetector):
            def infer(self, prepared: list[np.ndarray]) -> Inference:
                order.append("b" if prepared[0].shape[0] == 30 else "a")
                return super().infer(prepared)

        run_camera(Watched(infer_s=0.005), names)  # type: ignore[arg-type]
        for start in range(10, 60, 10):
            assert 3 <= Counter(order[start : start + 10])["a"] <= 7

    def test_one_that_cannot_be_opened_is_left_out(
        self, detector: FakeDetector, sources: Sources, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = sources.add(FakeSource("good"))
        sources.known["bad"] = SourceError("bad cannot be opened")
        summary = run_camera(detector, ["bad", *names])  # type: ignore[arg-type]
        assert [(source.frames, source.error) for source in summary.sources] == [
            (0, "bad cannot be opened"),
            (10, None),
        ]
        assert "source 0 is left out: bad cannot be opened" in caplog.text

    def test_a_failure_is_told_while_others_are_busy(self, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource("a", 10_000), FakeSource("b", 10_000))
        sources.known["bad"] = SourceError("bad cannot be opened")
        summary = run_camera(detector, [*names, "bad"], max_frames=200)  # type: ignore[arg-type]
        assert summary.frames == 200
        assert [source.error for source in summary.sources] == [None, None, "bad cannot be opened"]

    @pytest.mark.parametrize("others", [0, 1])
    def test_frames_that_are_no_pictures_from_all(self, detector: FakeDetector, sources: Sources, others: int) -> None:
        names = sources.add(*(FakeSource(f"tiny{i}", hw=(1, 1)) for i in range(1 + others)))
        with pytest.raises(InputError, match=r"frame is uint8 \[1, 1, 3\]"):
            run_camera(detector, names)  # type: ignore[arg-type]

    def test_one_that_opens_late_holds_up_nobody(self, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource("late", 3), FakeSource("now", 3))
        sources.opening_s["late"] = 1.0
        seen: list[tuple[float, str]] = []
        start = time.monotonic()
        summary = run_camera(
            detector,  # type: ignore[arg-type]
            names,
            on_frame=lambda frame, _: seen.append((time.monotonic() - start, frame.name)),
        )
        assert [source.frames for source in summary.sources] == [3, 3]
        assert sum(seconds < 0.9 for seconds, _ in seen) == 3

    def test_one_that_dies_is_counted(self, tmp_path: Path, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource("dies", 4, error=SourceError("dies dropped")), FakeSource("lives", 50))
        summary = run_camera(detector, names, output=tmp_path / "out.avi")  # type: ignore[arg-type]
        assert [(source.frames, source.error) for source in summary.sources] == [(4, "dies dropped"), (50, None)]
        assert [len(frames_of(tmp_path / f"out-{i}.avi")) for i in (0, 1)] == [4, 50]

    def test_a_bug_in_one_is_logged_with_its_place(
        self, detector: FakeDetector, sources: Sources, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = sources.add(FakeSource("odd", 1, error=ZeroDivisionError("a bug")), FakeSource("good"))
        assert run_camera(detector, names).sources[0].error == "a bug"  # type: ignore[arg-type]
        assert "Traceback" in caplog.text

    def test_a_frame_that_is_no_picture_ends_its_video_alone(self, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource("tiny", hw=(1, 1)), FakeSource("good"))
        summary = run_camera(detector, names)  # type: ignore[arg-type]
        assert [source.frames for source in summary.sources] == [0, 10]
        assert "frame is uint8 [1, 1, 3]" in str(summary.sources[0].error)
        assert sources.known["tiny"].closed == ["gfl_edge read tiny"]  # type: ignore[union-attr]

    def test_all_failed(self, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource("dies", 2, error=SourceError("dropped")))
        sources.known["bad"] = SourceError("nothing there")
        with pytest.raises(SourceError, match=r"all 2 sources failed: (dropped; nothing there|nothing there; dropped)"):
            run_camera(detector, ["bad", *names])  # type: ignore[arg-type]

    def test_none_can_be_opened(self, detector: FakeDetector, sources: Sources, tmp_path: Path) -> None:
        sources.known.update(a=SourceError("no a"), b=SourceError("no b"))
        lines = tmp_path / "kept.jsonl"
        lines.write_text("of an earlier run\n")
        with pytest.raises(SourceError, match="all 2 sources failed: no a; no b"):
            run_camera(detector, ["a", "b"], json_lines=lines)  # type: ignore[arg-type]
        assert lines.read_text() == "of an earlier run\n"

    def test_max_frames_counts_all_sources(self, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource("a", 100), FakeSource("b", 100))
        summary = run_camera(detector, names, max_frames=31)  # type: ignore[arg-type]
        assert (summary.frames, summary.stopped_by, detector.calls) == (31, "max_frames", 31)

    def test_an_engine_for_single_frames(self, sources: Sources) -> None:
        sizes = []

        class Single(FakeDetector):
            def infer(self, prepared: list[np.ndarray]) -> Inference:
                sizes.append(len(prepared))
                return super().infer(prepared)

        for most in (1, None):
            single = Single()
            single.backend.max_batch = most
            run_camera(single, sources.add(FakeSource("a"), FakeSource("b")))  # type: ignore[arg-type]
        assert set(sizes) == {1}

    @pytest.mark.parametrize(
        ("given", "settings", "message"),
        [
            ([], {}, "no source"),
            (["a.avi", "b.avi"], {"output": "b-0.avi", "json_lines": "b-0-1.avi"}, "give two files"),
            (["a.avi", "out-1.avi"], {"output": "out.avi"}, r"out-1\.avi is the source and would be written over"),
            (["a.avi", "b.avi"], {"output": "out.mkv"}, r"cannot write a video of type '\.mkv'"),
        ],
    )
    def test_settings_are_checked(
        self, detector: FakeDetector, given: list[str], settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            run_camera(detector, given, **settings)  # type: ignore[arg-type]

    def test_the_window_shows_all(
        self, detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        screen = Screen(monkeypatch, [])
        names = sources.add(*(FakeSource(f"s{i}", 10, period_s=0.02) for i in range(3)))
        summary = run_camera(detector, names)  # type: ignore[arg-type]
        assert summary.frames == 30
        assert 1 < len(screen.shown) < 30, "not renewed for every frame"
        assert {image.shape[1] for image in screen.shown} == {1280}
        assert (screen.shown[-1][10:300, 700:1200] > 0).any(), "the second source is on the right"

    def test_command_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("gfl_edge.detector.Detector", lambda *_: FakeDetector())
        a, b = make_video(tmp_path / "a.avi", frames=3), make_video(tmp_path / "b.avi", frames=4)
        words = ["camera", "--model", "m.onnx", "--headless", "--source", str(a)]
        assert cli.main(words) == 0
        assert json.loads(capsys.readouterr().out)["frames"] == 3
        assert cli.main([*words, "--source", str(b)]) == 0
        assert [source["frames"] for source in json.loads(capsys.readouterr().out)["sources"]] == [3, 4]


class TestEnding:
    @pytest.mark.parametrize("where", ["read", "preprocess", "network", "draw", "on_frame"])
    def test_ctrl_c_in_a_stage_that_hangs(
        self, tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, where: str
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

        def draw(image: np.ndarray, found: Detections) -> np.ndarray:
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
                Hanging(),  # type: ignore[arg-type]
                sources.add(source)[0],
                output=output,
                json_lines=lines,
                on_frame=on_frame,
            )
        finally:
            released.set()
        assert time.monotonic() - start < 10, "0.1 s until the signal, and 1 s for each thread that hangs"
        assert (summary.frames, summary.stopped_by) == (5, "interrupt")
        assert (len(frames_of(output)), len(lines_of(lines))) == (5, 5)
        assert_nothing_left_over(tmp_path)

    def test_ctrl_c_while_a_source_opens(self, detector: FakeDetector, sources: Sources) -> None:
        names = sources.add(FakeSource())
        sources.opening_s["fake"] = 3.0
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_camera(detector, names)  # type: ignore[arg-type]
        assert time.monotonic() - start < 2.5

    def test_a_source_is_closed_by_the_thread_that_reads_it(self, detector: FakeDetector, sources: Sources) -> None:
        """Releasing a capture in the middle of a read in another thread would crash."""
        source = FakeSource(count=None, live=True, period_s=0.001)
        run_camera(detector, sources.add(source)[0], max_frames=3)  # type: ignore[arg-type]
        assert source.closed == ["gfl_edge read fake"]

    @pytest.mark.parametrize("stage", ["preprocess", "network", "draw", "write"])
    def test_an_error_in_a_stage(
        self, tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, stage: str
    ) -> None:
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

        def draw(image: np.ndarray, found: Detections) -> np.ndarray:
            fail("draw", image)
            return image

        write = VideoSink.write

        def failing_write(self: VideoSink, image: np.ndarray, time_s: float) -> None:
            fail("write", image)
            write(self, image, time_s)

        monkeypatch.setattr(camera_run, "draw_detections", draw)
        monkeypatch.setattr(VideoSink, "write", failing_write)
        with pytest.raises(InputError, match=f"{stage} failed"):
            run_camera(Failing(), sources.add(FakeSource(count=100))[0], output=output, json_lines=lines)  # type: ignore[arg-type]
        assert len(frames_of(output)) == 4, "all that came before are there"

    def test_the_window_is_closed(
        self, detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Screen(monkeypatch, [-1, ord("q")])
        source = FakeSource(count=None, live=True, period_s=0.001)
        summary = run_camera(detector, sources.add(source)[0])  # type: ignore[arg-type]
        assert (summary.frames, summary.stopped_by) == (2, "user")

    def test_the_window_is_closed_while_no_frame_comes(
        self, detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        screen, released = Screen(monkeypatch, []), threading.Event()

        def press_q_after_a_while(ms: int) -> int:
            screen.keys.append(-1)
            return ord("q") if len(screen.keys) > 5 else -1

        monkeypatch.setattr(cv2, "waitKey", press_q_after_a_while)
        try:
            summary = run_camera(detector, sources.add(FakeSource(count=2, hangs=released))[0])  # type: ignore[arg-type]
        finally:
            released.set()
        assert (summary.frames, summary.stopped_by) == (2, "user")


def test_memory_is_flat(sources: Sources) -> None:
    """Nothing is kept of a frame that was delivered."""
    traced: list[int] = []

    def on_frame(frame: Frame, _: Detections) -> None:
        if frame.index in (1500, 4999):
            traced.append(tracemalloc.get_traced_memory()[0])

    (name,) = sources.add(FakeSource(count=5000, hw=(8, 8)))
    tracemalloc.start()
    try:
        run_camera(FakeDetector(), name, on_frame=on_frame)  # type: ignore[arg-type]
    finally:
        tracemalloc.stop()
    assert traced[1] - traced[0] < 50_000, "bytes; 3500 frames of 192 bytes alone would be 672 000"
