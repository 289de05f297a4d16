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
OLDEST = (3, 10)


def examine() -> list[Finding]:
    """Version, where gfl_edge lies, whether the cache can be written."""
    return [_python(sys.version_info[:2]), _package(), _cache(cache_folder())]


def _python(version: tuple[int, int]) -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}"
    if version >= OLDEST:
        return Finding(SECTION, "python", "ok", detail)
    remedy = "make a virtual environment with a newer one, such as: python3.12 -m venv .venv"
    return Finding(SECTION, "python", "problem", f"{detail}; gfl_edge needs 3.10 or newer", remedy)


def _package() -> Finding:
    return Finding(SECTION, "gfl_edge", "ok", f"{__version__} in {Path(__file__).resolve().parent.parent}")


def _cache(folder: Path | None) -> Finding:
    remedy = f"set {CACHE_VARIABLE} to a folder of yours"
    if folder is None:
        return Finding(SECTION, "cache", "problem", "no home folder: kernels are compiled at every start", remedy)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding(SECTION, "cache", "ok", str(folder))
    return Finding(SECTION, "cache", "problem", f"{folder} cannot be written", remedy)
