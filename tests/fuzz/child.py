"""The process in which a reader gets its inputs, under limits; started by :mod:`tests.fuzz.parent`.

Where it is says a file of three 64-bit numbers, which outlives any signal: the number of the input, and how many were
read and refused. What failed goes into another one, a line of JSON each.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import mmap
import os
import resource
import signal
import struct
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gfl_edge.errors import GflEdgeError
from tests.fuzz.broken import BROKEN
from tests.fuzz.limits import MAX_FAILURES, MAX_GROWTH_BYTES, MAX_MESSAGE_CHARS, MAX_SECONDS
from tests.fuzz.mutate import input_of
from tests.fuzz.reader import Reader
from tests.fuzz.registry import all_readers

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRESS = struct.Struct("<qqq")  # number, read, refused
SAID = "said"  # what is written on standard streams goes there, Python's last words at a signal too


class TooLongError(BaseException):
    """An execution took more than its time; no Exception, so that no reader takes it for a bad file."""


def main(name: str, seed: int, first: int, end: int, folder: Path) -> None:
    """Run the reader of that name in this process, which ends with it."""
    with (folder / SAID).open("wb") as said:
        for standard in (1, 2):
            os.dup2(said.fileno(), standard)
    os.chdir(CHECKOUT)
    faulthandler.enable()
    logging.basicConfig(stream=Path("/dev/null").open("w"), level=logging.INFO)  # noqa: SIM115  # formats as users see it
    logging.raiseExceptions = True
    run(({**all_readers(), **BROKEN})[name], seed, first, end, folder)


def run(reader: Reader, seed: int, first: int, end: int, folder: Path) -> None:
    """Executions ``first`` to ``end``; writes folder/progress and folder/failures."""
    path, seeds, failures = folder / f"input{reader.suffix}", reader.seed_contents(), 0
    path.write_bytes(seeds[0])
    reader.read(path)  # the first seed is good, and what is loaded once does not count as growth
    limit_address_space()
    peak = peak_bytes()
    with progress_file(folder) as progress:
        for number in range(first, end):
            _, read, refused = PROGRESS.unpack(progress[:])
            progress[:] = PROGRESS.pack(number, read, refused)
            content = input_of(reader, seeds, seed, number)
            problem, was_read = execute(reader, path, content)
            if problem is None and peak_bytes() > peak + MAX_GROWTH_BYTES:
                peak, problem = peak_bytes(), f"more than {MAX_GROWTH_BYTES >> 20} MB of memory"
            progress[:] = PROGRESS.pack(number + 1, read + was_read, refused + (problem is None and not was_read))
            if problem is not None:
                with (folder / "failures").open("a") as file:
                    file.write(json.dumps({"number": number, "problem": problem}) + "\n")
                failures += 1
            if failures == MAX_FAILURES:
                return


def execute(reader: Reader, path: Path, content: bytes) -> tuple[str | None, bool]:
    """What went wrong, None if nothing did; and whether the input was read."""
    path.write_bytes(content)
    try:
        with time_limit():
            reader.read(path)
    except GflEdgeError as error:
        message = str(error)
        if not message.strip() or len(message) > MAX_MESSAGE_CHARS:
            return f"{type(error).__name__} of {len(message)} characters: {message[:200]!r}", False
        return None, False
    except TooLongError:
        return f"more than {MAX_SECONDS} s of computing\n{traceback.format_exc()[-1500:]}", False
    except (Exception, SystemExit, KeyboardInterrupt):
        return traceback.format_exc()[-3000:], False
    return None, True


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TooLongError where Python code computes for longer; the parent sees to other code and to waiting."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)  # of the processor, as others may use it, too
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_address_space() -> None:
    """Let allocations fail that would take this process beyond its growth."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MAX_GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def progress_file(folder: Path) -> Iterator[mmap.mmap]:
    """folder/progress, in memory."""
    with (folder / "progress").open("r+b") as file, mmap.mmap(file.fileno(), PROGRESS.size) as progress:
        yield progress
