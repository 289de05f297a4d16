"""How many lines and branches do the tests of ``make test`` run, subprocesses included?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gfl_edge.errors import GflEdgeError

CHECKOUT = Path(__file__).resolve().parents[2]
WORKERS = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
ASKING = "tests/benchmarks/test_fingerprints.py"  # whether this was measured
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


class TestsFailedError(GflEdgeError):
    """What tests run is counted where all of them pass."""


def measure(folder: Path) -> dict[str, Any]:
    """Run the fast tests; shares by package, and of all.

    Raises:
        TestsFailedError: a test failed.
    """
    counted = folder / "coverage.json"
    report = ("--cov-report=term:skip-covered", f"--cov-report=json:{counted}")
    words = [sys.executable, "-m", "pytest", *WORKERS, "--ignore", ASKING, "--cov", *report]
    ended = subprocess.run(words, cwd=CHECKOUT, check=False)
    if ended.returncode != 0:
        raise TestsFailedError(f"pytest ended with status {ended.returncode}. Make the tests pass first: make test")
    return {"packages": rows(json.loads(counted.read_text())["files"])}


def rows(files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each package, then one of all.

    Args:
        files: of the JSON report of coverage.py, by path: ``summary`` with the counts.
    """
    packages = sorted({str(Path(path).parent) for path in files})
    grouped = {package: [path for path in files if str(Path(path).parent) == package] for package in packages}
    return [_row(name, [files[path]["summary"] for path in paths]) for name, paths in {**grouped, "all": files}.items()]


def _row(package: str, summaries: list[Mapping[str, int]]) -> dict[str, Any]:
    total = {count: sum(summary[count] for summary in summaries) for count in COUNTS}
    return {
        "package": package,
        **total,
        "lines_percent": _percent(total["covered_lines"], total["num_statements"]),
        "branches_percent": _percent(total["covered_branches"], total["num_branches"]),
    }


def _percent(covered: int, count: int) -> float | None:
    return round(100 * covered / count, 1) if count else None
