"""What a report holds: ``report.json`` as types. Measuring makes them, presenting reads them.

docs/report.md describes every key; a field has the name of its key. Only :meth:`Report.to_dict` and
:meth:`Report.from_dict` know that there is JSON. A field with a default is one that not every report has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from gfl_edge.errors import InputError
from gfl_edge.report.plain import from_plain, to_plain

FORMAT = 1  # changes when a key goes or changes its meaning

ProtocolName = Literal["stream", "offline", "gfocal"]
BOUNDARIES: dict[ProtocolName, str] = {
    "stream": "one frame at a time, from a BGR frame in memory to its detections, resize included; reading the file "
    "and drawing are timed beside it",
    "offline": "batches, from BGR frames in memory to their detections, resize included",
    "gfocal": "batch 1, as GFocal's tools/benchmark.py: from an input that is resized already to detections in pixels "
    "of the frame: upload, forward, decode and NMS; no image loading, no resize",
}

StageName = Literal["read", "resize", "upload", "network", "nms", "download", "other", "draw"]
RUN_STAGES: tuple[StageName, ...] = get_args(StageName)
OUTSIDE_STAGES: tuple[StageName, ...] = ("read", "draw")  # not part of the latency

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True)
class Host:
    """The machine that measured."""

    cpu: str
    cores: int
    system: str


@dataclass(frozen=True)
class FramesUsed:
    """The images that times were taken on; sizes are pixels, height and width."""

    origin: Literal["files", "generated"]
    folder: str | None
    count: int
    seed: int | None
    smallest_hw: tuple[int, int]
    largest_hw: tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """How it was measured."""

    protocol: ProtocolName
    batches: tuple[int, ...]
    seconds: float
    warm_up_tolerance: float
    seed: int
    frames: FramesUsed
    annotations: str | None


@dataclass(frozen=True)
class MachineLoad:
    """How busy the machine was with other things; None: the system does not say."""

    cores: int
    load_average_1min: float | None
    cpu_percent_of_others: float | None
    cpu_percent_stolen: float | None
    process_peak_bytes: int | None


@dataclass(frozen=True)
class BackendUsed:
    """What ran a model; the last two are those of GPUs."""

    name: str
    library: str
    version: str
    device: str
    driver: str | None = None
    cuda: str | None = None


@dataclass(frozen=True)
class Memory:
    """What loading a model added to the process, and what the GPU had in use then."""

    host_bytes: int | None
    device_bytes_in_use: int | None


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """COCO numbers in percent of ``images`` images, None without boxes of a size; early versions lack ``left_out``."""

    annotations: str
    images: int
    skipped: tuple[str, ...]
    left_out: tuple[str, ...] | None = None
    metrics: dict[str, float | None]

    def __post_init__(self) -> None:
        """Read -1, which early versions wrote where there was no box of a size, as None."""
        metrics = {name: None if value == -1 else value for name, value in self.metrics.items()}
        object.__setattr__(self, "metrics", metrics)

    @property
    def ap(self) -> float | None:
        """COCO AP, percent; None where there was no box."""
        return self.metrics["AP"]


@dataclass(frozen=True)
class Cost:
    """Of one image: multiply-accumulates, all and by the precision that they compute in, and bytes."""

    macs: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    traffic_bytes: int
    unknown_tensors: int
    fp32_macs: int
    bf16_macs: int
    fp16_macs: int
    int8_macs: int


@dataclass(frozen=True)
class Bound:
    """What a GPU cannot do better.

    Attributes:
        gpu: its name.
        compute_ms: of only the multiplications; None where the GPU cannot compute in the graph's precision.
        memory_ms: of only the bytes.
        bound_ms: the larger one; None likewise.
        bound_fps: images per second at ``bound_ms``; None where that is None or 0.
        unfused_ms: what it would take if every operation read and wrote memory: no bound, but what fusion can save.
        limit: what the bound comes from; None where there is none.
    """

    gpu: str
    compute_ms: float | None
    memory_ms: float
    bound_ms: float | None
    bound_fps: float | None
    unfused_ms: float | None
    limit: Literal["compute", "memory"] | None


@dataclass(frozen=True)
class ModelRow:
    """A model file; backend and memory are None of one that did not run here, cost of one that is an engine."""

    id: str  # what runs refer to
    name: str
    file: str
    sha256: str
    precision: str  # what is not INT8 computes in it
    quantized_layers: int
    nms: str
    score_threshold: float
    iou_threshold: float
    size_bytes: int
    input_hw: tuple[int, int]
    backend: BackendUsed | None
    memory: Memory | None
    accuracy: Accuracy | None
    cost: Cost | None
    bounds: tuple[Bound, ...]


@dataclass(frozen=True)
class Latency:
    """How long the runs of one case took.

    Attributes:
        samples: how many runs were timed.
        seconds: their sum.
        mean_ms: arithmetic mean.
        std_ms: standard deviation of the population.
        cv: std_ms / mean_ms.
        min_ms: shortest.
        max_ms: longest.
        p5_ms: percentiles, by linear interpolation between the samples, as :func:`numpy.percentile` has them.
        p25_ms: likewise.
        p50_ms: likewise.
        p75_ms: likewise.
        p90_ms: likewise.
        p95_ms: likewise.
        p99_ms: likewise.
        fps: images per second: all images by the sum of all times, not a mean of ratios.
    """

    samples: int
    seconds: float
    mean_ms: float
    std_ms: float
    cv: float
    min_ms: float
    max_ms: float
    p5_ms: float
    p25_ms: float
    p50_ms: float
    p75_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    fps: float


@dataclass(frozen=True)
class StageRow:
    """Milliseconds of a stage; None: it was not measured, and ``note`` says why."""

    name: StageName
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    note: str


@dataclass(frozen=True)
class WarmUp:
    """What happened before the first run that counts.

    Attributes:
        runs: that were made.
        seconds: that they took.
        stable: whether the medians of the last windows agreed; False where the patience ended before.
        difference: of these medians, (largest - smallest) / smallest; None with too few windows.
        tolerance: what was requested.
    """

    runs: int
    seconds: float
    stable: bool
    difference: float | None
    tolerance: float


@dataclass(frozen=True)
class Range:
    """A counter while the model ran."""

    name: str
    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class Missing:
    """A counter that is not there."""

    what: str
    why: str


@dataclass(frozen=True)
class DeviceCounters:
    """What the device said about itself while the model ran; what it does not say is in ``missing``."""

    source: str
    clocks_mhz: tuple[Range, ...]
    temperatures_c: tuple[Range, ...]
    powers_w: tuple[Range, ...]
    energy_per_image_j: float | None
    energy_from: Literal["counter", "power"] | None
    throttled: bool | None
    throttle_reasons: tuple[str, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class Run:
    """One model by one protocol and batch."""

    model: str  # id of the ModelRow
    protocol: ProtocolName
    boundaries: str
    differences: tuple[str, ...]
    batch: int
    latency: Latency
    stages: tuple[StageRow, ...]
    warm_up: WarmUp
    device: DeviceCounters

    def stage(self, name: StageName) -> StageRow:
        """The row of that stage."""
        return next(row for row in self.stages if row.name == name)


@dataclass(frozen=True)
class PaperRun:
    """The fastest run of a paper's network here."""

    model: str  # id of the ModelRow
    device: str
    fps: float
    ratio: float | None
    real_time: bool
    ap: float | None


