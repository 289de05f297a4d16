"""What it takes to build engines on this CPU: seconds, bytes and peak memory per model, precision, GPU."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.artifacts.contents import contents
from benchmarks.models import export
from export.engine import EnginePrecision, EngineRequest, EngineResult
from gfl_edge.spec import Precision
from train.weights.find import CHECKPOINTS

TARGETS = ("sm75", "sm86")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
CHECKOUT = Path(__file__).resolve().parent.parent.parent

# Every build runs in a process of its own, whose peak memory the kernel counts. Not by getrusage: its maximum outlives
# exec, so that a child starts with the peak of its parent.
_CHILD = """
import pathlib, pickle, re, sys
from export.engine import build
request, result = map(pathlib.Path, sys.argv[1:])
built = build(pickle.loads(request.read_bytes()))
status = pathlib.Path("/proc/self/status").read_text()
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
result.write_bytes(pickle.dumps((built, peak)))
"""


@dataclass(frozen=True)
class Build:
    """A build and what it took."""

    request: EngineRequest
    result: EngineResult
    process_seconds: float
    peak_memory_bytes: int

    def row(self, name: str) -> dict[str, Any]:
        """As it stands in the results, for the model of that name."""
        sidecar = self.result.sidecar
        return {
            "model": name,
            "precision": self.request.precision,
            "target": ",".join(sidecar.targets),
            "flavor": sidecar.flavor,
            "tensorrt": sidecar.version,
            "build_seconds": sidecar.build_seconds,
            "process_seconds": round(self.process_seconds, 2),
            "engine_bytes": self.result.engine.stat().st_size,
            "convolutions": sidecar.convolutions,
            "int8_convolutions": sidecar.int8_convolutions,
            **contents(self.result.engine.read_bytes()),
            "onnx_bytes": self.result.onnx.stat().st_size,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def measure(folder: Path) -> dict[str, Any]:
    """Build every combination from an exported ONNX file; ``folder`` takes the files."""
    rows = []
    for name in CHECKPOINTS:
        for precision in PRECISIONS:
            onnx = export(name, folder, precision)
            rows += [build(onnx, precision, target, folder).row(name) for target in TARGETS]
    return {"rows": rows}


def build(onnx: Path, precision: EnginePrecision, target: str, folder: Path) -> Build:
    """Build one engine with TensorRT-RTX in a process of its own."""
    request = EngineRequest(onnx.resolve(), precision, folder.resolve(), (target,), "rtx")
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / name for name in ("request", "result")]
        files[0].write_bytes(pickle.dumps(request))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", _CHILD, *files], cwd=CHECKOUT, check=True)
        seconds = time.perf_counter() - start
        result, peak = pickle.loads(files[1].read_bytes())
    return Build(request, result, seconds, peak)
