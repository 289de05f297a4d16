"""Every kind of writer on a full disk: an error in a sentence, and what was there before stays."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.cli.result import write_result
from gfl_edge.errors import GflEdgeError, OutputError
from gfl_edge.media import containers
from gfl_edge.media.images import write_image
from gfl_edge.media.lines import JsonLinesSink
from gfl_edge.media.sinks import VideoSink
from tests.support.media_files import frames_of, lines_of
from tests.support.small_disk import room_for

NOISE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


def write_video(path: Path, frames: int = 40) -> None:
    with VideoSink(path, 25) as sink:
        for index in range(frames):
            sink.write(np.roll(NOISE, index, axis=1), index / 25)


def write_lines(path: Path) -> None:
    with JsonLinesSink(path) as sink:
        for index in range(100):
            sink.write({"frame": index, "text": "x" * 40})


def write_json(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        write_result({"rows": [0.1] * 20_000}, (), argparse.Namespace(annotations=None, json=path))


def write_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export = pytest.importorskip("export.to_onnx")
    weights = onnx.numpy_helper.from_array(np.zeros(20_000, np.float32), "weights")
    graph = onnx.helper.make_graph([], "empty", [], [], [weights])
    export.Exported(onnx.helper.make_model(graph), None, None).write(path)


def write_checkpoint(path: Path) -> None:
    torch = pytest.importorskip("torch")
    checkpoint = pytest.importorskip("train.checkpoint")
    checkpoint.Checkpoint({"a": torch.zeros(100_000)}, {}, ("x",), {}).save(path)


def write_calibration_cache(path: Path) -> None:
    observed = pytest.importorskip("calib.observed")
    observed.Observed({"a": [0.1] * 20_000}, {"max": {"a": 1.0}}, {"a": [0.0, 1.0]}, {}, "m", "i", ("x.jpg",)).write(
        path
    )


WRITERS: list[tuple[str, Callable[[Path], None]]] = [
    ("video.mp4", write_video),
    ("video.avi", write_video),
    ("image.png", lambda path: write_image(path, np.tile(NOISE, (3, 3, 1)))),
    ("result.json", write_json),
    ("model.onnx", write_onnx),
    ("last.pt", write_checkpoint),
    ("model.calibration.json", write_calibration_cache),
]


@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
@pytest.mark.parametrize("room", [0, 1000, 60_000])
def test_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], None], room: int
) -> None:
    monkeypatch.setattr(containers, "RESERVE_BYTES", 0)  # or videos would not even be begun
    path = tmp_path / name
    path.write_bytes(b"old")
    with room_for(room), pytest.raises(OutputError, match=name):
        write(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [name]
    write(path)
    assert path.stat().st_size > 60_000


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_ends_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path, frames = tmp_path / f"video{suffix}", 12
    path.write_bytes(b"old")
    free = containers.RESERVE_BYTES + NOISE.nbytes + containers.INDEX_BYTES * frames
    monkeypatch.setattr(containers, "free_bytes", lambda path: free)
    with pytest.raises(OutputError, match=r"cannot be written any more: 8 MB are free on its disk, .* to finish it"):
        write_video(path)
    assert len(frames_of(path)) == frames + 1


def test_a_video_is_not_begun_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")
    monkeypatch.setattr(containers, "free_bytes", lambda path: 10**6)
    with pytest.raises(OutputError, match="1 MB are free on its disk, and 8 MB are needed"):
        write_video(path)
    assert path.read_bytes() == b"old"


def test_a_video_that_no_longer_grows_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a FAT file system, whose files end at 4 GB."""
    monkeypatch.setattr(containers, "RESERVE_BYTES", 0)
    monkeypatch.setattr(containers, "MAX_STILL_FRAMES", 30)
    with room_for(1000), pytest.raises(OutputError) as caught:
        write_video(tmp_path / "video.mp4", frames=1000)
    assert "does not grow beyond" in str(caught.value.__context__)
    assert not list(tmp_path.iterdir())


