"""Runs of a reader over many inputs, in processes that may die of them."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.fuzz import child
from tests.fuzz.child import PROGRESS
from tests.fuzz.limits import MAX_FAILURES, STUCK_SECONDS
from tests.fuzz.mutate import input_of
from tests.fuzz.reader import Reader

SHOWN_BYTES = 120
# Each run has a process of its own, forked from one that has loaded what takes longer than most runs
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.fuzz.loaded"])


@dataclass(frozen=True)
class Failure:
    """An input that a reader did not hold."""

    number: int
    problem: str
    content: bytes
    path: Path  # where it was saved

    def __str__(self) -> str:
        shown = f"{self.content[:SHOWN_BYTES]!r}{'...' if len(self.content) > SHOWN_BYTES else ''}"
        return f"input {self.number} ({len(self.content)} bytes, saved as {self.path}): {shown}\n{self.problem}"


@dataclass(frozen=True)
class Outcome:
    """What came of a run: executions that returned a value, that raised a GflEdgeError, and that did neither."""

    reader: str
    seed: int
    executions: int
    read: int
    refused: int
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        counts = f"{self.read} read, {self.refused} refused, {len(self.failures)} failed"
        head = f"{self.reader}, seed {self.seed}: {self.executions} executions: {counts}"
        again = f"python -m tests.fuzz --reader {self.reader} --seed {self.seed} --number"
        return "\n".join([head, *(f"\n{failure}\nAgain with: {again} {failure.number}" for failure in self.failures)])


def fuzz(reader: Reader, executions: int, seed: int, folder: Path, first: int = 0) -> Outcome:
    """Try inputs ``first`` to ``first + executions``; ``folder`` is for what is written, and keeps failing inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failures").write_text("")
    (folder / "progress").write_bytes(PROGRESS.pack(first, 0, 0))
    found: list[tuple[int, str]] = []
    end = first + executions
    while _where(folder)[0] < end and len(found) < MAX_FAILURES:
        died = _child(reader, seed, end, folder)
        lines = (json.loads(line) for line in (folder / "failures").read_text().splitlines())
        reported = [(line["number"], line["problem"]) for line in lines]
        number, read, refused = _where(folder)
        found = sorted({*reported, *(one for one in found if one not in reported), *([(number, died)] if died else [])})
        if not died:
            break
        (folder / "progress").write_bytes(PROGRESS.pack(number + 1, read, refused))
    number, read, refused = _where(folder)
    failures = tuple(_saved(reader, seed, number, problem, folder) for number, problem in found)
    return Outcome(reader.name, seed, number - first, read, refused, failures)


def _child(reader: Reader, seed: int, end: int, folder: Path) -> str | None:
    """Run it from where the last one came to; returns how it died, None if it did not."""
    (folder / child.SAID).touch()
    process = FORKS.Process(target=child.main, args=(reader.name, seed, _where(folder)[0], end, folder))
    process.start()
    stuck = _wait(process, folder)
    status = process.exitcode or 0
    process.close()
    tail = (folder / child.SAID).read_bytes()[-3000:].decode(errors="replace")
    if stuck:
        return f"did not end within {STUCK_SECONDS} s\n{tail}"
    assert status != 1, f"{reader.name}: the child could not start, or its first seed is refused:\n{tail}"
    if status < 0:
        return f"died of {signal.Signals(-status).name}\n{tail}"
    return f"ended with status {status}\n{tail}" if status else None


def _wait(process: BaseProcess, folder: Path) -> bool:
    """Until it ends, or is ended because nothing goes on; returns whether that was so."""
    place, since = _where(folder), time.monotonic()
    while True:
        process.join(0.5)
        if process.exitcode is not None:
            return False
        if _where(folder) != place:
            place, since = _where(folder), time.monotonic()
        elif time.monotonic() - since > STUCK_SECONDS:
            process.kill()
            process.join()
            return True


def _where(folder: Path) -> tuple[int, int, int]:
    number, read, refused = PROGRESS.unpack((folder / "progress").read_bytes())
    return number, read, refused


def _saved(reader: Reader, seed: int, number: int, problem: str, folder: Path) -> Failure:
    content = input_of(reader, reader.seed_contents(), seed, number)
    path = folder / f"{reader.name}-{seed}-{number}{reader.suffix}"
    path.write_bytes(content)
    return Failure(number, problem.strip(), content, path)
