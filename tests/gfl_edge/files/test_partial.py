"""Temporary files of processes that were killed go; those of others stay, whatever their process numbers are."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfl_edge.files import check_output, partial, write_atomically
from gfl_edge.files.partial import PartialFile

HOLDING = """
import sys
from gfl_edge.files import whole_file
with whole_file(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    sys.stdin.read()
    temporary.write_bytes(b"whole")
"""


@pytest.fixture(autouse=True)
def a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "_looked_at", set())


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", HOLDING, str(tmp_path / "file.mp4")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_live_writers_file_stays_and_a_dead_ones_goes(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    left = tmp_path / holder.stdout.readline().strip()
    write_atomically(tmp_path / "other", b"")
    assert left.read_bytes() == b"half"
    holder.kill()
    holder.wait()
    write_atomically(tmp_path / "other", b"")  # the folder was looked at already
    assert left.exists()
    partial._looked_at.clear()
    check_output(tmp_path / "another")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_writer_who_was_let_be_finishes(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    write_atomically(tmp_path / "file.mp4", b"of another")
    holder.stdin.close()
    assert holder.wait() == 0
    assert (tmp_path / "file.mp4").read_bytes() == b"whole"


@pytest.mark.parametrize(
    "name",
    [
        "file.partial",
        ".gfl_edge.partial",
        ".gfl_edge-0123.partial",
        ".gfl_edge-0123456789abcdef.partial.x.y",
        ".a.1.partial.b",
    ],
)
def test_files_of_the_user_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    partial.clean(tmp_path)
    assert (tmp_path / name).exists()


def test_what_only_has_the_name_of_one_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"content")
    links = [tmp_path / f".gfl_edge-{number:016x}.partial" for number in range(3)]
    links[0].symlink_to("precious")
    os.mkfifo(links[1])
    links[2].mkdir()
    partial.clean(tmp_path)
    assert (tmp_path / "precious").read_bytes() == b"content"
    assert all(os.path.lexists(link) for link in links)


def test_who_cleans_up_between_making_and_locking_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = fcntl.flock, list[int]()

    def first_comes_another(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:  # another process finds the file, takes the lock and removes it
            (path,) = tmp_path.iterdir()
            partial._remove_orphan(path)
            assert not path.exists()
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", first_comes_another)
    file = PartialFile(tmp_path, ".png")
    assert file.path.exists()
    file.close()
    assert not list(tmp_path.iterdir())


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = tmp_path / ".gfl_edge-0123456789abcdef.partial"
    left.touch()
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert left.exists()
