"""Several sources in one run."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge.camera import run, run_camera
from gfl_edge.camera.feeds import CameraFrame
from gfl_edge.camera.run import CameraRun
from gfl_edge.camera.steady_batch import PATIENCE, SteadyBatch
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.errors import InputError, SourceError
from gfl_edge.media.sources import Frame
from tests.support.fake_detector import FakeDetector, SlowDetector
from tests.support.fake_sources import FakeSource, Sources
from tests.support.media_files import assert_nothing_left_over, frames_of, lines_of, make_image, make_video


def test_each_has_its_own_video_and_summary(tmp_path: Path, detector: FakeDetector) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        make_image(folder / name)
    given = [
        make_video(tmp_path / "in.avi", frames=12, fps=20),
        make_video(tmp_path / "small.avi", frames=5, fps=10, size_wh=(32, 32)),
        folder,
    ]
    lines = tmp_path / "out.jsonl"
    summary = run_camera(detector, given, output=tmp_path / "out.mp4", json_lines=lines)
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
    tmp_path: Path, detector: FakeDetector, sources: Sources, count: int, output: str, expected: list[str]
) -> None:
    names = sources.add(*(FakeSource(f"s{i}") for i in range(count)))
    summary = run_camera(detector, names, output=tmp_path / output)
    assert [source.output for source in summary.sources] == [tmp_path / path for path in expected]


def test_turns_are_fair(sources: Sources) -> None:
    """A source that delivers slowly is served whenever it has something, beside two that always have."""
    slow = FakeSource("slow", 20, live=True, period_s=0.03)
    names = sources.add(FakeSource("a", 120), slow, FakeSource("b", 120))
    summary = run_camera(SlowDetector(infer_s=0.004), names)
    assert [summary.sources[i].frames for i in (0, 2)] == [120, 120]
    assert summary.sources[1].frames + summary.sources[1].dropped == 20
    assert summary.sources[1].dropped < 5
    assert summary.sources[1].latency_ms["p50"] < 200, "it waits for its turn, not 1 s for the files to end"


def test_two_files_take_turns(sources: Sources) -> None:
    names, order = sources.add(FakeSource("a", 40), FakeSource("b", 40, hw=(30, 30))), []

    class Watched(SlowDetector):
        def infer(self, prepared: list[np.ndarray]) -> Inference:
            order.append("b" if prepared[0].shape[0] == 30 else "a")
            return super().infer(prepared)

    run_camera(Watched(infer_s=0.005), names)
    for start in range(10, 60, 10):
        assert 3 <= Counter(order[start : start + 10])["a"] <= 7


def test_one_that_cannot_be_opened_is_left_out(
    detector: FakeDetector, sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    names = sources.add(FakeSource("good"))
    sources.known["bad"] = SourceError("bad cannot be opened")
    summary = run_camera(detector, ["bad", *names])
    assert [(source.frames, source.error) for source in summary.sources] == [
        (0, "bad cannot be opened"),
        (10, None),
    ]
    assert "source 0 is left out: bad cannot be opened" in caplog.text


def test_a_failure_is_reported_while_others_are_busy(detector: FakeDetector, sources: Sources) -> None:
    names = sources.add(FakeSource("a", 10_000), FakeSource("b", 10_000))
    sources.known["bad"] = SourceError("bad cannot be opened")
    summary = run_camera(detector, [*names, "bad"], max_frames=200)
    assert summary.frames == 200
    assert [source.error for source in summary.sources] == [None, None, "bad cannot be opened"]


@pytest.mark.parametrize("others", [0, 1])
def test_frames_that_are_no_images_from_all(detector: FakeDetector, sources: Sources, others: int) -> None:
    names = sources.add(*(FakeSource(f"tiny{i}", hw=(1, 1)) for i in range(1 + others)))
    with pytest.raises(InputError, match=r"frame is uint8 \[1, 1, 3\]"):
        run_camera(detector, names)


def test_one_that_opens_late_holds_up_nobody(detector: FakeDetector, sources: Sources) -> None:
    names = sources.add(FakeSource("late", 3), FakeSource("now", 3))
    sources.opening["late"] = opens = threading.Event()
    delivered = []

    def on_frame(frame: Frame, _: Detections) -> None:
        delivered.append(frame)
        if len(delivered) == 3:  # all of the other
            opens.set()

    summary = run_camera(detector, names, on_frame=on_frame)
    assert [source.frames for source in summary.sources] == [3, 3]


def test_one_that_dies_is_counted(tmp_path: Path, detector: FakeDetector, sources: Sources) -> None:
    names = sources.add(FakeSource("dies", 4, error=SourceError("dies dropped")), FakeSource("lives", 50))
    summary = run_camera(detector, names, output=tmp_path / "out.avi")
    assert [(source.frames, source.error) for source in summary.sources] == [(4, "dies dropped"), (50, None)]
    assert [len(frames_of(tmp_path / f"out-{i}.avi")) for i in (0, 1)] == [4, 50]


def test_a_bug_in_one_is_logged_with_its_place(
    detector: FakeDetector, sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    names = sources.add(FakeSource("odd", 1, error=ZeroDivisionError("a bug")), FakeSource("good"))
    assert run_camera(detector, names).sources[0].error == "a bug"
    assert "Traceback" in caplog.text


def test_a_frame_that_is_no_image_ends_only_its_video(detector: FakeDetector, sources: Sources) -> None:
    names = sources.add(FakeSource("tiny", hw=(1, 1)), FakeSource("good"))
    summary = run_camera(detector, names)
    assert [source.frames for source in summary.sources] == [0, 10]
    assert "frame is uint8 [1, 1, 3]" in str(summary.sources[0].error)
    assert sources.known["tiny"].closed == ["gfl_edge read tiny"]  # type: ignore[union-attr]


def test_all_failed(detector: FakeDetector, sources: Sources) -> None:
    names = sources.add(FakeSource("dies", 2, error=SourceError("dropped")))
    sources.known["bad"] = SourceError("nothing there")
    with pytest.raises(SourceError, match=r"all 2 sources failed: (dropped; nothing there|nothing there; dropped)"):
        run_camera(detector, ["bad", *names])


def test_none_can_be_opened(detector: FakeDetector, sources: Sources, tmp_path: Path) -> None:
    sources.known.update(a=SourceError("no a"), b=SourceError("no b"))
    lines = tmp_path / "kept.jsonl"
    lines.write_text("of an earlier run\n")
    with pytest.raises(SourceError, match="all 2 sources failed: no a; no b"):
        run_camera(detector, ["a", "b"], json_lines=lines)
    assert lines.read_text() == "of an earlier run\n"


def test_max_frames_counts_all_sources(detector: FakeDetector, sources: Sources) -> None:
    names = sources.add(FakeSource("a", 100), FakeSource("b", 100))
    summary = run_camera(detector, names, max_frames=31)
    assert (summary.frames, summary.stopped_by, detector.calls) == (31, "max_frames", 31)


def test_an_engine_for_single_frames(sources: Sources) -> None:
    sizes = []

    class Single(FakeDetector):
        def infer(self, prepared: list[np.ndarray]) -> Inference:
            sizes.append(len(prepared))
            return super().infer(prepared)

    for most in (1, None):
        single = Single()
        single.backend.max_batch = most
        run_camera(single, sources.add(FakeSource("a"), FakeSource("b")))
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
def test_settings_are_checked(detector: FakeDetector, given: list[str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_camera(detector, given, **settings)


def test_a_batch_grows_at_once_and_shrinks_slowly() -> None:
    batch = SteadyBatch()
    assert [batch.size(waiting) for waiting in (1, 3, 2, 1, 4)] == [1, 3, 3, 3, 4]
    assert [batch.size(2) for _ in range(PATIENCE)] == [4] * (PATIENCE - 1) + [2]
    assert batch.size(1) == 2


def test_a_batch_that_is_full_now_and_then_stays() -> None:
    batch = SteadyBatch()
    batch.size(3)
    assert {batch.size(3 if i % 10 == 0 else 1) for i in range(10 * PATIENCE)} == {3}


def test_one_that_comes_late_is_called_away(detector: FakeDetector, sources: Sources) -> None:
    """While the others run; the status line says so."""
    names = sources.add(FakeSource("late", 3), FakeSource("now", 3))
    sources.opening["late"] = opens = threading.Event()
    said: list[str] = []

    class Watched(CameraRun):
        def deliver(self, item: CameraFrame) -> bool:
            stays = super().deliver(item)
            said.append(self.load())
            if len(said) == 3:
                opens.set()
            return stays

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CameraRun", Watched)
        run_camera(detector, names)
    assert all(text.endswith("; away: source 0") for text in said[:3])
    assert "away" not in said[-1]


@pytest.mark.parametrize("error", [SourceError, ValueError])
def test_no_password_is_in_what_is_said_of_a_source(
    detector: FakeDetector, sources: Sources, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    secret = "rtsp://u:s3cret@h/s"
    names = sources.add(FakeSource(f"{secret}?token=s3cret"), FakeSource("dies", error=error(f"{secret} is bad")))
    sources.known[secret] = error(f"{secret} is bad")
    sources.known["rtsp://u:***@h/s"] = sources.known[secret]
    summary = run_camera(detector, [secret, *names])
    assert summary.sources[0].error == "rtsp://u:***@h/s is bad"
    assert "s3cret" not in caplog.text + json.dumps(summary.to_dict())
    assert "s3cret" not in "".join(thread.name for thread in threading.enumerate())


def test_one_object_cannot_be_two_sources(detector: FakeDetector) -> None:
    source = FakeSource("one")
    with pytest.raises(InputError, match="the same FrameSource is given twice"):
        run_camera(detector, [source, source])


@pytest.mark.parametrize("source", [True, None, 1.5, [0, None], [[0]], {"a": 1}, b"0", "", [""], "a\0b"])
def test_what_is_no_source_is_refused_before_anything_is_opened(detector: FakeDetector, source: Any) -> None:
    with pytest.raises(InputError, match="source"):
        run_camera(detector, source)


@pytest.mark.parametrize("frames", [0, -1, 1.5, float("nan"), True, "5"])
def test_max_frames_is_a_number_of_frames(detector: FakeDetector, frames: Any) -> None:
    with pytest.raises(InputError, match=r"max_frames .*: expected 1 or more, or None for all"):
        run_camera(detector, [0], max_frames=frames)
