"""Commands with little memory, few files open at a time, without a home or a cache that can be written, and with a
stdout that nobody reads.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.faults.case import Case
from benchmarks.faults.commands import COMMANDS, LIGHT, Command, Words, check_whole, contents, left_over
from benchmarks.faults.disks import undisturbed
from benchmarks.faults.inputs import inputs
from benchmarks.faults.process import Ended, limited, run, words_of

MEMORY_BYTES = tuple(part << 20 for part in (300, 600, 900))  # of addresses; most of them are those of libraries
HANDLES = (9, 14, 32)
LEFT_OUT = ("skipped", "left out", "cannot be used")  # what is said of an image that cannot be read
WAITING = ("build",)  # TensorRT-RTX now and then waits for ever for a thread of its own that had no memory
ABORTED = (127, -6, -11)  # how libraries in C end without memory, the C library itself among them
CACHED = ("train", "detect", "eval")  # of the commands that look for something in the cache


def cases() -> Iterator[Case]:
    """See the module."""
    for command in LIGHT:
        for most in () if command.name in WAITING else MEMORY_BYTES:
            case = partial(_little_memory, command=command, most=most)
            yield Case(f"{command.name} with {most >> 20} MiB", "little memory", case)
        for most in HANDLES:
            case = partial(_few_handles, command=command, most=most)
            yield Case(f"{command.name} with {most} files", "few files open at a time", case)
    for command in COMMANDS:
        if command.name in CACHED:
            for what, spoil in CACHES.items():
                yield Case(command.name, f"cache, {what}", partial(_spoiled_cache, command=command, spoil=spoil))
    for name, words in SPEAKING.items():
        yield Case(name, "stdout, its reader left", partial(_nobody_reads, words=words))


def _little_memory(folder: Path, command: Command, most: int) -> None:
    """Done, or refused in a sentence, or ended by a library; in any case no file is cut."""
    ended = run(command.words(), folder, limited(resource.RLIMIT_AS, most))
    if ended.status not in ABORTED:
        ended.check_done_or_one_sentence()
    check_whole(folder)


def _few_handles(folder: Path, command: Command, most: int) -> None:
    """Done, or refused in a sentence; no image is left out for it."""
    ended = run(command.words(), folder, limited(resource.RLIMIT_NOFILE, most))
    ended.check_done_or_one_sentence()
    check_whole(folder)
    assert not left_over(folder), f"left over: {left_over(folder)}"
    if ended.status == 0:
        assert not any(words in ended.stderr for words in LEFT_OUT), f"left out: {ended.stderr[-300:]}"
        assert contents(folder / "out").keys() == contents(undisturbed(command)).keys()


def _without_home(folder: Path) -> Mapping[str, str | None]:
    return {"GFL_EDGE_CACHE": None, "XDG_CACHE_HOME": None, "HOME": "/proc/none"}


def _home_is_a_file(folder: Path) -> Mapping[str, str | None]:
    (folder / "home").touch()
    return {"GFL_EDGE_CACHE": None, "XDG_CACHE_HOME": None, "HOME": str(folder / "home")}


def _cache_is_a_file(folder: Path) -> Mapping[str, str | None]:
    (folder / "cache").touch()
    return {}


CACHES: dict[str, Callable[[Path], Mapping[str, str | None]]] = {
    "no home": _without_home,
    "a home that is a file": _home_is_a_file,
    "a file in its place": _cache_is_a_file,
}


def _spoiled_cache(folder: Path, command: Command, spoil: Callable[[Path], Mapping[str, str | None]]) -> None:
    """The command does what it does without."""
    ended = run(command.words(), folder, changes=spoil(folder))
    assert ended.status == 0, ended.stderr[-500:]
    assert "Traceback" not in ended.stderr, ended.stderr[-500:]
    assert contents(folder / "out").keys() == contents(undisturbed(command)).keys()


SPEAKING: dict[str, Callable[[], Words]] = {
    "models": lambda: ["gfl-edge", "models", "--json"],
    "doctor": lambda: ["gfl-edge", "doctor"],
    "camera": lambda: [
        *("gfl-edge", "camera", "--model", inputs() / "squares.onnx", "--backend", "onnxruntime", "--headless"),
        *("--source", inputs() / "clip.avi", "--json-lines", "-"),
    ],
    "detect": lambda: [
        *("gfl-edge", "detect", "--model", inputs() / "squares.onnx", "--backend", "onnxruntime", "-o", "out"),
        inputs() / "images",
    ],
    "evaluate": lambda: [
        *("train/evaluate.py", "--weights", inputs() / "run" / "last.pt"),
        *("--images", inputs() / "images", "--annotations", inputs() / "instances.json"),
    ],
}


def _nobody_reads(folder: Path, words: Callable[[], Words]) -> None:
    """It ends with status 1, and without a word more than of its progress."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        ended = Ended.of(words_of(words()), folder, stdout=stdout)
    assert ended.status == 1, f"status {ended.status}: {ended.stderr[-300:]}"
    assert "error" not in ended.stderr.lower(), ended.stderr[-300:]
    assert "Traceback" not in ended.stderr, ended.stderr[-300:]
