"""A measurement as one tree of plain values: ``report.json``, whose keys docs/report.md describes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gfl_edge import environment, optional
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.bench import paper
from gfl_edge.bench.device.counters import Counters
from gfl_edge.bench.device.machine import Machine, process_bytes
from gfl_edge.bench.device.open import open_counters
from gfl_edge.bench.frames import Frames, load_frames
from gfl_edge.bench.graph_cost import GraphCost, graph_cost
from gfl_edge.bench.measure import Case, make_case, run_cases, warnings
from gfl_edge.bench.protocols import ProtocolName, make_protocol
from gfl_edge.bench.roofline import ASSUMPTIONS, bounds, gpu_table
from gfl_edge.bench.timing import TOLERANCE
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.files import sha256
from gfl_edge.spec import ModelSpec, load_contract, read_spec

logger = logging.getLogger(__name__)

FORMAT = 1
DIGITS = 6  # significant ones of every number


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        models: .onnx or .engine files.
        protocol: see :data:`gfl_edge.bench.protocols.BOUNDARIES`.
        batches: measured as "offline", beside the protocol.
        images: folder of pictures; None: generated ones.
        annotations: COCO file of the pictures; None: AP is not measured.
        limit: AP on so many pictures only.
        seconds: of measuring for each model, protocol and batch.
        backend: what runs the models.
        nms: where NMS runs.
        seed: of generated pictures and of the order of turns.
        bound_only: .onnx files of which only the bound of other GPUs is computed.
    """

    models: tuple[Path, ...]
    protocol: ProtocolName = "stream"
    batches: tuple[int, ...] = ()
    images: Path | None = None
    annotations: Path | None = None
    limit: int | None = None
    seconds: float = 10.0
    backend: BackendName = "auto"
    nms: NmsChoice = "auto"
    seed: int = 0
    bound_only: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.annotations is not None and self.images is None:
            raise InputError(f"--annotations {self.annotations} without --images: AP needs the folder of its pictures")
        if any(batch < 1 for batch in self.batches):
            raise InputError(f"--batch {','.join(map(str, self.batches))}: expected numbers from 1 on")
        if not (self.models or self.bound_only):
            raise InputError("no model: give at least one with --model")
        if not 0 < self.seconds < math.inf:
            raise InputError(f"--seconds {self.seconds:g}: expected a positive number")


def bench(request: BenchRequest, command: list[str] | None = None, progress: bool = True) -> dict[str, Any]:
    """Measure, and return the report as plain values.

    Args:
        request: what to measure.
        command: words for the report; default those of this process.
        progress: draw progress lines on stderr.

    Raises:
        GflEdgeError: a model, folder or annotation file cannot be used; see :class:`gfl_edge.detector.Detector` and
            :func:`gfl_edge.evaluation.ap.evaluate`.
    """
    started = datetime.now(timezone.utc)
    frames = load_frames(request.images, request.seed)
    with ExitStack() as stack:
        models = [stack.enter_context(_Model(path, request)) for path in request.models]
        _name_apart(models)
        machine = Machine()
        cases = [case for model in models for case in model.cases(request, frames)]
        runs = run_cases(cases, request.seconds, request.seed, progress)
        disturbed = machine.summary()
        rows = [*(model.row(request, progress) for model in models), *map(_bound_row, request.bound_only)]
    report = {
        "format": FORMAT,
        "time_utc": started.isoformat(timespec="seconds"),
        **environment.describe(command),
        "settings": _settings(request, frames),
        "machine": disturbed,
        "warnings": warnings(disturbed, runs),
        "models": rows,
        "runs": runs,
        "paper": paper.rows(rows, runs),
        "paper_sources": list(paper.SOURCES),
        "real_time_fps": paper.REAL_TIME_FPS,
        "gpus": gpu_table(),
        "bound_assumptions": list(ASSUMPTIONS),
    }
    plain: dict[str, Any] = _rounded(report)
    return plain


