"""The main thread's alternate signal stack, which OpenVINO leaves pointing at memory that it gives back."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Stack(ctypes.Structure):
    """``stack_t`` of signal.h."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's alternate signal stack back as it was before the block.

    OpenVINO's CPU plugin (2026.4) installs one of its own when it is loaded and unmaps it when it goes, from a thread
    that cannot uninstall it. Python runs its signal handlers there, so that the next Ctrl-C or ended child process
    would kill the program.
    """
    if sys.platform != "linux":
        yield
        return
    libc: Any = ctypes.CDLL(None)
    before = _Stack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)
