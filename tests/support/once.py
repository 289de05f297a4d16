"""Files that the workers of pytest-xdist share: the first to need one writes it, the others wait for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(config: pytest.Config, base: Path) -> Path:
    """The folder of this session's shared files; ``base`` is the temporary folder of this process.

    A worker's own lies in that of its session. The environment does not say it: a pytest that a test of a worker starts
    inherits it and would take the files of earlier sessions.
    """
    return base.parent if hasattr(config, "workerinput") else base


def once(path: Path, write: Callable[[Path], object]) -> Path:
    """``path``, written by ``write`` unless it is there. A ``write`` that fails must leave no file."""
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write(path)
    return path
