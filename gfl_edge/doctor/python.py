"""Python itself, the package, and the folder for what is kept."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from gfl_edge._version import __version__
from gfl_edge.doctor.findings import Finding
from gfl_edge.files import CACHE_VARIABLE, cache_folder

SECTION = "Python"
MIN_VERSION = (3, 10)


def examine() -> list[Finding]:
    """Version, where gfl_edge lies, whether the cache can be written."""
    own = Finding(SECTION, "gfl_edge", "ok", f"{__version__} in {Path(__file__).resolve().parent.parent}")
    return [interpreter(sys.version_info[:2]), own, cache(cache_folder())]


def interpreter(version: tuple[int, int]) -> Finding:
    """Whether a Python of that version is new enough."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}"
    if version >= MIN_VERSION:
        return Finding(SECTION, "python", "ok", detail)
    remedy = "make a virtual environment with a newer one, such as: python3.12 -m venv .venv"
    return Finding(SECTION, "python", "problem", f"{detail}; gfl_edge needs 3.10 or newer", remedy)


def cache(folder: Path | None) -> Finding:
    """Whether kernels and weights can be kept in ``folder``; None: there is no home folder."""
    remedy = f"set {CACHE_VARIABLE} to a folder of yours"
    if folder is None:
        return Finding(SECTION, "cache", "problem", "no home folder: kernels are compiled at every start", remedy)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding(SECTION, "cache", "ok", str(folder))
    return Finding(SECTION, "cache", "problem", f"{folder} cannot be written", remedy)
