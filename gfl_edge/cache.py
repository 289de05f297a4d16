"""The folder for what gfl_edge can get or make again: compiled kernels, downloaded weights."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "GFL_EDGE_CACHE"


def cache_folder() -> Path | None:
    """``GFL_EDGE_CACHE``, else ``gfl_edge`` in ``XDG_CACHE_HOME`` or ``~/.cache``; None for a user without a home."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "gfl_edge"
    try:
        return Path.home() / ".cache" / "gfl_edge"
    except RuntimeError:
        return None
