"""Many readers and writers at once: each reader sees a whole file, and no writer takes another's.

The processes of containers that share a volume may have the same number; where a process may have a namespace of its
own, which takes root, they have it here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults.case import Case
from benchmarks.faults.commands import left_over
from benchmarks.faults.fetch import CONTENT, DIGEST, server
from benchmarks.faults.process import CHECKOUT, MAX_SECONDS, environment
from benchmarks.faults.writing import is_sealed
from gfl_edge.media.lines import JsonLinesSink

WRITERS_AT_ONCE = (2, 4, 8)
DOWNLOADS_AT_ONCE = (2, 6)
SECONDS = 3.0
ROUNDS = 2
LINES = "lines.jsonl"
# Each writes some files under a number of its own, and looks for what others left before each
CLEANING = """
import sys
from pathlib import Path
from gfl_edge.files import partial, write_atomically
for number in range(150):
    partial._looked_at.clear()
    write_atomically(Path(sys.argv[1]) / f"{sys.argv[2]}-{number}.txt", b"content")
"""
FOLLOWED = """
import itertools, sys
from gfl_edge.media.lines import JsonLinesSink
with JsonLinesSink(sys.argv[1]) as sink:
    for index in itertools.count():
        sink.write({"frame": index, "text": "x" * 100})
"""


def cases() -> Iterator[Case]:
    """See the module."""
    for kind in ("file", "files that belong together", "video"):
        for writers in WRITERS_AT_ONCE:
            for number in range(ROUNDS):
                case = partial(_write_and_read, kind=kind, writers=writers)
                yield Case(f"{writers} writers, {number}", f"{kind}, writers and a reader at once", case)
    for writers in WRITERS_AT_ONCE:
        case = partial(_one_writer_of_lines, writers=writers)
        yield Case(f"{writers} writers", "JSON lines, writers of one file", case)
        yield Case(f"{writers} writers", "writers that clean up at once", partial(_clean_at_once, writers=writers))
        if os.geteuid() == 0 and shutil.which("unshare"):
            case = partial(_clean_at_once, writers=writers, before=("unshare", "--pid", "--fork"))
            yield Case(f"{writers} writers", "writers of the same process number", case)
    for downloads in DOWNLOADS_AT_ONCE:
        yield Case(f"{downloads} at once", "downloads of one file", partial(_download_at_once, downloads=downloads))
    yield Case("a reader that follows", "JSON lines, followed", _follow)


def _start(words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=CHECKOUT, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _write_and_read(folder: Path, kind: str, writers: int) -> None:
    words = [sys.executable, "-m", "benchmarks.faults.writing", kind, str(folder)]
    started = [_start(words, folder) for _ in range(writers)]
    reads, deadline = 0, time.monotonic() + MAX_SECONDS
    try:
        while not list(folder.glob("[a-z]*.*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for path in folder.glob("[a-z]*.*"):
                _check_read(path.read_bytes(), path.suffix)
                reads += 1
        dead = [process.stderr.read() for process in started if process.poll() is not None and process.stderr]
    finally:
        _kill(started)
    assert not dead, dead[0][-300:]
    assert reads > 10, f"only {reads} reads"


def _check_read(content: bytes, suffix: str) -> None:
    if suffix == ".bin":
        assert is_sealed(content), f"a cut file of {len(content)} bytes was read"
    else:
        assert b"moov" in content, f"a video without an index, of {len(content)} bytes, was read"


def _kill(started: Sequence[subprocess.Popen[str]]) -> None:
    for process in started:
        process.kill()
        process.communicate()


def _one_writer_of_lines(folder: Path, writers: int) -> None:
    """The first has the file; the others end with one sentence."""
    words = [sys.executable, "-m", "benchmarks.faults.writing", "JSON lines", str(folder)]
    with JsonLinesSink(folder / LINES) as sink:
        sink.write({"frame": 0})
        started = [_start(words, folder) for _ in range(writers)]
        messages = [process.communicate(timeout=MAX_SECONDS)[1] for process in started]
    assert all("is being written by another run: give each run a" in said for said in messages), messages
    assert (folder / LINES).read_text() == '{"frame": 0}\n'


def _clean_at_once(folder: Path, writers: int, before: Sequence[str] = ()) -> None:
    started = [
        _start([*before, sys.executable, "-c", CLEANING, str(folder), str(number)], folder) for number in range(writers)
    ]
    messages = [process.communicate(timeout=MAX_SECONDS)[1] for process in started]
    assert all(process.returncode == 0 for process in started), messages
    assert len(list(folder.glob("*.txt"))) == 150 * writers
    assert not left_over(folder)


def _download_at_once(folder: Path, downloads: int) -> None:
    path = folder / "model.pth"
    with server() as url:
        words = [sys.executable, "-m", "benchmarks.faults.fetch", url, str(path), DIGEST]
        started = [_start(words, folder) for _ in range(downloads)]
        messages = [process.communicate(timeout=MAX_SECONDS)[1] for process in started]
    assert all(process.returncode == 0 for process in started), messages
    assert path.read_bytes() == CONTENT
    assert [found.name for found in folder.iterdir()] == ["model.pth"]


def _follow(folder: Path) -> None:
    """What a reader has of a file at any time are whole lines, except the last."""
    process = _start([sys.executable, "-c", FOLLOWED, str(folder / LINES)], folder)
    try:
        deadline, path = time.monotonic() + MAX_SECONDS, folder / LINES
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    json.loads(line)
    finally:
        _kill([process])
