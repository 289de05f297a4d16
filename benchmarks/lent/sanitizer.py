"""The kernels under NVIDIA's compute-sanitizer: accesses beyond memory, and races."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TOOLS = {"memcheck": True, "racecheck": True, "synccheck": False}  # whether it must find what is planted
FOUND = 9  # exit status for errors that a tool found
SECONDS = 120  # for each tool


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """By tool, whether it found nothing, the end of what it said, and whether it found what was planted."""
    if shutil.which("compute-sanitizer") is None:
        return {"not_measured": "no compute-sanitizer on PATH"}
    found: dict[str, Any] = {}
    for tool, finds in TOOLS.items():
        done = _run(tool, "results", folder, "--small")
        found[tool] = {"clean": done.returncode == 0, "said": (done.stdout + done.stderr).splitlines()[-5:]}
        if finds:
            found[tool]["planted_found"] = _run(tool, "planted", folder).returncode == FOUND
    return found


def _run(tool: str, stage: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-m"]
    words += ["benchmarks.lent.child", stage, str(folder / f"{tool}.json"), *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
