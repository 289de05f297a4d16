"""Checkpoints, also other people's: found by name, read without executing anything, every key accounted for.

May import train.models, train.settings and gfl_edge. ``load_detector`` is the door; finding a file needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.weights.loading import load_detector

__all__ = ["load_detector"]


def __getattr__(name: str) -> Any:
    if name != "load_detector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from train.weights.loading import load_detector  # imports torch, which takes seconds

    return load_detector
