"""The least number that passes a test, found with few tries."""

from __future__ import annotations

from collections.abc import Callable


def fewest(limit: int, passes: Callable[[int], bool]) -> int | None:
    """The least count from 1 to ``limit`` that passes, if more never do worse; None where not even ``limit`` does.

    Tries 1, 2, 4, ... and then halves the gap.
    """
    failed, count = 0, 1
    while not passes(count):
        if count == limit:
            return None
        failed, count = count, min(2 * count, limit)
    return first(failed, count, passes)


def first(low: int, high: int, test: Callable[[int], bool]) -> int:
    """The least number up to ``high``, which passes, above ``low``, which does not; found by halving the gap."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test(middle) else (middle, high)
    return high
