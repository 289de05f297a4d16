"""What a report holds: ``report.json`` as types. Measuring makes them, presenting reads them.

docs/report.md describes every key; a field has the name of its key. Only :meth:`Report.to_dict` and
:meth:`Report.from_dict` know that there is JSON. A field with a default is one that not every report has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from gfl_edge.errors import InputError
from gfl_edge.parsing.fields import Amount, Count, Limits, Natural, NotNegative, Positive, Share
from gfl_edge.parsing.validation import build, shown
from gfl_edge.report.bounds import Bound, Cost, GpuPeaks
from gfl_edge.report.plain import to_plain

FORMAT = 1  # changes when a key goes or changes its meaning

ProtocolName = Literal["stream", "offline", "gfocal"]
BOUNDARIES: dict[ProtocolName, str] = {
    "stream": "one frame at a time, from a BGR frame in memory to its detections, resize included; reading the file "
    "and drawing are timed beside it",
    "offline": "batches, on a CPU several under way at once, from BGR frames in memory to their detections, resize "
    "included; the time of one is that since the one before",
    "gfocal": "batch 1, as GFocal's tools/benchmark.py: from an input that is resized already to detections in pixels "
    "of the frame: upload, forward, decode and NMS; no image loading, no resize",
}

StageName = Literal["read", "resize", "upload", "network", "nms", "download", "other", "draw"]
RUN_STAGES: tuple[StageName, ...] = get_args(StageName)
OUTSIDE_STAGES: tuple[StageName, ...] = ("read", "draw")  # not part of the latency

Percent = Annotated[float, Limits(ge=-1, le=100)]  # -1 in early versions, see Accuracy


@dataclass(frozen=True)
class Host:
    """The machine that measured."""

    cpu: str
    cores: Count
    system: str


@dataclass(frozen=True)
class FramesUsed:
    """The images that times were taken on; sizes are pixels, height and width."""

    origin: Literal["files", "generated"]
    folder: str | None
    count: Amount
    seed: int | None
    smallest_hw: tuple[Count, Count]
    largest_hw: tuple[Count, Count]


@dataclass(frozen=True)
class Settings:
    """How it was measured."""

    protocol: ProtocolName
    batches: tuple[Count, ...]
    seconds: NotNegative
    warm_up_tolerance: NotNegative
    seed: int
    frames: FramesUsed
    annotations: str | None


@dataclass(frozen=True)
class MachineLoad:
    """How busy the machine was with other things; None: the system does not say."""

    cores: Count
    load_average_1min: NotNegative | None
    cpu_percent_of_others: NotNegative | None
    cpu_percent_stolen: NotNegative | None
    process_peak_bytes: Natural | None


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
    device_bytes_in_use: Natural | None


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """COCO numbers in percent of ``images`` images, None without boxes of a size; early versions lack ``left_out``."""

    annotations: str
    images: Amount
    skipped: tuple[str, ...]
    left_out: tuple[str, ...] | None = None
    metrics: dict[str, Percent | None]

    def __post_init__(self) -> None:
        """Read -1, which early versions wrote where there was no box of a size, as None."""
        if "AP" not in self.metrics:
            raise ValueError("metrics: AP is missing")
        metrics = {name: None if value == -1 else value for name, value in self.metrics.items()}
        object.__setattr__(self, "metrics", metrics)

    @property
    def ap(self) -> float | None:
        """COCO AP, percent; None where there was no box."""
        return self.metrics["AP"]


@dataclass(frozen=True)
class ModelRow:
    """A model file; backend and memory are None of one that did not run here, cost of one that is an engine."""

    id: str  # what runs refer to
    name: str
    file: str
    sha256: str
    precision: str  # what is not INT8 computes in it
    quantized_layers: Amount
    nms: str
    score_threshold: Share
    iou_threshold: Share
    size_bytes: Natural
    input_hw: tuple[Count, Count]
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

    samples: Count
    seconds: NotNegative
    mean_ms: NotNegative
    std_ms: NotNegative
    cv: NotNegative
    min_ms: NotNegative
    max_ms: NotNegative
    p5_ms: NotNegative
    p25_ms: NotNegative
    p50_ms: Positive
    p75_ms: NotNegative
    p90_ms: NotNegative
    p95_ms: NotNegative
    p99_ms: NotNegative
    fps: Positive


@dataclass(frozen=True)
class StageRow:
    """Milliseconds of a stage; None: it was not measured, and ``note`` says why."""

    name: StageName
    mean_ms: NotNegative | None
    p50_ms: NotNegative | None
    p95_ms: NotNegative | None
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

    runs: Amount
    seconds: NotNegative
    stable: bool
    difference: NotNegative | None
    tolerance: NotNegative


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
    energy_per_image_j: NotNegative | None
    energy_from: Literal["counter", "power"] | None
    throttled: bool | None
    throttle_reasons: tuple[str, ...]
    missing: tuple[Missing, ...]


SLOW_CLOCK = 0.9  # of the highest mean clock of all runs, below which times of a GPU are not to be compared


def sm_clock_mhz(device: DeviceCounters) -> float | None:
    """The mean clock of a GPU's processors while it worked; None for other devices."""
    return next((clock.mean for clock in device.clocks_mhz if clock.name in ("sm", "gpu")), None)


@dataclass(frozen=True)
class Run:
    """One model by one protocol and batch."""

    model: str  # id of the ModelRow
    protocol: ProtocolName
    boundaries: str
    differences: tuple[str, ...]
    batch: Count
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
    fps: Positive
    ratio: NotNegative | None
    real_time: bool
    ap: Percent | None


@dataclass(frozen=True)
class PaperRow:
    """A model of the papers: AP in percent, FPS of PyTorch on an RTX 2080 Ti; None: not published."""

    name: str
    ap_minival: NotNegative | None
    ap_test_dev: NotNegative | None
    fps: NotNegative | None
    target: bool
    here: PaperRun | None


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
    real_time_fps: Positive
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
        if type(found) is int and found != FORMAT:
            raise InputError(f"format {shown(found)}, this gfl_edge reads {FORMAT}. Measure again")
        report = build(cls, tree)
        models = {model.id: model for model in report.models}
        for index, run in enumerate(report.runs):
            if run.model not in models:
                known = ", ".join(map(shown, models))
                raise InputError(f"runs[{index}].model {shown(run.model)}: expected one of {known}")
            if models[run.model].backend is None:
                raise InputError(
                    f"runs[{index}].model {shown(run.model)}: that model has no backend, so it did not run"
                )
            missing = [name for name in RUN_STAGES if name not in (row.name for row in run.stages)]
            if missing:
                raise InputError(f"runs[{index}].stages: missing {', '.join(missing)}")
        return report
