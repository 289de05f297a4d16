"""Where TensorRT or TensorRT-RTX is: the bundled detector as an engine, and its report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from gfl_edge.engine.flavor import available_flavors


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """By flavor, what building and measuring said; the reports lie in ``folder``."""
    flavors = available_flavors()
    if small or not flavors:
        return {"not_measured": "no TensorRT is installed" if not flavors else "a dry run builds no engines"}
    return {flavor: _flavor(folder / flavor, flavor) for flavor in flavors}


def _flavor(folder: Path, flavor: str) -> dict[str, Any]:
    folder.mkdir()
    build = _command("build", "--flavor", flavor, "--target", "current", "-o", str(folder))
    engine = next(folder.glob("*.engine"), None)
    if engine is None:
        return {"build": build}
    return {"build": build, "bench": _command("bench", "--model", str(engine), "-o", str(folder / "report"))}


def _command(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "gfl_edge", *words], capture_output=True, text=True, check=False)
    return {"status": done.returncode, "said": (done.stdout + done.stderr).splitlines()[-20:]}
