"""The two flavors of TensorRT, which share one API: full TensorRT and TensorRT-RTX."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

from gfl_edge import optional

if TYPE_CHECKING:
    import tensorrt as trt

_LOG = logging.getLogger("tensorrt")  # not ours, so that the command line shows only its warnings

Flavor = Literal["tensorrt", "rtx"]
MODULE_OF: dict[Flavor, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
LIBRARY_OF: dict[Flavor, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}


def load_flavor(flavor: Flavor) -> ModuleType:
    """Import the Python module of a flavor.

    Both expose the API of ``tensorrt``. To have calls checked against its stubs, callers write::

        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = load_flavor(flavor)

    Raises:
        MissingDependencyError: it is not installed; names the extra.
    """
    return optional.load(MODULE_OF[flavor])


def available_flavors() -> tuple[Flavor, ...]:
    """The flavors that can be imported here, full TensorRT first."""
    return tuple(flavor for flavor, module in MODULE_OF.items() if optional.available(module))


class _Listener:
    """Who wants to know what TensorRT says, and on which thread."""

    def __init__(self, messages: deque[str]) -> None:
        self.messages = messages
        self.thread = threading.get_ident()


_LISTENERS: list[_Listener] = []
_LOGGERS: dict[ModuleType, Any] = {}


@contextmanager
def heard(messages: deque[str]) -> Iterator[None]:
    """Append TensorRT's warnings and errors to ``messages`` for a ``with`` block.

    Those of this thread, and those of TensorRT's own threads, of which it cannot be told whose work they do.
    """
    listener = _Listener(messages)
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


def _tell(message: str) -> None:
    thread, listeners = threading.get_ident(), list(_LISTENERS)
    of_thread = [listener for listener in listeners if listener.thread == thread]
    for listener in of_thread[-1:] or listeners:
        listener.messages.append(message)


def logger_of(flavor: Flavor) -> trt.ILogger:
    """The one logger of a flavor, which hands everything to :mod:`logging` and to those who listen by :func:`heard`.

    TensorRT keeps the first logger that it is given, calls no other, and calls it as long as the process lives.
    """
    library = load_flavor(flavor)
    if library not in _LOGGERS:
        _LOGGERS[library] = logger = _make_logger(flavor)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(logger))
    return cast("trt.ILogger", _LOGGERS[library])


def _make_logger(flavor: Flavor) -> trt.ILogger:
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = load_flavor(flavor)
    severity_of = trt.ILogger.Severity
    levels = {severity_of.WARNING: logging.INFO, severity_of.INFO: logging.DEBUG, severity_of.VERBOSE: logging.DEBUG}

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # TensorRT refuses super().__init__()

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity not in (severity_of.INFO, severity_of.VERBOSE):
                _tell(msg)
            # An error is at the same time the reason of an exception, so it is not for the user's eyes here
            _LOG.log(levels.get(severity, logging.INFO), "%s: %s", LIBRARY_OF[flavor], msg)

    return Logger()
