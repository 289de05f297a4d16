"""The kernels under NVIDIA's compute-sanitizer: accesses beyond memory, and races."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 9  # exit status for errors that a tool found
SECONDS = 120  # for each tool


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """By tool, whether it found nothing, and the end of what it said."""
    if shutil.which("compute-sanitizer") is None:
        return {"not_measured": "no compute-sanitizer on PATH"}
    found = {}
    for tool in TOOLS:
        words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-m"]
        words += ["benchmarks.lent.child", "results", str(folder / f"{tool}.json"), "--small"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        found[tool] = {"clean": done.returncode == 0, "said": (done.stdout + done.stderr).splitlines()[-5:]}
    return found
