"""Runs whose video goes into a pipeline: what is in the summary, and what becomes of a run whose pipeline fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfl_edge.camera import run_camera
from gfl_edge.errors import InputError, OutputError
from gfl_edge.media import streams, targets
from gfl_edge.media.stream_process import BrokenPipelineError
from tests.support.fake_detector import FakeDetector
from tests.support.fake_pipelines import Pipelines, fail
from tests.support.fake_sources import FakeSource
from tests.support.media_files import lines_of, make_video

ADDRESS = "rtsp://me:hush@host/live"


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> Pipelines:
    monkeypatch.setattr(targets, "why_no_gstreamer", lambda: "")
    monkeypatch.setattr(streams, "MIN_DELAY_S", 0.01)
    return Pipelines(monkeypatch)


def test_a_stream_takes_every_frame_of_a_file(tmp_path: Path, detector: FakeDetector, pipelines: Pipelines) -> None:
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=12, fps=20), output=ADDRESS)
    assert len(pipelines.taken[0]) == 12
    assert pipelines.opened[0][1:] == (20.0, (48, 64))
    source = summary.to_dict()["sources"][0]
    found = source["output"], source["output_dropped"], source["output_error"]
    assert found == ("rtsp://me:***@host/live", 0, None)


def test_several_sources_have_a_stream_each(detector: FakeDetector, pipelines: Pipelines) -> None:
    run_camera(detector, [FakeSource("a"), FakeSource("b")], output="appsrc ! udpsink port=500{source}")
    assert sorted(pipeline for pipeline, _, _ in pipelines.opened) == [
        "appsrc ! udpsink port=5000",
        "appsrc ! udpsink port=5001",
    ]
    with pytest.raises(InputError, match=r"put \{source\} where"):
        run_camera(detector, [FakeSource("a"), FakeSource("b")], output="appsrc ! udpsink port=5000")


def test_a_pipeline_that_is_broken_ends_the_run(tmp_path: Path, detector: FakeDetector, pipelines: Pipelines) -> None:
    pipelines.on_open = lambda number: fail(BrokenPipelineError('no element "nosuch"'))
    with pytest.raises(InputError, match='cannot be started: no element "nosuch"'):
        run_camera(detector, FakeSource(), output="appsrc ! nosuch", json_lines=tmp_path / "a.jsonl")
    assert lines_of(tmp_path / "a.jsonl") == [], "a frame is in all outputs or in none"


def test_a_stream_that_is_lost_takes_nothing_with_it(
    tmp_path: Path, detector: FakeDetector, pipelines: Pipelines, caplog: pytest.LogCaptureFixture
) -> None:
    pipelines.on_write = lambda number, count: fail(OutputError("reset by rtsp://me:***@host")) if count == 2 else None
    lines = tmp_path / "a.jsonl"
    source = FakeSource(count=30, live=True, period_s=0.005)
    summary = run_camera(detector, source, output=ADDRESS, json_lines=lines, reconnect_seconds=0)
    assert len(lines_of(lines)) == summary.frames > 12
    assert "is given up: reset by" in str(summary.sources[0].output_error)
    assert summary.sources[0].output_dropped > 0
    assert "hush" not in caplog.text + str(summary.to_dict())


def test_a_run_whose_only_output_is_lost_ends(detector: FakeDetector, pipelines: Pipelines) -> None:
    pipelines.on_write = lambda number, count: fail(OutputError("reset")) if count == 2 else None
    with pytest.raises(OutputError, match=r"is given up: reset\. There is no other output"):
        run_camera(detector, FakeSource(count=None, period_s=0.005), output=ADDRESS, reconnect_seconds=0)


def test_who_follows_the_run_is_another_output(detector: FakeDetector, pipelines: Pipelines) -> None:
    pipelines.on_write = lambda number, count: fail(OutputError("reset"))
    seen: list[int] = []
    source = FakeSource(count=30)
    run_camera(
        detector, source, output=ADDRESS, reconnect_seconds=0, on_frame=lambda frame, _: seen.append(frame.index)
    )
    assert seen == list(range(30))
