"""The primary context of the GPU: one for the process, whatever opens the GPU and however often."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_RETAINED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by the library that reaches CUDA


def primary_context(library: Any, retain: Callable[[], Any]) -> Any:
    """The library's handle of the primary context, which ``retain`` takes the first time.

    TensorRT's CUDA runtime uses the same context, so that memory is shared with it. It is never released: TensorRT's
    objects and pinned arrays may outlive whatever opened the GPU, and a released context would take their memory along.
    """
    if library not in _RETAINED:
        context = retain()
        # Not at the end of the process either: pycuda would not know it for a primary context
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
        _RETAINED[library] = context
    return _RETAINED[library]