class _Model:
    """A model that is loaded, with the counters of its device."""

    def __init__(self, path: Path, request: BenchRequest) -> None:
        self.path, before = path, process_bytes()
        self.detector = Detector(path, request.backend, request.nms)
        self.counters: Counters = open_counters(self.detector.backend)
        self._device_bytes = self.counters.memory_bytes()
        after = process_bytes()
        self._host_bytes = None if before is None or after is None else after - before
        # What the file is: the detector's description says what is left of it where NMS was cut off for the host
        self.id = (read_spec(path) if path.suffix == ".onnx" else self.detector.spec).file_stem

    def __enter__(self) -> _Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.counters.close()
        self.detector.close()

    def cases(self, request: BenchRequest, frames: Frames) -> list[Case]:
        """The protocol, and a batch each."""
        kinds: list[tuple[ProtocolName, int]] = [] if request.protocol == "offline" else [(request.protocol, 1)]
        kinds += [("offline", batch) for batch in request.batches or ((1, 8) if request.protocol == "offline" else ())]
        for _, batch in kinds:
            most = self.detector.backend.max_batch
            if most is not None and batch > most:
                raise InputError(
                    f"--batch {batch}: {self.path} takes {most} at most. Rebuild it with a larger --max-batch"
                )
        return [
            make_case(self.id, make_protocol(name, self.detector, frames, batch), self.counters)
            for name, batch in kinds
        ]

    def row(self, request: BenchRequest, progress: bool) -> dict[str, Any]:
        """What the report says about the model itself."""
        described = self.detector.describe()
        memory = {"host_bytes": self._host_bytes, "device_bytes_in_use": self._device_bytes}
        source = self.path if self.path.suffix == ".onnx" else None
        return {
            **_model_row(self.id, described["model"], self.path, self.detector.spec),
            "backend": described["backend"],
            "memory": memory,
            "accuracy": self._accuracy(request, progress),
            **_bounds(source, self.detector.spec.input_hw),
        }

    def _accuracy(self, request: BenchRequest, progress: bool) -> dict[str, Any] | None:
        if request.annotations is None or request.images is None:
            return None
        found = evaluate(self.detector, request.images, request.annotations, request.limit, progress).to_dict()
        found.pop("ms_per_image")  # the times of this report are those of its runs
        metrics = {name: found.pop(name) for name in list(found) if name.startswith("A")}
        return {"annotations": request.annotations.name, **found, "metrics": metrics}


def _name_apart(models: Sequence[_Model]) -> None:
    """Put the file's name behind the ids that several models share."""
    ids = [model.id for model in models]
    for model in models:
        if ids.count(model.id) > 1:
            model.id = f"{model.id} ({model.path.name})"
    again = [model.id for model in models]
    if len(set(again)) < len(again):
        double = next(name for name in again if again.count(name) > 1)
        raise InputError(f"{double} is given twice. Give every model once, or rename one of the files")


def _bound_row(path: Path) -> dict[str, Any]:
    """A model that does not run here."""
    spec = load_contract(path)[1]
    described = {
        "name": spec.name,
        "file": path.name,
        "sha256": sha256(path),
        "precision": spec.precision,
        "quantized_layers": spec.quantized_layers,
        "nms": spec.nms,
        "score_threshold": spec.score_threshold,
        "iou_threshold": spec.iou_threshold,
    }
    row = _model_row(f"{spec.file_stem} (bound only)", described, path, spec)
    return {**row, "backend": None, "memory": None, "accuracy": None, **_bounds(path, spec.input_hw)}


def _model_row(name: str, described: dict[str, Any], path: Path, spec: ModelSpec) -> dict[str, Any]:
    return {"id": name, **described, "size_bytes": path.stat().st_size, "input_hw": list(spec.input_hw)}


def _bounds(path: Path | None, input_hw: tuple[int, int]) -> dict[str, Any]:
    """Cost and bounds of the graph; None where there is only an engine, or onnx is not installed."""
    if path is None or not optional.available("onnx"):
        return {"cost": None, "bounds": []}
    cost = graph_cost(load_contract(path)[0], input_hw)
    return {"cost": _cost_row(cost), "bounds": [asdict(found) for found in bounds(cost)]}


def _cost_row(cost: GraphCost) -> dict[str, Any]:
    macs = {f"{precision}_macs": cost.macs.get(precision, 0) for precision in ("fp32", "bf16", "fp16", "int8")}
    return {**asdict(cost), "macs": sum(cost.macs.values()), **macs}


def _settings(request: BenchRequest, frames: Frames) -> dict[str, Any]:
    return {
        "protocol": request.protocol,
        "batches": list(request.batches),
        "seconds": request.seconds,
        "warm_up_tolerance": TOLERANCE,
        "seed": request.seed,
        "frames": frames.describe(),
        "annotations": None if request.annotations is None else request.annotations.name,
    }


def _rounded(value: Any) -> Any:
    """The same with ``DIGITS`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value


def announce(report: dict[str, Any]) -> None:
    """Log what makes the numbers doubtful."""
    for warning in report["warnings"]:
        logger.warning("%s", warning)