@dataclass(frozen=True)
class PaperRow:
    """A model of the papers: AP in percent, FPS of PyTorch on an RTX 2080 Ti; None: not published."""

    name: str
    ap_minival: float | None
    ap_test_dev: float | None
    fps: float | None
    target: bool
    here: PaperRun | None


@dataclass(frozen=True)
class GpuPeaks:
    """What a GPU can do at most, at its boost clock and without sparsity.

    Attributes:
        name: as NVIDIA sells it.
        fp32_tera_ops: 10^12 operations a second, a multiply-accumulate being two; None: it cannot. TF32 on tensor cores
            where it has them, which TensorRT may use for FP32.
        bf16_tera_ops: likewise.
        fp16_tera_ops: likewise.
        int8_tera_ops: likewise.
        bandwidth_gb_s: of its memory, 10^9 bytes a second.
        l2_bytes: of its last cache.
        source: of the figures.
    """

    name: str
    fp32_tera_ops: float | None
    bf16_tera_ops: float | None
    fp16_tera_ops: float | None
    int8_tera_ops: float | None
    bandwidth_gb_s: float
    l2_bytes: int
    source: str

    def tera_ops(self, precision: Precision) -> float | None:
        """10^12 operations a second in ``precision``; None: it cannot."""
        return {
            "fp32": self.fp32_tera_ops,
            "bf16": self.bf16_tera_ops,
            "fp16": self.fp16_tera_ops,
            "int8": self.int8_tera_ops,
        }[precision]


@dataclass(frozen=True)
class Report:
    """Everything that ``gfl-edge bench`` finds out."""

    format: int
    time_utc: str  # of the start, ISO 8601
    device: Host
    versions: dict[str, str]
    command: str
    settings: Settings
    machine: MachineLoad
    warnings: tuple[str, ...]  # what makes these numbers doubtful
    models: tuple[ModelRow, ...]
    runs: tuple[Run, ...]
    paper: tuple[PaperRow, ...]
    paper_sources: tuple[str, ...]
    real_time_fps: float
    gpus: tuple[GpuPeaks, ...]
    bound_assumptions: tuple[str, ...]
    commit: str | None = None  # of gfl_edge's own source, as its committed results record it
    fingerprint: dict[str, str] | None = None  # see benchmarks/fingerprints.py

    def model_of(self, run: Run) -> ModelRow:
        """The model that ran."""
        return next(model for model in self.models if model.id == run.model)

    def main_runs(self) -> list[Run]:
        """One run of each model: that of the protocol, with the smallest batch."""
        found: dict[str, Run] = {}
        for run in self.runs:
            if run.protocol == self.settings.protocol:
                found.setdefault(run.model, run)
        return list(found.values())

    def to_dict(self) -> dict[str, Any]:
        """The tree of ``report.json``; numbers have six significant digits."""
        tree: dict[str, Any] = to_plain(self)
        return tree

    @classmethod
    def from_dict(cls, tree: Any) -> Report:
        """The report of a tree.

        Raises:
            InputError: it is of another format, a key is missing, unknown or of another type, or a run is of a model
                that is not there; names the key.
        """
        found = tree.get("format") if isinstance(tree, dict) else None
        if found is not None and found != FORMAT:
            raise InputError(f"format {found}, this gfl_edge reads {FORMAT}. Measure again")
        report = from_plain(cls, tree, "report")
        models = [model.id for model in report.models]
        for index, run in enumerate(report.runs):
            if run.model not in models:
                known = ", ".join(map(repr, models))
                raise InputError(f"report.runs[{index}].model is {run.model!r}, expected one of {known}")
        return report
