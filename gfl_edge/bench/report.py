"""Measures model files and makes the report of it: the function that ``gfl-edge bench`` calls."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from gfl_edge import environment, optional
from gfl_edge.annotations.checks import OnBad
from gfl_edge.annotations.records import Annotations
from gfl_edge.backends.nms import NmsChoice, nms_place
from gfl_edge.backends.select import BackendName
from gfl_edge.bench import paper
from gfl_edge.bench.device.counters import Counters, Recorder
from gfl_edge.bench.device.machine import LoadMeter, process_bytes
from gfl_edge.bench.device.open import ON_CPU, open_counters
from gfl_edge.bench.frames import FrameSet, load_frames
from gfl_edge.bench.graph_cost import graph_cost
from gfl_edge.bench.measure import Case, run_cases, warnings
from gfl_edge.bench.protocols import make_protocol
from gfl_edge.bench.roofline import ASSUMPTIONS, GPUS, bounds
from gfl_edge.bench.timing import MIN_GPU_SECONDS, TOLERANCE
from gfl_edge.detector import Detector
from gfl_edge.engine.sidecar import ENGINE_SUFFIX
from gfl_edge.errors import InputError
from gfl_edge.evaluation.ap import evaluate_on, rounded
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.files import sha256
from gfl_edge.parsing.numbers import MAX_OFFLINE_BATCH, MAX_SEED, number, whole_number
from gfl_edge.parsing.validation import build
from gfl_edge.report.schema import (
    FORMAT,
    Accuracy,
    BackendUsed,
    Host,
    Memory,
    ModelRow,
    ProtocolName,
    Report,
    Settings,
)
from gfl_edge.spec import ModelSpec, load_contract, read_spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        models: .onnx or .engine files.
        protocol: see :data:`gfl_edge.report.schema.BOUNDARIES`.
        batches: measured as "offline", beside the protocol.
        images: folder of images; None: generated ones.
        annotations: COCO file of the images; None: AP is not measured.
        limit: AP on only so many images.
        on_bad: see :func:`gfl_edge.annotations.checks.check_annotations`.
        seconds: of measuring for each model, protocol and batch.
        backend: what runs the models.
        nms: where NMS runs.
        seed: of generated images and of the order of turns.
        bound_only: .onnx files of which only the bound of other GPUs is computed.
    """

    models: tuple[Path, ...]
    protocol: ProtocolName = "stream"
    batches: tuple[int, ...] = ()
    images: Path | None = None
    annotations: Path | None = None
    limit: int | None = None
    on_bad: OnBad = "error"
    seconds: float = 10.0
    backend: BackendName = "auto"
    nms: NmsChoice = "auto"
    seed: int = 0
    bound_only: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.annotations is not None and self.images is None:
            raise InputError(f"--annotations {self.annotations} without --images: AP needs the folder of its images")
        for batch in self.batches:
            whole_number("--batch", batch, 1, MAX_OFFLINE_BATCH)
        whole_number("--seed", self.seed, 0, MAX_SEED)
        if not (self.models or self.bound_only):
            raise InputError("no model: give at least one with --model")
        number("--seconds", self.seconds, 0.001, 86400)

    def truth(self) -> Annotations | None:
        """What AP is computed on, checked; None where it is not measured."""
        if self.annotations is None or self.images is None:
            return None
        return read_truth(self.annotations, self.images, self.limit, self.on_bad)

    def settings(self, frames: FrameSet) -> Settings:
        """For the report; ``frames`` are those that times are taken on."""
        return Settings(
            protocol=self.protocol,
            batches=self.batches,
            seconds=self.seconds,
            warm_up_tolerance=TOLERANCE,
            seed=self.seed,
            frames=frames.describe(),
            annotations=None if self.annotations is None else self.annotations.name,
        )


def bench(request: BenchRequest, command: list[str] | None = None, progress: bool = True) -> Report:
    """Measure, and log as warnings what makes the numbers doubtful.

    Args:
        request: what to measure.
        command: words for the report; default those of this process.
        progress: draw progress lines on stderr.

    Raises:
        GflEdgeError: a model, folder or annotation file cannot be used; see :class:`gfl_edge.detector.Detector` and
            :func:`gfl_edge.evaluation.ap.evaluate`.
        MissingDependencyError: psutil is not installed, which the extra ``report`` brings.
    """
    started = datetime.now(timezone.utc)
    truth = request.truth()  # before minutes of measuring
    frames = load_frames(request.images, request.seed)
    with ExitStack() as stack:
        models = [stack.enter_context(_Model(path, request)) for path in request.models]
        _name_apart(models)
        if truth is not None:
            for model in models:
                match_categories(truth, model.detector.spec.class_names)
        load = LoadMeter()
        cases = [case for model in models for case in model.cases(request, frames)]
        runs = run_cases(cases, request.seconds, request.seed, progress)
        machine = load.summary()
        rows = [model.row(truth, progress) for model in models]
    for path in request.bound_only:
        spec = read_spec(path)
        rows.append(_model_row(f"{spec.file_stem} (bound only)", path, spec, spec.nms))
    measured_on = environment.describe(command)
    report = Report(
        format=FORMAT,
        time_utc=started.isoformat(timespec="seconds"),
        device=Host(**measured_on["device"]),
        versions=measured_on["versions"],
        command=measured_on["command"],
        settings=request.settings(frames),
        machine=machine,
        warnings=tuple(warnings(machine, runs)),
        models=tuple(rows),
        runs=tuple(runs),
        paper=paper.rows(rows, runs),
        paper_sources=paper.SOURCES,
        real_time_fps=paper.REAL_TIME_FPS,
        gpus=GPUS,
        bound_assumptions=ASSUMPTIONS,
    )
    for warning in report.warnings:
        logger.warning("%s", warning)
    return Report.from_dict(report.to_dict())  # with the digits that its file has


