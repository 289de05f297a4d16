"""A run over images here: its file, and that no stop loses or doubles anything."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gfl_edge import Detector
from gfl_edge.batch.chunks import ChunkDetector
from gfl_edge.batch.run import Batch, run_batch
from gfl_edge.cli.main import main
from gfl_edge.errors import InputError, MissingDependencyError, OutputError, SourceError
from gfl_edge.files import sha256
from gfl_edge.filters import DetectionFilter, Region
from gfl_edge.media.images import read_image
from tests.support.batch_run import BAD, COUNT, folder, rows, start_batch, tiny_model  # noqa: F401
from tests.support.media_files import make_image
from tests.support.tiny_onnx import SPEC, tiny_onnx

for needed in ("pyarrow", "fsspec", "onnxruntime"):
    pytest.importorskip(needed, reason=f"{needed} is not installed (extras parquet, cpu)")

ALL = DetectionFilter(score=0.0)


class StoppedError(Exception):
    pass


@pytest.fixture
def run(folder: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:  # noqa: F811
    """Runs it, and returns the summary."""

    def run(name: str = "out", **options: Any) -> dict[str, Any]:
        output = tmp_path / f"{name}.parquet"
        settings = {"model": tiny_model, "backend": "onnxruntime", "keep": ALL, "chunk": 5, **options}
        return run_batch(Batch(str(folder), output, **settings)).to_dict()

    return run


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Makes a run stop after so many parts; returns the numbers of images of those that are begun."""
    original = ChunkDetector.part

    def stop_after(parts: int) -> list[int]:
        begun: list[int] = []

        def part(self: ChunkDetector, names: list[str], *rest: Any) -> bytes:
            if len(begun) == parts:
                raise StoppedError
            begun.append(len(names))
            return original(self, names, *rest)

        monkeypatch.setattr(ChunkDetector, "part", part)
        return begun

    return stop_after


def left(folder: Path) -> set[str]:  # noqa: F811
    """Files in the folder of the results."""
    return {path.name for path in folder.iterdir() if path.name != "in"}


def test_the_file_says_what_the_detector_does(run, folder, tiny_model, tmp_path):  # noqa: F811
    import pyarrow.parquet

    summary = run()
    found = rows(tmp_path / "out.parquet")
    assert len(found) == summary["images"] == COUNT
    detector = Detector(tiny_model, "onnxruntime")
    for row in found:
        name = row["image"].removeprefix(f"{folder}/")
        if name in BAD:
            assert row["error"].startswith("it is ")
            assert all(row[column] is None for column in row if column not in ("image", "error"))
            continue
        image = read_image(folder / name)
        expected = detector(image)
        assert (row["height"], row["width"], row["error"]) == (*image.shape[:2], None)
        assert row["boxes"] == expected.boxes.tolist()
        assert row["scores"] == expected.scores.tolist()
        assert row["class_ids"] == expected.class_ids.tolist()
        assert row["class_names"] == [("cat", "dog")[number] for number in expected.class_ids]
    assert summary["failed"] == len(BAD)
    assert summary["detections"] == sum(len(row["scores"]) for row in found if row["error"] is None) > COUNT
    metadata = pyarrow.parquet.read_schema(tmp_path / "out.parquet").metadata
    assert metadata[b"model_sha256"].decode() == sha256(tiny_model)
    assert json.loads(metadata[b"class_names"]) == ["cat", "dog"]
    assert json.loads(metadata[b"filter"])["score"] == 0.0
    assert left(tmp_path) == {"out.parquet"}


def test_sigmas_are_written_where_the_model_has_them(run, tmp_path):
    path = tmp_path / "in" / "sigma.onnx"
    spec = SPEC.__class__(**{**SPEC.__dict__, "edge_sigma": True})
    onnx.save(tiny_onnx("none", spec), path)
    run(model=path)
    detector = Detector(path, "onnxruntime")
    row = next(row for row in rows(tmp_path / "out.parquet") if row["error"] is None)
    assert row["edge_sigma"] == detector(read_image(Path(row["image"]))).edge_sigma.tolist()


