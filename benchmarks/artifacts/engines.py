"""What it takes to build engines on this CPU: seconds, bytes and peak memory per model, precision and GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from benchmarks.models import export
from gfl_edge.engine.sidecar import sidecar_path
from gfl_edge.spec import Precision
from train.weights.find import CHECKPOINTS

TARGETS = ("sm75", "sm86")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
CHECKOUT = Path(__file__).resolve().parent.parent.parent

# Every build runs in a process of its own, whose peak memory the kernel counts. Not by getrusage: its maximum outlives
# exec, so that a child starts with the peak of its parent.
_CHILD = """
import pathlib, re, runpy, sys
sys.argv = ["export/to_trt.py", *sys.argv[1:]]
try:
    runpy.run_path("export/to_trt.py", run_name="__main__")
except SystemExit as done:
    status = pathlib.Path("/proc/self/status").read_text()
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]))
    raise done
"""


def measure(folder: Path) -> dict[str, Any]:
    """Build every combination from an exported ONNX file; ``folder`` takes the files."""
    rows = []
    for name in CHECKPOINTS:
        for precision in PRECISIONS:
            onnx = export(name, folder, precision)
            rows += [build(name, precision, target, onnx, folder) for target in TARGETS]
    return {"rows": rows}


def build(name: str, precision: Precision | Literal["int8"], target: str, onnx: Path, folder: Path) -> dict[str, Any]:
    """Build one engine with TensorRT-RTX by the command that users run, and say what it took."""
    option = [] if precision == "fp32" else [f"--{precision}"]
    words = ["--onnx", str(onnx), *option, "--target", target, "--flavor", "rtx", "-o", str(folder)]
    start = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *words], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - start
    engine, peak = child.stdout.split()
    sidecar = json.loads(sidecar_path(engine).read_text())
    return {
        "model": name,
        "precision": precision,
        "target": target,
        "flavor": sidecar["flavor"],
        "tensorrt": sidecar["version"],
        "build_seconds": sidecar["build_seconds"],
        "process_seconds": round(seconds, 2),
        "engine_bytes": Path(engine).stat().st_size,
        "onnx_bytes": onnx.stat().st_size,
        "peak_memory_bytes": int(peak),
    }