def test_lines_end_with_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with room_for(1000), pytest.raises(OutputError, match=r"out\.jsonl cannot be written"):
        write_lines(path)
    assert [record["frame"] for record in lines_of(path)] == list(range(len(lines_of(path))))
    assert 900 < path.stat().st_size <= 1000


def test_an_engine_and_its_sidecar_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from gfl_edge.engine import build
    from tests.support.tiny_engine import tiny_onnx

    spec = tiny_onnx(tmp_path / "tiny.onnx")
    monkeypatch.setattr(build, "_serialize", lambda plan, spec, progress: (content, build.Convolutions(1, 0)))
    monkeypatch.setattr(build, "load_flavor", lambda flavor: argparse.Namespace(__version__="1.0"))
    plan = build.BuildPlan(tmp_path / "tiny.onnx", "rtx", ("sm75",), spec=spec)
    content = b"old"
    engine, sidecar = build.build_engine(plan, tmp_path / "out")
    assert sidecar.engine_sha256 == hashlib.sha256(b"old").hexdigest()
    content = bytes(100_000)
    with room_for(50_000), pytest.raises(OutputError, match=r"\.engine, .*\.engine\.json cannot be written"):
        build.build_engine(plan, tmp_path / "out")
    assert type(sidecar).read(engine).check_file(engine) == b"old"
    monkeypatch.setattr(build, "_serialize", lambda plan, spec, progress: pytest.fail("built"))
    with room_for(10), pytest.raises(OutputError):  # before the minutes of a build
        build.build_engine(plan, tmp_path / "out")


def test_the_files_of_a_report_stay_together(tmp_path: Path, measured: dict[str, object]) -> None:
    from gfl_edge.report.schema import Report
    from gfl_edge.report.write import write_report

    report = Report.from_dict(measured)
    write_report(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        path.write_bytes(b"old")
    with room_for(max(map(len, before.values())) - 1), pytest.raises(OutputError, match=r"report\.html, .*cannot be"):
        write_report(report, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(before, b"old")


def test_the_curves_of_a_run(tmp_path: Path) -> None:
    metrics = pytest.importorskip("train.metrics")
    table = metrics.Table(tmp_path / "losses.csv")

    def add_rows() -> None:
        for step in range(1, 1000):
            table.add({"step": step, "loss": 1 / step})

    with room_for(1000), pytest.raises(OutputError, match=r"losses\.csv cannot be written"):
        add_rows()
    whole = metrics.Table(tmp_path / "losses.csv", resume_at=20)
    whole.add({"step": 21, "loss": 0.5})
    rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", *map(str, range(1, 22))]


@pytest.mark.parametrize("torn", ["", "3", "3,0.", "3,0.25", "x,y\n", "3\n", "\0\n", "3,0.1,7\n"])
def test_rows_that_a_killed_run_left_unfinished(tmp_path: Path, torn: str) -> None:
    metrics = pytest.importorskip("train.metrics")
    (tmp_path / "losses.csv").write_text("step,loss\n1,0.5\n2,0.25\n" + torn)
    table = metrics.Table(tmp_path / "losses.csv", resume_at=3)
    table.add({"step": 3, "loss": 0.125})
    assert (tmp_path / "losses.csv").read_text().split() == ["step,loss", "1,0.5", "2,0.25", "3,0.125"]


def test_a_kernel_cache_on_a_full_disk_is_only_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gfl_edge.cuda.compiler import CudaSource, compiled

    class Compiler:
        version, options = "1", ()

        def compile(self, source: CudaSource, compute_capability: str) -> bytes:
            return bytes(1000)

    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path))
    with room_for(100):
        assert compiled(CudaSource("a.cu", ""), "sm75", Compiler()) == bytes(1000)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_errors_are_those_of_the_project() -> None:
    assert issubclass(OutputError, GflEdgeError)
