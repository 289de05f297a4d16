"""Ctrl-C, SIGTERM and a terminal that is closed end a run, but tear nothing that it is writing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, Ctrl-C, SIGTERM and SIGHUP set ``requested``; while armed, the first is also a KeyboardInterrupt.

    SIGHUP comes where the terminal is closed or the connection to it is lost. Under ``nohup``, which ignores it, it
    still is. Only the main thread can do so; elsewhere nothing changes. Handlers of the application's own for Ctrl-C
    and SIGHUP stay.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._armed = True  # until what has to be closed well is open
        self._previous: dict[signal.Signals, Any] = {}

    def disarm(self) -> None:
        """From now on signals do not raise, so that a frame is in all outputs or in none."""
        self._armed = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within, they do, for code of the application's that may take long."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle)
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._handle)
            hangup = getattr(signal, "SIGHUP", None)  # Windows has none
            if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
                self._previous[hangup] = signal.signal(hangup, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)  # None: set by C code
