"""All faults, counted by kind: python benchmarks/run.py faults."""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.faults.case import Case
from gfl_edge.errors import InputError
from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

MODULES = ("kills", "disks", "cameras", "loads", "places", "limits", "changes")
BESIDE = ("cameras",)  # needs no inputs
RESULTS = Path(__file__).resolve().parents[1] / "results" / "faults.json"
SHOWN_CHARACTERS = 300  # of a reason


def measure(folder: Path, only: str | None = None, results: Path = RESULTS) -> dict[str, Any]:
    """Run the cases of every module, or of one; what each kind had of them: tried, held, failed.

    Args:
        folder: for the rows of each module as soon as it is done.
        only: the module; the rows of the others are those of ``results``.
        results: an earlier result, if it is there.

    Raises:
        InputError: no such module.
    """
    if only is not None and only not in MODULES:
        raise InputError(f"--only {only}: expected one of {', '.join(MODULES)}")
    earlier = json.loads(results.read_bytes())["rows"] if only is not None and results.is_file() else []
    rows = {module: [row for row in earlier if row["module"] == module] for module in MODULES}
    with _beside(folder, only):
        for module in (name for name in MODULES if only in (None, name) and name not in BESIDE):
            rows[module] = _rows_of(module, folder)
    for module in (name for name in BESIDE if only in (None, name)):
        rows[module] = _rows_of(module, folder)
    return {"rows": [row for module in MODULES for row in rows[module]]}


@contextmanager
def _beside(folder: Path, only: str | None) -> Iterator[None]:
    """While entered, and until it is finished, another process takes the module that waits most of its time."""
    started = [
        multiprocessing.get_context("spawn").Process(target=_rows_of, args=(module, folder))
        for module in BESIDE
        if only is None and not (folder / f"{module}.json").is_file()
    ]
    for process in started:
        process.start()
    yield
    for process in started:
        process.join()


def _rows_of(module: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of a module, from ``folder`` where an earlier run that was stopped left them."""
    kept = folder / f"{module}.json"
    if not kept.is_file():
        rows = count(module, importlib.import_module(f"benchmarks.faults.{module}").cases())
        write_atomically(kept, json_text(rows).encode())
    return list(json.loads(kept.read_text()))


def count(module: str, cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Run the cases, each in a folder of its own; a row for each kind, with the reasons of those that failed."""
    listed, rows = list(cases), dict[str, dict[str, Any]]()
    for case in track(listed, module, len(listed)):
        empty = {"module": module, "kind": case.kind, "tried": 0, "held": 0, "failed": 0, "seconds": 0.0, "reasons": []}
        row, start = rows.setdefault(case.kind, empty), time.monotonic()
        reason = _reason(case)
        row["tried"] += 1
        row["failed" if reason else "held"] += 1
        row["seconds"] = round(row["seconds"] + time.monotonic() - start, 2)
        if reason:
            logger.warning("%s, %s: %s", case.kind, case.name, reason)
            row["reasons"].append(f"{case.name}: {reason}")
    return list(rows.values())


def _reason(case: Case) -> str:
    """Why a case failed; "" if it held."""
    with tempfile.TemporaryDirectory(prefix="gfl-edge-fault-", ignore_cleanup_errors=True) as folder:
        try:
            case.run(Path(folder))
        except Exception as error:  # whatever it is, it is counted and named
            return f"{type(error).__name__}: {error}".replace(folder, "FOLDER")[:SHOWN_CHARACTERS]
    return ""
