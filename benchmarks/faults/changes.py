"""What changes while a command runs: folders that go, disks that are taken away, models and images that are replaced.

A command does what it was to do, or ends with one sentence; finished files are whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.faults.case import Case
from benchmarks.faults.commands import COMMANDS, HEAVY, LIGHT, Command, check_whole, left_over
from benchmarks.faults.disks import mounted
from benchmarks.faults.inputs import inputs
from benchmarks.faults.process import MAX_SECONDS, Ended, environment, run, words_of

AT_ONCE = 2  # of the same command
PAUSE_SECONDS = 0.002
WORKER_KILLS = {"the first at once": 0.0, "the second later": 2.0}
CLEANED = ("detect", "batch", "eval", "camera", "train", "bench")  # that write for a while


def cases() -> Iterator[Case]:
    """See the module."""
    for command in COMMANDS:
        if command.name in CLEANED:
            yield Case(command.name, "the folder is removed", partial(_removed, command=command))
            if os.geteuid() == 0:
                yield Case(command.name, "the disk is taken away", partial(_taken_away, command=command))
    for command in (*LIGHT, *(one for one in HEAVY if one.name in ("train", "to_coco", "calibrate"))):
        yield Case(command.name, f"the same command {AT_ONCE} times at once", partial(_at_once, command=command))
    for number, (name, seconds) in enumerate(WORKER_KILLS.items()):
        case = partial(_worker_killed, number=number, seconds=seconds)
        yield Case(name, "train, a process that prepares batches is killed", case)
    for how in REPLACED:
        for what in ("model", "images", "annotations"):
            yield Case(how, f"{what}, replaced while they are read", partial(_replaced, what=what, how=how))


@contextmanager
def _started(words: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _ended(process: subprocess.Popen[str]) -> Ended:
    _, said = process.communicate(timeout=MAX_SECONDS)
    return Ended(process.returncode, "", said)


def _until_it_writes(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait for something below ``folder``, or for the end of the process."""
    deadline = time.monotonic() + MAX_SECONDS
    while process.poll() is None and time.monotonic() < deadline and not any(folder.rglob("*")):
        time.sleep(PAUSE_SECONDS)


def _removed(folder: Path, command: Command) -> None:
    """As somebody tidies up."""
    with _started(words_of(command.words()), folder) as process:
        _until_it_writes(process, folder / "out")
        shutil.rmtree(folder / "out", ignore_errors=True)
        _ended(process).check_done_or_one_sentence()
    check_whole(folder)


def _taken_away(folder: Path, command: Command) -> None:
    """As a stick is pulled out: what is open goes on for nobody, and under the name is an empty folder."""
    with mounted(folder / "out", "size=64m", None):
        with _started(words_of(command.words()), folder) as process:
            _until_it_writes(process, folder / "out")
            subprocess.run(["umount", "--lazy", folder / "out"], check=True)
            _ended(process).check_done_or_one_sentence()
        check_whole(folder)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "out"], check=True)  # for who takes it away at last


def _at_once(folder: Path, command: Command) -> None:
    """One at least does what it was to do, the others too, or end with one sentence."""
    words = words_of(command.words())
    with _started(words, folder) as first, _started(words, folder) as second:
        ended = [_ended(process) for process in (first, second)]
    for one in ended:
        one.check_done_or_one_sentence()
    assert any(one.status == 0 for one in ended), ended[0].stderr[-300:]
    check_whole(folder)
    assert not left_over(folder), f"left over: {left_over(folder)}"


def _worker_killed(folder: Path, number: int, seconds: float) -> None:
    """As by a system without memory: one sentence, which says what to do."""
    settings = [f'data.root="{inputs()}"', 'train.output="out"', "train.workers=2", "train.epochs=1000"]
    with _started(words_of(["train/train.py", inputs() / "run.toml", "--set", *settings]), folder) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + MAX_SECONDS
        while len(found := children.read_text().split()) < 2 and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        time.sleep(seconds)
        os.kill(int(found[number]), signal.SIGKILL)
        ended = _ended(process)
    assert ended.status == 1, f"status {ended.status}: {ended.stderr[-500:]}"  # PyTorch may show a traceback before
    assert "--shm-size" in ended.stderr.rstrip().rpartition("\n")[2], ended.stderr[-500:]
    check_whole(folder)


def _renamed(path: Path, content: bytes) -> None:
    """As this project writes files, and careful others."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def _written_over(path: Path, content: bytes) -> None:
    """As ``cp`` does: for a moment half of it is there."""
    path.write_bytes(content[: len(content) // 2])
    time.sleep(PAUSE_SECONDS)
    path.write_bytes(content)


def _removed_and_back(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    time.sleep(PAUSE_SECONDS)
    path.write_bytes(content)


REPLACED: dict[str, Callable[[Path, bytes], None]] = {
    "by a new name": _renamed,
    "written over": _written_over,
    "removed and back": _removed_and_back,
}


def _replaced(folder: Path, what: str, how: str) -> None:
    """Again and again, while an evaluation runs; where nobody ever sees half of a file, it is one that succeeds."""
    for name in ("images", "instances.json", "squares.onnx"):
        (shutil.copytree if name == "images" else shutil.copy)(inputs() / name, folder / name)
    targets = {
        "model": [folder / "squares.onnx"],
        "images": sorted((folder / "images").iterdir()),
        "annotations": [folder / "instances.json"],
    }[what]
    old = {path: path.read_bytes() for path in targets}
    over = threading.Event()

    def replace() -> None:
        while not over.is_set():
            for path, content in old.items():
                REPLACED[how](path, content)
                time.sleep(PAUSE_SECONDS)

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        words = ["gfl-edge", "eval", "--backend", "onnxruntime", "--model", "squares.onnx"]
        ended = run([*words, "--images", "images", "--annotations", "instances.json", "-o", "out"], folder)
    finally:
        over.set()
        replacing.join()
    ended.check_done_or_one_sentence()
    if how == "by a new name":
        assert ended.status == 0, ended.stderr[-300:]
    with suppress(FileNotFoundError):
        check_whole(folder / "out")
