"""Interpreters of other versions, for tests that make environments of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Where pyenv keeps its versions, which need not be on the PATH
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


def find_python(version: str) -> str:
    """An interpreter of that version that can make environments; skips where there is none."""
    candidates = [*sorted(PYENV.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")]
    for python in filter(None, candidates):
        words = [str(python), "-c", "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(words, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return str(python)
    pytest.skip(f"no Python {version} with ensurepip, neither in {PYENV} nor on the PATH")
