"""Readers with a fault each, on which the harness is tried."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from gfl_edge.errors import InputError
from tests.fuzz.reader import Reader

GOOD = b"0123456789"


def _raises(path: Path) -> None:
    _ = 1 / len(path.read_bytes())


class _WordyError(InputError):
    """Says more than the base class lets pass."""

    def __str__(self) -> str:
        return "?" * 100_000


def _says_too_much(path: Path) -> None:
    if path.read_bytes() != GOOD:
        raise _WordyError


def _dies(path: Path) -> None:
    if path.read_bytes() == b"":
        ctypes.string_at(0)


def _exits(path: Path) -> None:
    if path.read_bytes() == b"":
        os._exit(3)


def _loops(path: Path) -> None:
    while path.read_bytes() == b"":
        pass


def _waits(path: Path) -> None:
    if path.read_bytes() == b"":
        time.sleep(3600)


def _takes_memory(path: Path) -> None:
    if path.read_bytes() == b"":
        bytearray(2 << 30)


BROKEN = {
    function.__name__: Reader(function.__name__, function, [GOOD])
    for function in (_raises, _says_too_much, _dies, _exits, _loops, _waits, _takes_memory)
}
