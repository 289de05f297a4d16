"""Disks that are full or cannot be written: one sentence, and what was there before is there afterwards.

Where a small disk cannot be mounted, which takes root, no file may grow beyond a size instead.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.faults.case import Case
from benchmarks.faults.commands import COMMANDS, HEAVY, Command, check_whole, contents, left_over
from benchmarks.faults.fetch import DIGEST, server
from benchmarks.faults.inputs import inputs
from benchmarks.faults.process import Ended, disk_of, run

PARTS = (0.02, 0.6)  # of what a command writes that there is room for
HEAVY_PARTS = (0.3,)
PAGE_BYTES = 4096
DEVICES = ("/dev/full", "/dev/null")


def cases() -> Iterator[Case]:
    """See the module."""
    for command in COMMANDS:
        for part in HEAVY_PARTS if command in HEAVY else PARTS:
            name = f"room for {100 * part:.0f} % of the files"
            yield Case(name, f"{command.name}, no room", partial(_small_disk, command=command, part=part))
            yield Case(name, f"{command.name}, files limited", partial(_limited, command=command, part=part))
        yield Case("read-only", f"{command.name}, read-only", partial(_read_only, command=command))
        yield Case("a file in its place", f"{command.name}, no folder", partial(_no_folder, command=command))
    for part in PARTS:
        yield Case(f"room for {100 * part:.0f} %", "download, no room", partial(_download, part=part))
    for words in (["gfl-edge", "models", "--json"], ["gfl-edge", "doctor"]):
        yield Case(" ".join(words), "stdout, no room", partial(_full_stdout, words=words))


@functools.cache
def undisturbed(command: Command) -> Path:
    """The folder in which a command has run to its end."""
    folder = inputs() / f"undisturbed-{command.name}"
    folder.mkdir()
    ended = run(command.words(), folder)
    assert ended.status == 0, ended.stderr
    return folder / "out"


def _bytes(path: Path) -> list[int]:
    return [file.stat().st_size for file in path.rglob("*") if file.is_file()]


def _small_disk(folder: Path, command: Command, part: float) -> None:
    done = undisturbed(command)
    old = None if command.again else done  # a run of training does not write over another one
    pages = [-(-size // PAGE_BYTES) for size in _bytes(done)]
    spare = int(part * sum(pages)) + 4
    if old:  # the largest file is not to fit beside the old ones
        spare = sum(pages) + min(spare + 4, max(pages) - 1)
    with mounted(folder / "out", f"size={spare * PAGE_BYTES}", old):
        _check_refused(folder, command, run(command.words(), folder))


def _limited(folder: Path, command: Command, part: float) -> None:
    done = undisturbed(command)
    if not command.again:
        shutil.copytree(done, folder / "out")
    _check_refused(folder, command, run(command.words(), folder, disk_of(int(part * max(_bytes(done))))))


def _read_only(folder: Path, command: Command) -> None:
    with mounted(folder / "out", "ro", None if command.again else undisturbed(command)):
        _check_refused(folder, command, run(command.words(), folder))


def _no_folder(folder: Path, command: Command) -> None:
    (folder / "out").write_text("in its place")
    run(command.words(), folder).check_one_sentence()
    assert (folder / "out").read_text() == "in its place"


def _check_refused(folder: Path, command: Command, ended: Ended) -> None:
    """One sentence, the old files, and nothing else; of JSON lines and tables, which are followed, whole lines."""
    ended.check_one_sentence()
    check_whole(folder)
    assert not left_over(folder), f"left over: {left_over(folder)}"
    if command.again:
        return
    followed = (".jsonl", ".mp4", ".png", ".journal") if command.name in ("camera", "detect") else ()
    before, after = contents(undisturbed(command)), contents(folder / "out")
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert all(name.endswith(followed) for name in changed) if followed else not changed, f"changed: {changed}"


def _download(folder: Path, part: float) -> None:
    with mounted(folder / "out", f"size={int(part * 2_048_000)}", None), server() as url:
        words = [sys.executable, "-m", "benchmarks.faults.fetch", url, str(folder / "out" / "model.pth"), DIGEST]
        Ended.of(words, folder).check_one_sentence()
        assert not (folder / "out" / "model.pth").exists()


def _full_stdout(folder: Path, words: Sequence[str]) -> None:
    with Path("/dev/full").open("w") as full:
        Ended.of([sys.executable, "-m", "gfl_edge", *words[1:]], folder, stdout=full).check_one_sentence()


@contextmanager
def mounted(folder: Path, options: str, old: Path | None) -> Iterator[None]:
    """A small disk, with the files of ``old`` on it."""
    folder.mkdir()
    assert os.geteuid() == 0, "a disk can be mounted by root only"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options.replace("ro", "size=64m"), "tmpfs", folder], check=True)
    try:
        if old is not None:
            shutil.copytree(old, folder, dirs_exist_ok=True)
        if options == "ro":
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