@pytest.mark.parametrize("chunk", [1, 5, 7, COUNT, 1000])
def test_chunks_change_nothing(run, tmp_path, chunk):
    run("whole", chunk=3)
    run("other", chunk=chunk)
    assert (tmp_path / "other.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_run_that_was_stopped_goes_on(run, tmp_path, stopping, caplog):
    caplog.set_level("INFO")
    run("whole")
    for done in (1, 1, 0):
        begun = stopping(done)
        with pytest.raises(StoppedError):
            run()
        assert begun == [5] * done
        assert "the same command goes on with them" in caplog.text
        assert left(tmp_path) == {"whole.parquet", "out.parquet.parts"}
    begun = stopping(99)
    assert run()["resumed"] == 10
    assert begun == [2]
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert left(tmp_path) == {"whole.parquet", "out.parquet"}
    begun = stopping(99)
    assert run()["resumed"] == 0, "a run that is finished is nothing to go on with"
    assert begun == [5, 5, 2]


@pytest.mark.parametrize("content", [b"", b"PAR1", "cut", "other"])
def test_a_part_that_is_damaged_is_made_anew(run, tmp_path, stopping, content):
    run("whole")
    stopping(2)
    with pytest.raises(StoppedError):
        run()
    parts = sorted((tmp_path / "out.parquet.parts").glob("part-*"))
    assert len(parts) == 2
    made = {"cut": parts[0].read_bytes()[:-9], "other": (tmp_path / "whole.parquet").read_bytes()}
    parts[0].write_bytes(content if isinstance(content, bytes) else made[content])
    begun = stopping(99)
    assert run()["resumed"] == 5
    assert begun == [5, 2]
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_part_that_is_damaged_inside_is_made_anew_by_the_next_run(run, tmp_path, monkeypatch):
    from gfl_edge.batch.parts import Parts

    run("whole")
    joined = Parts.join

    def damaging(self: Parts, *rest: Any) -> None:
        part = sorted(self.folder.glob("part-*"))[1]
        content = bytearray(part.read_bytes())
        content[60] ^= 1
        part.write_bytes(content)
        joined(self, *rest)

    monkeypatch.setattr(Parts, "join", damaging)
    with pytest.raises(OutputError, match="was damaged, and is removed"):
        run()
    assert left(tmp_path) == {"whole.parquet", "out.parquet.parts"}
    monkeypatch.setattr(Parts, "join", joined)
    assert run()["resumed"] == COUNT - 5
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_what_changed_is_done_again_and_what_came_is_done(run, folder, tmp_path, stopping):  # noqa: F811
    stopping(2)
    with pytest.raises(StoppedError):
        run()
    make_image(folder / "a" / "04.png", 3, (50, 60))  # in the second part
    (folder / "b" / "cut.jpg").unlink()
    begun = stopping(99)
    assert run()["resumed"] == 5
    assert begun == [5, 1]
    run("whole")
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize("options", [{"keep": DetectionFilter(score=0.5)}, {"chunk": 4}, {"nms": "host"}])
def test_with_other_options_it_starts_anew(run, tmp_path, stopping, options):
    stopping(2)
    with pytest.raises(StoppedError):
        run()
    stopping(99)
    assert run(**options)["resumed"] == 0
    assert left(tmp_path) == {"out.parquet"}


def test_a_wrong_option_loses_nothing(run, tmp_path, stopping, caplog):
    stopping(2)
    with pytest.raises(StoppedError):
        run()
    stopping(1)
    with pytest.raises(StoppedError), caplog.at_level("INFO"):
        run(keep=DetectionFilter(score=0.5))
    assert "2 parts in" in caplog.text
    stopping(99)
    assert run()["resumed"] == 10
    assert left(tmp_path) == {"out.parquet"}


def test_what_others_put_beside_the_parts_stays(run, tmp_path):
    (tmp_path / "out.parquet.parts").mkdir()
    (tmp_path / "out.parquet.parts" / "notes").touch()
    run()
    assert [path.name for path in (tmp_path / "out.parquet.parts").iterdir()] == ["notes"]


def test_the_filter_counts(run, tmp_path):
    everything, dogs = run("all"), run("dogs", keep=DetectionFilter(score=0.0, classes=("dog",)))
    assert 0 < dogs["detections"] < everything["detections"]
    assert {name for row in rows(tmp_path / "dogs.parquet") for name in row["class_names"] or ()} == {"dog"}
    with pytest.raises(InputError, match="the model has no class 'dgo'; dog"):
        run(keep=DetectionFilter(classes=("dgo",)))
    run("region", keep=DetectionFilter(score=0.0, regions=(Region(((0, 22), (9, 22), (9, 40))),)))
    outside = [row["error"] for row in rows(tmp_path / "region.parquet") if row["height"] is None]
    assert sum("region" in error for error in outside) > 1, "where there is no such region, the row says so"


def test_a_list_and_memory_give_the_same(run, folder, tmp_path, monkeypatch, tiny_model):  # noqa: F811
    import fsspec

    run("whole")
    whole = [{**row, "image": Path(row["image"]).name} for row in rows(tmp_path / "whole.parquet")]
    (tmp_path / "list.txt").write_text("".join(f"{row['image']}\n" for row in rows(tmp_path / "whole.parquet")))
    system = fsspec.filesystem("memory")
    system.put(f"{folder}/", "/batch/", recursive=True)
    for text in (str(tmp_path / "list.txt"), "memory://batch"):
        run_batch(Batch(text, tmp_path / "o.parquet", tiny_model, "onnxruntime", keep=ALL, chunk=5))
        assert [{**row, "image": Path(row["image"]).name} for row in rows(tmp_path / "o.parquet")] == whole
    assert rows(tmp_path / "o.parquet")[0]["image"] == "memory://batch/00.png"


def test_images_that_are_gone_are_rows(tmp_path, tiny_model, folder):  # noqa: F811
    (tmp_path / "list.txt").write_text("in/00.png\nin/gone.png\nmemory://gone/x.png\nnothing://x.png\nin\n")
    summary = run_batch(Batch(str(tmp_path / "list.txt"), tmp_path / "o.parquet", tiny_model, keep=ALL))
    errors = [row["error"] for row in rows(tmp_path / "o.parquet")]
    assert (summary.failed, errors[0]) == (4, None)
    assert errors[1] == errors[2] == "it cannot be read (No such file or directory)"
    assert "Protocol not known: nothing" in errors[3]
    assert errors[4].startswith("it cannot be read (")


def test_a_service_that_is_away_fails_no_image(folder, tmp_path, tiny_model, monkeypatch):  # noqa: F811
    from fsspec.implementations.memory import MemoryFileSystem

    system = MemoryFileSystem()
    system.put(f"{folder}/", "/away/", recursive=True)
    original, calls = MemoryFileSystem.cat_file, []

    def cat_file(self: MemoryFileSystem, path: str, **options: Any) -> bytes:
        calls.append(path)
        if away and len(calls) > 5:
            raise TimeoutError
        return original(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr("gfl_edge.batch.reading.PAUSES_SECONDS", (0.0, 0.001))
    away, batch = True, Batch("memory://away", tmp_path / "o.parquet", tiny_model, "onnxruntime", keep=ALL, chunk=5)
    with pytest.raises(
        SourceError, match=r"the last 5 images could not be read .*TimeoutError.* give the same command"
    ):
        run_batch(batch)
    assert len(calls) == 5 + 5 * 3, "each is asked for again"
    away = False
    assert run_batch(batch).failed == len(BAD)
    # of web sites in a list, those that are gone are rows
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/a.png\n" * 3 + "in/00.png\n")
    monkeypatch.setattr("gfl_edge.batch.reading.open_address", lambda _: (system, "/away/00.png"))
    away = True
    assert (
        run_batch(Batch(str(tmp_path / "list.txt"), tmp_path / "l.parquet", tiny_model, keep=ALL, chunk=3)).failed == 3
    )


def test_a_missing_package_is_no_million_of_errors(tmp_path, tiny_model, monkeypatch):  # noqa: F811
    import fsspec

    def without(address: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without)
    (tmp_path / "list.txt").write_text("s3://bucket/a.png\n" * 3)
    with pytest.raises(MissingDependencyError, match="Install s3fs"):
        run_batch(Batch(str(tmp_path / "list.txt"), tmp_path / "o.parquet", tiny_model, "onnxruntime"))
    assert [path.name for path in tmp_path.glob("o.parquet*")] == [], "with nothing to go on with, no folder stays"


def test_where_no_image_can_be_used_the_file_says_why(folder, tmp_path, tiny_model, caplog):  # noqa: F811
    batch = Batch(str(folder / "b"), tmp_path / "o.parquet", tiny_model, "onnxruntime")
    with pytest.raises(SourceError, match=r"none of 2 images can be used: it is a JPEG.*o\.parquet says why"):
        run_batch(batch)
    assert [row["error"] is None for row in rows(tmp_path / "o.parquet")] == [False, False]
    assert "none of the first 2 images can be used" in caplog.text


def test_what_cannot_be_meant_is_refused_before_any_work(run, folder, tmp_path, tiny_model):  # noqa: F811
    (tmp_path / "empty").mkdir()
    (tmp_path / "l.txt").write_text("a.png\n")
    for source, output, kind, says in (
        (tmp_path / "empty", "o.parquet", SourceError, "holds no images"),
        (folder, "s3://bucket/o.parquet", InputError, "write to a file of this machine"),
        (tmp_path / "l.txt", tmp_path / "l.txt", InputError, "is the list of the images"),
        (folder, tmp_path / "empty", OutputError, "Is a directory"),
    ):
        with pytest.raises(kind, match=says):
            run_batch(Batch(str(source), Path(output), tiny_model, "onnxruntime"))
    assert (tmp_path / "l.txt").read_text() == "a.png\n"


def test_a_second_run_at_the_same_time_is_refused(run, tmp_path):
    from gfl_edge.batch.parts import Parts

    with Parts(tmp_path / "out.parquet"), pytest.raises(OutputError, match="is being written by another run"):
        run()
    run()


def test_the_command(folder, tmp_path, tiny_model, capsys):  # noqa: F811
    words = ["batch", str(folder), "-o", str(tmp_path / "o.parquet"), "--model", str(tiny_model), "--score", "0"]
    assert main([*words, "--backend", "onnxruntime"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["images"] == COUNT
    assert "2 of 12 images cannot be used" in printed.err
    assert main([*words, "--workers", "2"]) == 1
    assert "--workers is for workers of Ray: add --address" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_killed_loses_and_doubles_nothing(tmp_path, tiny_model, number):  # noqa: F811
    images = tmp_path / "in"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in range(60):
        make_image(images / f"{name:03}.png", int(rng.integers(0, 256)), (20, 30 + name))
    words = ["in", "--model", tiny_model, "--backend", "onnxruntime", "--score", "0", "--chunk", "1", "-o"]
    assert start_batch([*words, "whole.parquet"], tmp_path).wait(120) == 0
    killed = start_batch([*words, "out.parquet"], tmp_path)
    while not list(tmp_path.glob("out.parquet.parts/part-*")):
        time.sleep(0.001)
        assert killed.poll() is None, "it was over before it could be killed"
    os.kill(killed.pid, number)
    assert killed.wait(60) != 0
    assert not (tmp_path / "out.parquet").exists()
    done = len(list(tmp_path.glob("out.parquet.parts/part-*")))
    again = start_batch([*words, "out.parquet"], tmp_path)
    assert json.loads(again.communicate(timeout=120)[0])["resumed"] == done > 0
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob("*.parts"))
