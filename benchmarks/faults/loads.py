"""Many readers and writers of one file at once: each reader sees a whole one."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.faults.case import Case


def cases() -> Iterator[Case]:
    """See the module."""
    yield from ()
