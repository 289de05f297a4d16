"""The two flavors of TensorRT, which share one API: full TensorRT and TensorRT-RTX."""

from __future__ import annotations

import logging
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING, Literal

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


def make_logger(flavor: Flavor, messages: deque[str]) -> trt.ILogger:
    """A logger that appends warnings and errors to ``messages`` and hands everything to :mod:`logging`."""
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
                messages.append(msg)
            # An error is at the same time the reason of an exception, so it is not for the user's eyes here
            _LOG.log(levels.get(severity, logging.INFO), "%s: %s", LIBRARY_OF[flavor], msg)

    return Logger()
