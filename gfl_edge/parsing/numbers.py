"""Numbers that callers and command lines give: whole where they count, finite, and within what can be meant."""

from __future__ import annotations

import argparse
import math
import reprlib
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from gfl_edge.errors import InputError
from gfl_edge.redact import redact

MAX_COUNT = 10**9  # of images, frames: more are a slip
MAX_BATCH = 65536  # that an engine is built for
MAX_OFFLINE_BATCH = 4096  # that is measured, in the memory of one process
MAX_SEED = 2**32 - 1  # NumPy takes no negative ones
MAX_SIDE = 16384  # pixels of an input


def whole_number(name: str, value: Any, low: int = 1, high: int = MAX_COUNT) -> int:
    """``value`` if it is a whole number from ``low`` to ``high``, also NumPy's; raises InputError that names it."""
    if isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high:
        return int(value)
    raise InputError(f"{name} {reprlib.repr(value)}: expected {_whole(low, high)}")


def number(name: str, value: Any, low: float, high: float) -> float:
    """``value`` if it is a number from ``low`` to ``high``, also NumPy's; raises InputError that names it."""
    if isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) <= high:
        return float(value)
    raise InputError(f"{name} {reprlib.repr(value)}: expected {_real(low, high)}")


def whole_argument(low: int = 1, high: int = MAX_COUNT) -> Callable[[str], int]:
    """The type of an option of argparse that is such a whole number."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{reprlib.repr(redact(text))}: expected {_whole(low, high)}")
        return value

    return read


def number_argument(low: float, high: float) -> Callable[[str], float]:
    """The type of an option of argparse that is such a number."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{reprlib.repr(redact(text))}: expected {_real(low, high)}")
        return value

    return read


def whole_list_argument(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    """The type of an option of argparse that is such whole numbers with commas between them: "1,8"."""
    one = whole_argument(low, high)

    def read(text: str) -> tuple[int, ...]:
        try:
            return tuple(map(one, text.split(",")))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, or several with commas between them") from None

    return read


def _whole(low: int, high: int) -> str:
    return f"a whole number, {low}..{high}"


def _real(low: float, high: float) -> str:
    return f"{low:g}..{high:g}"
