"""JSON lines: whole, one writer a file, and followed while the run lasts."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from gfl_edge.errors import InputError, OutputError
from gfl_edge.media.lines import JsonLinesSink, check_lines
from tests.support.media_files import lines_of


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    with JsonLinesSink(path) as sink:
        sink.write({"frame": 0})
        for second in (JsonLinesSink, check_lines):
            with pytest.raises(OutputError, match=r"out\.jsonl is being written by another run: give each run a file"):
                second(path)
        sink.write({"frame": 1})
    assert [record["frame"] for record in lines_of(path)] == [0, 1]
    check_lines(path)
    assert len(lines_of(path)) == 2
    with JsonLinesSink(path) as sink:
        sink.write({"frame": 7})
    assert [record["frame"] for record in lines_of(path)] == [7]


def test_a_check_leaves_no_trace(tmp_path: Path) -> None:
    check_lines(tmp_path / "new" / "out.jsonl")
    check_lines("-")
    assert not list(tmp_path.iterdir())


def test_a_log_may_be_cut_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLinesSink(path) as sink:
        sink.write({"frame": 0})
        os.truncate(path, 0)  # as logrotate does with copytruncate
        sink.write({"frame": 1})
    assert path.read_bytes() == b'{"frame": 1}\n'


@pytest.mark.parametrize("call", [JsonLinesSink, check_lines])
def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path: Path, call: type[JsonLinesSink]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a pipe that nobody reads: start its reader first"):
        call(tmp_path / "pipe")


def test_a_pipe_takes_more_than_it_holds(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    thread = threading.Thread(target=lambda: found.append(open(reader, "rb").read()))  # noqa: PTH123, SIM115
    with JsonLinesSink(tmp_path / "pipe") as sink:
        thread.start()
        for _ in range(3):
            sink.write({"text": "x" * 100_000})
    thread.join()
    assert len(found[0]) == 3 * len(b'{"text": ""}\n') + 300_000


def test_devices(tmp_path: Path) -> None:
    with JsonLinesSink("/dev/null") as first, JsonLinesSink("/dev/null"):
        first.write({"frame": 0})
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_json_is_not_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLinesSink(path) as sink:
        sink.write({"score": 0.5})
        with pytest.raises(InputError, match="cannot be written as JSON"):
            sink.write({"score": value})
    assert lines_of(path) == [{"score": 0.5}]
