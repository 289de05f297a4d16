"""What has to wait while a graph is captured.

The garbage collector may free memory of the GPU during any line. CUDA forbids that to a thread that captures, and voids
what it has captured so far.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    waiting: list[Callable[[], object]] | None = None  # None: this thread captures nothing


_THREAD = _Thread()


@contextmanager
def capturing() -> Iterator[None]:
    """For the time in which this thread captures; afterwards, all that had to wait is done."""
    waiting: list[Callable[[], object]] = []
    _THREAD.waiting = waiting
    try:
        yield
    finally:
        _THREAD.waiting = None
        for work in waiting:
            work()


def after_capture(work: Callable[[], object]) -> None:
    """Call ``work`` now, or, while this thread captures, as soon as it does not."""
    if _THREAD.waiting is None:
        work()
    else:
        _THREAD.waiting.append(work)