class _Model:
    """A model that is loaded, with the counters of its device."""

    def __init__(self, path: Path, request: BenchRequest) -> None:
        self.path, before = path, process_bytes()
        self.detector = Detector(path, request.backend, request.nms)
        self._offline: Detector | None = None  # another, for throughput
        self.counters: Counters = open_counters(self.detector.backend)
        self._device_bytes = self.counters.memory_bytes()
        self._host_bytes = process_bytes() - before
        # What the file is: the detector's description says what is left of it where NMS was cut off for the host
        self.id = (read_spec(path) if path.suffix == ".onnx" else self.detector.spec).file_stem

    def __enter__(self) -> _Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.counters.close()
        self.detector.close()
        if self._offline is not None:
            self._offline.close()

    def cases(self, request: BenchRequest, frames: FrameSet) -> list[Case]:
        """The protocol, and a batch each."""
        kinds: list[tuple[ProtocolName, int]] = [] if request.protocol == "offline" else [(request.protocol, 1)]
        kinds += [("offline", batch) for batch in request.batches or ((1, 8) if request.protocol == "offline" else ())]
        for _, batch in kinds:
            most = self.detector.backend.max_batch
            if most is not None and batch > most:
                raise InputError(
                    f"--batch {batch}: {self.path} takes {most} at most. Rebuild it with a larger --max-batch"
                )
        least_seconds = 0.0 if self.detector.backend.name in ON_CPU else MIN_GPU_SECONDS
        protocols = [make_protocol(name, self._detector_for(name, request), frames, batch) for name, batch in kinds]
        return [Case(self.id, protocol, Recorder(self.counters), least_seconds) for protocol in protocols]

    def _detector_for(self, protocol: ProtocolName, request: BenchRequest) -> Detector:
        if protocol != "offline" or self.detector.backend.name not in ON_CPU:
            return self.detector
        self._offline = self._offline or Detector(self.path, request.backend, request.nms, "throughput")
        return self._offline

    def row(self, truth: Annotations | None, progress: bool) -> ModelRow:
        """What the report says about the model itself."""
        accuracy = None
        if truth is not None:
            found = evaluate_on(truth, self.detector, progress)
            accuracy = Accuracy(
                annotations=Path(truth.origin).name,
                images=found.images,
                skipped=found.skipped,
                left_out=found.left_out,
                metrics=rounded(found.metrics),
            )
        return replace(
            _model_row(self.id, self.path, self.detector.spec, nms_place(self.detector.backend)),
            backend=build(BackendUsed, self.detector.describe()["backend"], "backend"),
            memory=Memory(self._host_bytes, self._device_bytes),
            accuracy=accuracy,
        )


def _name_apart(models: Sequence[_Model]) -> None:
    """Put the file's name after the ids that several models share."""
    ids = [model.id for model in models]
    for model in models:
        if ids.count(model.id) > 1:
            model.id = f"{model.id} ({model.path.name})"
    again = [model.id for model in models]
    if len(set(again)) < len(again):
        double = next(name for name in again if again.count(name) > 1)
        raise InputError(f"{double} is given twice. Give every model once, or rename one of the files")


def _model_row(name: str, path: Path, spec: ModelSpec, nms: str) -> ModelRow:
    """What the file says; cost and bounds are those of a graph, which an engine does not hold."""
    cost = None
    if path.suffix != ENGINE_SUFFIX and optional.available("onnx"):
        cost = graph_cost(load_contract(path)[0], spec.input_hw)
    return ModelRow(
        id=name,
        name=spec.name,
        file=path.name,
        sha256=sha256(path),
        precision=spec.precision,
        quantized_layers=spec.quantized_layers,
        nms=nms,
        score_threshold=spec.score_threshold,
        iou_threshold=spec.iou_threshold,
        size_bytes=path.stat().st_size,
        input_hw=spec.input_hw,
        backend=None,
        memory=None,
        accuracy=None,
        cost=None if cost is None else cost.row(),
        bounds=() if cost is None else bounds(cost),
    )
