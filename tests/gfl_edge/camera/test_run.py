"""Runs of the camera with a detector that finds the same things in every frame: files, summary, settings."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge.camera import run_camera
from gfl_edge.camera.status import CAMERA_STAGES
from gfl_edge.camera.summary import CameraSummary
from gfl_edge.cli import main as cli
from gfl_edge.detections import Detections
from gfl_edge.errors import FrameError, InputError, OutputError, SourceError
from gfl_edge.filters import DetectionFilter
from gfl_edge.media import containers
from gfl_edge.media.sources import IMAGES_PER_SECOND
from tests.support.fake_detector import FakeDetector
from tests.support.fake_sources import FakeSource
from tests.support.media_files import (
    assert_nothing_left_over,
    frames_of,
    lines_of,
    make_image,
    make_uneven_video,
    make_video,
    rate_of,
)


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


def test_a_video_of_uneven_rate_keeps_its_times(tmp_path: Path, detector: FakeDetector) -> None:
    times_ms = [0, 40, 80, 500, 540, 1500, 1540, 3000]
    source, output, lines = make_uneven_video(tmp_path / "in.mp4", times_ms), tmp_path / "out.mp4", tmp_path / "l.jsonl"
    run_camera(detector, source, output=output, json_lines=lines)
    assert [line["time_s"] for line in lines_of(lines)] == pytest.approx([time / 1000 for time in times_ms])
    last_s = (len(frames_of(output)) - 1) / rate_of(output)  # OpenCV 4.8 takes the rate for another
    assert last_s == pytest.approx(3.0, abs=0.05)


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


@pytest.mark.parametrize(("score", "recommended"), [(0.1, 0.35), (None, 0.15)])
def test_score_decides_what_is_handed_on(
    tmp_path: Path,
    detector: FakeDetector,
    monkeypatch: pytest.MonkeyPatch,
    score: float | None,
    recommended: float,
) -> None:
    monkeypatch.setattr(detector.spec, "shown_score", recommended)
    seen: list[tuple[int, list[str]]] = []
    run_camera(
        detector,
        make_video(tmp_path / "in.avi", frames=2),
        keep=DetectionFilter(score=score),
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

    def build(*arguments: object, performance: str) -> FakeDetector:
        opened.append(((*arguments, performance), FakeDetector()))
        return opened[-1][1]

    monkeypatch.setattr("gfl_edge.camera.run.Detector", build)
    run_camera("model.onnx", make_video(tmp_path / "in.avi", frames=2), backend="openvino")
    ((arguments, detector),) = opened
    assert arguments == ("model.onnx", "openvino", "throughput")
    assert (detector.calls, detector.closed) == (2, 1)
    with pytest.raises(SourceError):
        run_camera("model.onnx", tmp_path / "missing.avi")
    assert opened[1][1].closed == 1, "closed too if the source cannot be opened"


def test_outside_the_main_thread(tmp_path: Path, detector: FakeDetector) -> None:
    summaries: list[CameraSummary] = []
    source = make_video(tmp_path / "in.avi", frames=3)
    thread = threading.Thread(target=lambda: summaries.append(run_camera(detector, source)))
    thread.start()
    thread.join(20)
    assert [summary.frames for summary in summaries] == [3]


def test_folder_of_mixed_sizes(tmp_path: Path, detector: FakeDetector) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, hw in (("a.png", (60, 80)), ("b.png", (60, 30)), ("c.png", (200, 800)), ("d.png", (60, 80))):
        make_image(folder / name, level=200, hw=hw)
    output = tmp_path / "out.avi"
    summary = run_camera(detector, folder, output=output, keep=DetectionFilter(score=1.0))  # nothing is drawn
    assert summary.frames == 4
    written = frames_of(output)
    assert [frame.shape for frame in written] == [(60, 80, 3)] * 4
    assert rate_of(output) == IMAGES_PER_SECOND
    assert written[1][:, :20].max() < 30 < 150 < written[1][:, 30:50].min(), "black borders left and right"
    assert written[2][:15].max() < 30 < 150 < written[2][25:35].min(), "black borders above and below"


def test_images_that_cannot_be_used_are_named_and_skipped(
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


def test_folder_without_any_usable_image(tmp_path: Path, detector: FakeDetector) -> None:
    make_image(tmp_path / "a.png", hw=(1, 1))
    with pytest.raises(SourceError, match="could use none of its 1 images"):
        run_camera(detector, tmp_path)


def test_frame_that_is_refused_in_a_video_is_an_error(tmp_path: Path) -> None:
    class Refusing(FakeDetector):
        def __call__(self, frame: np.ndarray) -> Detections:
            raise FrameError("frame is refused")

    with pytest.raises(FrameError, match="refused"):
        run_camera(Refusing(), make_video(tmp_path / "in.avi", frames=3))


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


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_disk_that_fills_up_leaves_each_frame_in_all_outputs(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    output, lines = tmp_path / f"out{suffix}", tmp_path / "out.jsonl"
    free = iter([10**9] * 9)
    monkeypatch.setattr(containers, "free_bytes", lambda path: next(free, 10**6))
    with pytest.raises(OutputError, match="cannot be written any more: 1 MB are free on its disk"):
        run_camera(detector, make_video(tmp_path / "in.avi", frames=20), output=output, json_lines=lines)
    assert len(frames_of(output)) == len(lines_of(lines)) > 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(tmp_path: Path, detector: FakeDetector) -> None:
    output = tmp_path / "out.avi"
    with pytest.raises(InputError, match=r"/dev/full cannot be written \(No space left"):
        run_camera(detector, make_video(tmp_path / "in.avi", frames=3), json_lines="/dev/full", output=output)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "out.mkv"}, r"out\.mkv: cannot write a video of type '\.mkv', expected one of \.mp4, \.avi"),
        ({"output": "out"}, r"type 'none', expected one of \.mp4, \.avi"),
        ({"max_frames": 0}, "max_frames 0: expected 1 or more"),
        ({"reconnect_seconds": -1}, "reconnect_seconds -1"),
        ({"output": "in.avi"}, r"in\.avi is the source and would be written over"),
        ({"json_lines": "in.avi"}, r"in\.avi is the source and would be written over"),
        ({"output": "out.avi", "json_lines": "out.avi"}, "give two files"),
        ({"output": "in.avi/out.avi"}, r"out\.avi cannot be written .* Choose another place"),
        ({"json_lines": "in.avi/out.jsonl"}, r"out\.jsonl cannot be written .* Choose another place"),
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


def test_a_source_of_the_applications_own(detector: FakeDetector) -> None:
    source = FakeSource("mine", 7)
    summary = run_camera(detector, source)
    assert (summary.frames, summary.sources[0].name) == (7, "mine")
    assert source.closed == ["gfl_edge read mine"]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("gfl_edge.cli.options.Detector", lambda *_: FakeDetector())
    a, b = make_video(tmp_path / "a.avi", frames=3), make_video(tmp_path / "b.avi", frames=4)
    words = ["camera", "--model", "m.onnx", "--headless", "--source", str(a)]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 3
    assert cli.main([*words, "--source", str(b)]) == 0
    assert [source["frames"] for source in json.loads(capsys.readouterr().out)["sources"]] == [3, 4]
