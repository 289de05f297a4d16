"""A run over many images that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge.errors import OutputError, SourceError
from gfl_edge.filters import DetectionFilter
from gfl_edge.media.annotate import JOURNAL, detect_images
from gfl_edge.results.journal import Journal
from tests.support.fake_detector import FakeDetector
from tests.support.media_files import make_image

FORMATS = ("coco", "csv", "jsonl", "yolo")
COUNT = 12


class StoppedError(Exception):
    pass


class StoppedAfter(FakeDetector):
    """Finds what depends on the image, and stops after so many of them."""

    def __init__(self, left: int = 10**6) -> None:
        super().__init__()
        self.left = left

    def __call__(self, frame: np.ndarray) -> Any:
        if not self.left:
            raise StoppedError
        self.left -= 1
        return super().__call__(frame)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(COUNT):
        make_image(folder / f"{number:03}.png", hw=(20 + number, 31 + number))
    return folder


def run(detector: FakeDetector, images: Path, out: Path, **options: Any) -> dict[str, Any]:
    return detect_images(detector, [images], output_dir=out, formats=FORMATS, **options).to_dict()  # type: ignore[arg-type]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_run_goes_on_and_gives_the_same_files(tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    expected = run(StoppedAfter(), images, tmp_path / "whole")
    for left in (5, 4):
        with pytest.raises(StoppedError):
            run(StoppedAfter(left), images, tmp_path / "out")
        assert not (tmp_path / "out" / "coco.json").exists(), "results are whole or not there"
        assert f"stopped after {left} more images: the same command goes on from there" in caplog.text
    last = StoppedAfter()
    assert json.dumps(run(last, images, tmp_path / "out")) == json.dumps(expected).replace("whole", "out")
    assert last.calls == COUNT - 9
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert run(again := StoppedAfter(), images, tmp_path / "out2")["files"]
    assert again.calls == COUNT, "a run that is finished is nothing to go on with"


def test_a_run_over_one_image_does_not_end_a_stopped_one_over_many(tmp_path: Path, images: Path) -> None:
    with pytest.raises(StoppedError):
        run(StoppedAfter(5), images, tmp_path / "out")
    detect_images(StoppedAfter(), [images / "011.png"], output_dir=tmp_path / "out")  # type: ignore[arg-type]
    last = StoppedAfter()
    run(last, images, tmp_path / "out")
    assert last.calls == COUNT - 6
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_images_that_are_gone_keep_no_journal(tmp_path: Path, images: Path) -> None:
    with pytest.raises(StoppedError):
        run(StoppedAfter(5), images, tmp_path / "out")
    (images / "001.png").unlink()
    run(StoppedAfter(), images, tmp_path / "out")
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_a_line_that_was_cut_is_an_image_that_is_not_finished(tmp_path: Path, images: Path) -> None:
    with pytest.raises(StoppedError):
        run(StoppedAfter(6), images, tmp_path / "out")
    journal = tmp_path / "out" / JOURNAL
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 7
    damaged = {
        whole[:-1]: 5,  # as a kill leaves it
        whole[:-20]: 5,
        whole + b"\0" * 4096: 6,  # as a power cut leaves it
        whole + b'{"source": 1}\n': 6,
        whole + b"[]\n": 6,
        whole + b'{"source"' + b"\n": 6,
        b"".join([*lines[:3], b"\xff\n", *lines[3:]]): 2,
        lines[0][:-5]: 0,
        b"": 0,
        b"\n": 0,
        b'{"settings": {}}\n' + b"".join(lines[1:]): 0,
    }
    for content, kept in damaged.items():
        journal.write_bytes(content)
        with pytest.raises(StoppedError):
            run(detector := StoppedAfter(1), images, tmp_path / "out")
        assert detector.calls == 1
        assert len(journal.read_bytes().splitlines()) == 1 + kept + 1, content[-40:]
    run(StoppedAfter(), images, tmp_path / "out")
    run(StoppedAfter(), images, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_images_that_changed_or_lost_their_copies_are_done_again(tmp_path: Path, images: Path) -> None:
    with pytest.raises(StoppedError):
        run(StoppedAfter(8), images, tmp_path / "out")
    make_image(images / "000.png", hw=(90, 90))
    (images / "001.png").unlink()
    (tmp_path / "out" / "002.png").unlink()
    (tmp_path / "out" / "003.png").write_bytes(b"")
    make_image(images / "0005.png", hw=(25, 25))
    summary = run(detector := StoppedAfter(), images, tmp_path / "out")
    assert detector.calls == (COUNT - 8) + 4
    names = [Path(image["source"]).name for image in summary["pictures"]]
    assert names == sorted(path.name for path in images.iterdir())
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == COUNT


@pytest.mark.parametrize("options", [{"keep": DetectionFilter(score=0.1)}, {"copies": False}])
def test_with_other_options_it_starts_anew(tmp_path: Path, images: Path, options: dict[str, Any]) -> None:
    with pytest.raises(StoppedError):
        run(StoppedAfter(8), images, tmp_path / "out")
    run(detector := StoppedAfter(), images, tmp_path / "out", **options)
    assert detector.calls == COUNT
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_an_image_that_could_not_be_read_is_tried_again(tmp_path: Path, images: Path) -> None:
    (images / "000.png").write_bytes(b"damaged")
    with pytest.raises(StoppedError):
        run(StoppedAfter(3), images, tmp_path / "out")
    make_image(images / "000.png", hw=(20, 30))
    summary = run(StoppedAfter(), images, tmp_path / "out")
    assert (len(summary["pictures"]), summary["skipped"]) == (COUNT, [])


def test_where_results_cannot_be_written_the_images_stay_finished(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        run(StoppedAfter(COUNT - 1), images, out)

    class Late(StoppedAfter):
        def __call__(self, frame: np.ndarray) -> Any:
            (out / "coco.json").mkdir()
            return super().__call__(frame)

    with pytest.raises(OutputError, match="cannot be written"):
        run(Late(), images, out)
    (out / "coco.json").rmdir()
    run(detector := StoppedAfter(), images, out)
    assert detector.calls == 0
    assert not (out / JOURNAL).exists()


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(SourceError):
        run(FakeDetector(), tmp_path / "a.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_anything_to_write_no_folder_is_made(tmp_path: Path, images: Path) -> None:
    summary = detect_images(FakeDetector(), [images], output_dir=tmp_path / "out", copies=False)  # type: ignore[arg-type]
    assert [image.output for image in summary.images] == [None] * COUNT
    assert not (tmp_path / "out").exists()


def test_two_runs_at_once_are_refused(tmp_path: Path, images: Path) -> None:
    with Journal(tmp_path / JOURNAL, {}, ("person",)) as journal:
        journal._open()
        with pytest.raises(OutputError, match="another run"):
            detect_images(FakeDetector(), [images], output_dir=tmp_path)  # type: ignore[arg-type]


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
from gfl_edge.media.annotate import detect_images
from tests.support.fake_detector import SlowDetector
detect_images(SlowDetector(0, 0.02), [sys.argv[1]], output_dir=sys.argv[2], formats=("coco", "csv", "jsonl", "yolo"))
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stopped(tmp_path: Path, images: Path, stop: int) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", SCRIPT, str(images), str(out)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    journal, deadline = out / JOURNAL, time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(stop)
    assert process.wait(60) != 0
    run(detector := FakeDetector(), images, out)
    assert 0 < detector.calls <= COUNT - 4
    run(FakeDetector(), images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
