"""Cameras and streams that stall, drop, change or lie: the run goes on, or ends with one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.faults.case import Case


def cases() -> Iterator[Case]:
    """See the module."""
    yield from ()
