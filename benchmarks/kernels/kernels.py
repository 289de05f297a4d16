"""The CUDA kernels: registers, work done, lines tested and, on a GPU, times beside those of other ways."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernels import times as kernel_times
from benchmarks.kernels.inputs import PAIRS, KernelInput, made, real
from benchmarks.kernels.library import (
    TRAFFIC,
    WORK,
    EmulatedLibrary,
    cached_emulation,
    ptxas_report,
)
from gfl_edge.cuda import open_device
from gfl_edge.errors import GflEdgeError

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ARCHITECTURES = (
    "sm_75",
    "sm_80",
    "sm_86",
    "sm_87",
    "sm_88",
    "sm_89",
    "sm_90",
    "sm_100",
    "sm_103",
    "sm_110",
    "sm_120",
    "sm_121",
)
# What the kernels of an earlier commit did: the same rows, counted by the same emulation
BEFORE = Path(__file__).with_name("before.json")
MAX_ALL_PASS = 3598 * 80  # elements of which all are above the threshold
# anchors, classes, batch: one grows at a time
SIZES = (
    *((anchors, 80, 1) for anchors in (3598, 8400, 22400)),
    *((8400, classes, 1) for classes in (1, 20, 365)),
    *((3598, 80, batch) for batch in (2, 8)),
)


def measure(folder: Path) -> dict[str, Any]:
    """All of it; ``folder`` takes compiled files. What cannot be measured here says why."""
    return {
        "ptxas": _ptxas(folder),
        "lines_tested": _coverage(folder),
        "work": _work(),
        "times": _times(folder),
    }


def _ptxas(folder: Path) -> dict[str, Any]:
    if shutil.which("nvcc") is None:
        return {"not_measured": "no nvcc on PATH"}
    return {architecture: ptxas_report(architecture, folder) for architecture in ARCHITECTURES}


def _coverage(folder: Path) -> dict[str, Any]:
    """Lines of the sources of the kernels that tests/plugins runs in the emulation, by gcov."""
    if shutil.which("gcov") is None:
        return {"not_measured": "no gcov on PATH"}
    counters = folder / "coverage"
    counters.mkdir()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/plugins"]
    environment = {**os.environ, "GFL_EDGE_EMULATION": f"coverage:{counters}"}
    subprocess.run(
        [*words, "-k", "test_kernels and not (sanitizer or gpu or compile)"],
        cwd=CHECKOUT,
        env=environment,
        check=True,
        stdout=sys.stderr,
    )
    (data,) = counters.glob("*.gcda")
    words = ["gcov", "--json-format", "--stdout", data.name]
    report = json.loads(subprocess.run(words, cwd=counters, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {Path(row["file"]).name: _lines(row) for row in report["files"] if "/plugins/src/" in row["file"]}


def _lines(row: dict[str, Any]) -> dict[str, Any]:
    runs: dict[int, int] = {}  # a line of a template is listed once per instance
    for line in row["lines"]:
        runs[line["line_number"]] = max(runs.get(line["line_number"], 0), line["count"])
    missed = [number for number, count in sorted(runs.items()) if count == 0]
    return {"lines": len(runs), "run_percent": round(100 * (1 - len(missed) / len(runs)), 2), "never_run": missed}


def _work() -> dict[str, Any]:
    """How the work grows, counted in the emulation; a GPU does the same work."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return {"not_measured": "no C++ compiler for the emulation"}
    return {
        "made": f"logits with {PAIRS} pairs per image above 0.05, or all at threshold 0; boxes hardly overlap",
        "real": "two frames of a clip by the bundled detector; from 1000 candidates on the best",
        "rows": work_rows(EmulatedLibrary(cached_emulation(TRAFFIC))),
        "before": json.loads(BEFORE.read_text(encoding="utf-8")),
    }


def work_rows(library: EmulatedLibrary) -> list[dict[str, Any]]:
    """What each kernel does with each input, by an emulation that was built to count it."""
    inputs = [made(*size, np.float16) for size in SIZES]
    inputs += [made(*size, np.float16, 0.0) for size in SIZES if math.prod(size) <= MAX_ALL_PASS]
    return [{**one.named, **counted(library, one)} for one in (*inputs, *real())]


def counted(library: EmulatedLibrary, one: KernelInput) -> dict[str, Any]:
    """Of one call: by kernel what it did, and the longest way through all of them."""
    library.work()
    library.nms(one.params, **one.arrays)
    work = {name: {what: count for what, count in row.items() if count} for name, row in library.work().items()}
    # One block after another has to wait for the slowest block of the kernel before
    longest = {what: sum(row.get(what, 0) for row in work.values()) for what in WORK if what.startswith("block_")}
    return {"longest_way": longest, "kernels": work}


def _times(folder: Path) -> dict[str, Any]:
    try:
        device = open_device("cuda-python")  # only it has CUDA graphs
    except GflEdgeError as error:
        return {"not_measured": str(error)}
    if shutil.which("nvcc") is None:
        return {"not_measured": "no nvcc on PATH to build the library"}
    return kernel_times.measure(folder, device)
