"""Commands that are killed at any moment: finished files are whole, and the next run leaves nothing else.

A process is killed the moment that it has a temporary file, or at a random one. Those that only write are killed often.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults.case import Case
from benchmarks.faults.commands import COMMANDS, HEAVY, Command, check_whole, left_over
from benchmarks.faults.fetch import CONTENT, DIGEST, server
from benchmarks.faults.inputs import inputs
from benchmarks.faults.process import CHECKOUT, MAX_SECONDS, environment, heed_signals, run, words_of
from benchmarks.faults.writing import START, WRITERS
from gfl_edge.files.partial import clean

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WRITER_KILLS = {"file": 40, "files that belong together": 40, "JSON lines": 20, "video": 20, "checkpoint": 6}
COMMAND_SECONDS = {
    "bench": 8.0,
    "to_onnx": 12.0,
    "calibrate": 10.0,
    "train": 10.0,
    "build": 4.0,
    "blend": 6.0,
}  # of a run, about
LIGHT_SECONDS = 2.5
DOWNLOAD_KILLS = 8


def cases() -> Iterator[Case]:
    """See the module."""
    chance = random.Random(0)
    for kind, count in WRITER_KILLS.items():
        row = f"{kind}, written again and again, killed"
        yield from _kills(row, partial(_kill_writer, kind=kind), [chance.uniform(0, 0.3) for _ in range(count)])
    yield from _kills("download, killed", _kill_download, [chance.uniform(0.2, 1.0) for _ in range(DOWNLOAD_KILLS)])
    for command in COMMANDS:
        longest, others = COMMAND_SECONDS.get(command.name, LIGHT_SECONDS), 1 if command in HEAVY else 2
        writing = 2 if command in HEAVY else len(SIGNALS)
        moments = [*(None,) * writing, *(chance.uniform(0, longest) for _ in range(others))]
        yield from _kills(f"{command.name}, killed", partial(_kill_command, command=command), moments)
        yield Case("once", f"{command.name}, next run after the kills", partial(_next_run, command=command))


def _kills(kind: str, kill: Callable[..., None], moments: Sequence[float | None]) -> Iterator[Case]:
    """Cases of ``kill(folder, how=, seconds=)``, by every signal in turn."""
    for number, seconds in enumerate(moments):
        how = SIGNALS[number % len(SIGNALS)]
        moment = "while it writes" if seconds is None else f"after {seconds:.3f} s"
        yield Case(f"{how.name} {moment}", kind, partial(kill, how=how, seconds=seconds))


def _kill_writer(folder: Path, kind: str, how: signal.Signals, seconds: float) -> None:
    words = [sys.executable, "-m", "benchmarks.faults.writing", kind, str(folder)]
    process = subprocess.Popen(
        words,
        cwd=CHECKOUT,
        env=environment(folder),
        preexec_fn=heed_signals,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().strip() == START
        time.sleep(seconds)
        process.send_signal(how)
        process.wait(MAX_SECONDS)
    check_whole(folder)
    clean(folder)  # what the next run does first
    assert not left_over(folder), f"left over: {left_over(folder)}"


def _kill_download(folder: Path, how: signal.Signals, seconds: float) -> None:
    path = folder / "model.pth"
    with server() as url:
        words: Sequence[str | Path] = [sys.executable, "-m", "benchmarks.faults.fetch", url, path, DIGEST]
        _start_and_kill(words, folder, how, seconds)
        assert not path.exists() or path.read_bytes() == CONTENT
        done = subprocess.run(
            list(map(str, words)), cwd=CHECKOUT, env=environment(folder), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert [found.name for found in folder.iterdir()] == ["model.pth"], f"left over: {list(folder.iterdir())}"


def _place(command: Command) -> Path:
    """Where all kills of a command happen, so that each meets what the others left."""
    folder = inputs() / f"killed-{command.name}"
    folder.mkdir(exist_ok=True)
    return folder


def _kill_command(folder: Path, command: Command, how: signal.Signals, seconds: float | None) -> None:
    folder = _place(command)
    _start_and_kill(words_of(command.next_words(folder)), folder, how, seconds)
    check_whole(folder)


def _start_and_kill(words: Sequence[str | Path], folder: Path, how: signal.Signals, seconds: float | None) -> None:
    """Kill a command after so many seconds; None: when it has begun to write a file."""
    process = subprocess.Popen(
        list(map(str, words)),
        cwd=folder,
        env=environment(folder),
        preexec_fn=heed_signals,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        deadline, before = time.monotonic() + (MAX_SECONDS if seconds is None else seconds), set(left_over(folder))
        while process.poll() is None and time.monotonic() < deadline:
            if seconds is None and set(left_over(folder)) - before:
                break
            time.sleep(0.002)
        process.send_signal(how)
        process.wait(MAX_SECONDS)


def _next_run(folder: Path, command: Command) -> None:
    folder = _place(command)
    ended = run(command.next_words(folder), folder)
    assert ended.status == 0, ended.stderr[-500:]
    check_whole(folder)
    assert not left_over(folder), f"left over: {left_over(folder)}"


assert WRITER_KILLS.keys() == WRITERS.keys()
