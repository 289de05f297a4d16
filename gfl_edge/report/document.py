"""A report for people: sections of words, tables and figures, which Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gfl_edge.report import figures
from gfl_edge.report.figures import Figure
from gfl_edge.report.schema import BOUNDARIES, RUN_STAGES, SLOW_CLOCK, MachineLoad, Range, Report, sm_clock_mhz

NOT_MEASURED = "not measured"
NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class Table:
    """Cells as text, and what the table shows."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the report; shown in the order words, points, tables, figures."""

    title: str
    words: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def number(value: float | None, digits: int = 2, missing: str = NOT_MEASURED) -> str:
    """A number with so many digits after the point."""
    return missing if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None, missing: str = NOT_MEASURED) -> str:
    """A time with as many digits after the point as mean something: 4.56, 45.67, 456.8, 4568."""
    return number(value, 2 if value is None or value < 100 else 1 if value < 1000 else 0, missing)


def document(report: Report) -> list[Section]:
    """The sections of a report."""
    return [
        about_section(report),
        summary_section(report),
        latency_section(report),
        stages_section(report),
        batches_section(report),
        device_section(report),
        paper_section(report),
        bounds_section(report),
        versions_section(report),
    ]


def about_section(report: Report) -> Section:
    """When, where and how it was measured, and what makes it doubtful."""
    settings, device = report.settings, report.device
    frames = settings.frames
    images = f"the first {frames.count} images of {frames.folder}"
    if frames.origin == "generated":
        images = (
            f"{frames.count} generated images (seed {frames.seed}), in which a detector finds other objects, "
            "and other numbers of them, than in real ones"
        )
    words = (
        f"Measured on {report.time_utc}: {device.cpu}, {device.cores} cores, {device.system}.",
        f"Protocol {settings.protocol}: {BOUNDARIES[settings.protocol]}. Times were taken on {images}. Every model, "
        f"protocol and batch warmed up until its times were stable within {100 * settings.warm_up_tolerance:.0f} % and "
        f"then ran for about {settings.seconds:g} s, in turns of a second with the others.",
        f"Command: {report.command}",
    )
    points = tuple(f"Warning: {warning}." for warning in report.warnings)
    return Section("About this measurement", words, points or ("Nothing disturbed it that could be noticed.",))


def summary_section(report: Report) -> Section:
    """Accuracy and speed of each model, in one table."""
    headers = ("model", "precision", "runs in", "AP", "p50, ms", "p95, ms", "FPS", "real time", "MB")
    rows = []
    for run in report.main_runs():
        model, latency = report.model_of(run), run.latency
        assert model.backend is not None  # it ran
        precision = model.precision.upper()
        rows.append(
            (
                model.name,
                f"INT8 + {precision}" if model.quantized_layers else precision,
                model.backend.name,
                number(None if model.accuracy is None else model.accuracy.ap),
                milliseconds(latency.p50_ms),
                milliseconds(latency.p95_ms),
                number(latency.fps, 1),
                "yes" if latency.fps >= report.real_time_fps else "no",
                number(model.size_bytes / 1e6),
            )
        )
    words = [f"FPS are images by the sum of their times; real time is {report.real_time_fps:g} FPS or more."]
    accuracy = next((model.accuracy for model in report.models if model.accuracy is not None), None)
    if accuracy is None:
        words.append("AP was not measured: --images and --annotations say on what.")
    else:
        words.append(
            f"AP is COCO AP in percent of the same files on {accuracy.images} images ({accuracy.annotations})."
        )
    if any(
        model.precision != "fp32" and model.backend is not None and model.backend.name == "openvino"
        for model in report.models
    ):
        words.append("OpenVINO computes in FP32 what a file has in FP16 or BF16: such a file is smaller, not faster.")
    if any(
        model.precision == "fp32" and model.backend is not None and model.backend.name in ("tensorrt", "rtx")
        for model in report.models
    ):
        words.append(
            "From sm80 on, engines of FP32 files compute in TF32, which has the mantissa of FP16, unless they were "
            "built with --no-tf32."
        )
    table = Table("Accuracy and speed", headers, tuple(rows))
    return Section("Summary", tuple(words), (), (table,), figures.accuracy(report))


def latency_section(report: Report) -> Section:
    """The times of every run."""
    rows = []
    clocks = [sm_clock_mhz(run.device) for run in report.runs]
    highest = max((clock for clock in clocks if clock is not None), default=None)
    for run, clock in zip(report.runs, clocks, strict=True):
        of, warm_up = run.latency, run.warm_up
        times_ms = (of.mean_ms, of.p50_ms, of.p90_ms, of.p95_ms, of.p99_ms, of.max_ms)
        rows.append(
            (
                *(run.model, run.protocol, str(run.batch), str(of.samples)),
                *map(milliseconds, times_ms),
                number(100 * of.cv, 1),
                f"{warm_up.runs}" if warm_up.stable else f"{warm_up.runs}, unstable",
                *(() if highest is None else (_clock(clock, highest),)),
            )
        )
    names: tuple[str, ...]
    names = ("model", "protocol", "batch", "samples", "mean", "p50", "p90", "p95", "p99", "max", "CV, %", "warm-up")
    caption = "Milliseconds per run; CV is standard deviation by mean; warm-up is in runs"
    if highest is not None:
        names += ("SM clock, MHz",)
        caption += f"; a clock is slow below {SLOW_CLOCK:.0%} of the highest here".replace("%", " %")
    differences = sorted({text for run in report.runs for text in run.differences})
    words = ("Where this differs from the protocol's original:",) if differences else ()
    tables = (Table(caption, names, tuple(rows)),)
    return Section("Latency", words, tuple(differences), tables, figures.distribution(report))


def _clock(found: float | None, highest: float) -> str:
    if found is None:
        return NOT_AVAILABLE
    return f"{found:.0f}, slow" if found < SLOW_CLOCK * highest else f"{found:.0f}"


def stages_section(report: Report) -> Section:
    """Where the time of a frame goes."""
    rows = tuple(
        (run.model, run.protocol, str(run.batch), *(milliseconds(run.stage(name).mean_ms, "-") for name in RUN_STAGES))
        for run in report.runs
    )
    table = Table("Mean milliseconds per run", ("model", "protocol", "batch", *RUN_STAGES), rows)
    words = ("From the same runs as the latency, whose stages are resize to other; read and draw come on top.",)
    notes = []
    all_protocols = {run.protocol for run in report.runs}
    for name in RUN_STAGES:
        protocols_of: dict[str, set[str]] = {}
        for run in report.runs:
            if note := run.stage(name).note:
                protocols_of.setdefault(note, set()).add(run.protocol)
        for note, protocols in sorted(protocols_of.items()):
            limited = "" if protocols == all_protocols else f", {', '.join(sorted(protocols))}"
            notes.append(f"{name}{limited}: {note}")
    return Section("Stages", words, tuple(notes), (table,), figures.stages(report))


def batches_section(report: Report) -> Section:
    """Throughput by batch."""
    runs = [run for run in report.runs if run.protocol == "offline"]
    if not runs:
        return Section("Throughput by batch", (f"Throughput by batch was {NOT_MEASURED}: --batch 1,8 does.",))
    rows = tuple(
        (run.model, str(run.batch), milliseconds(run.latency.p50_ms), number(run.latency.fps, 1)) for run in runs
    )
    table = Table(BOUNDARIES["offline"], ("model", "batch", "p50 between batches, ms", "images per second"), rows)
    return Section("Throughput by batch", (), (), (table,), figures.batches(report))


def device_section(report: Report) -> Section:
    """Load, counters and memory, and why some are missing."""
    reasons = {f"{row.what} ({run.device.source}): {row.why}" for run in report.runs for row in run.device.missing}
    words = (_load(report.machine), *(("Not available, and why:",) if reasons else ()))

    rows = []
    for run in report.runs:
        device = run.device
        throttled = {None: NOT_AVAILABLE, True: ", ".join(device.throttle_reasons), False: "no"}[device.throttled]
        rows.append(
            (
                *(run.model, run.protocol, str(run.batch)),
                *map(_ranges, (device.clocks_mhz, device.temperatures_c, device.powers_w)),
                number(device.energy_per_image_j, 3, NOT_AVAILABLE),
                throttled,
            )
        )
    headers = ("model", "protocol", "batch", "clocks, MHz", "temperatures, C", "power, W", "J per image", "throttled")
    counters = Table("Mean, and smallest to largest, while the model ran", headers, tuple(rows))
    shown = any(set(row[3:]) != {NOT_AVAILABLE} for row in rows)

    loaded = ((model.id, model.memory) for model in report.models if model.memory is not None)
    memory = Table(
        "Memory: what loading a model added on the host, and what the GPU had in use then",
        ("model", "host", "GPU"),
        tuple((name, _megabytes(used.host_bytes), _megabytes(used.device_bytes_in_use)) for name, used in loaded),
    )
    return Section("Device", words, tuple(sorted(reasons)), (*((counters,) if shown else ()), memory))


def _load(machine: MachineLoad) -> str:
    others, stolen = (
        number(share, 1, "an unknown share") for share in (machine.cpu_percent_of_others, machine.cpu_percent_stolen)
    )
    return (
        f"Load average before the start: {number(machine.load_average_1min)} on {machine.cores} cores. Meanwhile "
        f"other processes took {others} % of the CPU, and {stolen} % went to other virtual machines. Largest memory of "
        f"the whole process: {_megabytes(machine.process_peak_bytes)}."
    )


def _megabytes(nbytes: int | None) -> str:
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:.0f} MB"


def _ranges(rows: Sequence[Range]) -> str:
    cells = (
        f"{row.name} {row.mean:.4g}" + ("" if row.min == row.max else f" ({row.min:.4g}-{row.max:.4g})") for row in rows
    )
    return "; ".join(cells) or NOT_AVAILABLE


def paper_section(report: Report) -> Section:
    """The papers' models, and the same here."""
    rows = []
    for row in report.paper:
        name, here = row.name + (" (the target)" if row.target else ""), row.here
        published = (number(value, 1, "-") for value in (row.ap_minival, row.ap_test_dev, row.fps))
        reached: tuple[str, ...] = (NOT_MEASURED, "-", "-", "-", "-", "-")
        if here is not None:
            ratio, real_time = number(here.ratio, missing="-"), "yes" if here.real_time else "no"
            reached = (number(here.fps), ratio, real_time, number(here.ap, 1), here.model, here.device)
        rows.append((name, *published, *reached))
    headers = (
        *("model", "AP minival", "AP test-dev", "FPS, paper"),
        *("FPS here", "ratio", "real time", "AP here", "as", "here on"),
    )
    table = Table("Papers: PyTorch at 1333 x 800. Here: protocol gfocal", headers, tuple(rows))
    words = (
        "Only runs of the protocol gfocal stand beside the papers' numbers; the ratio is FPS here by FPS there, "
        "whatever the device.",
        *report.paper_sources,
    )
    return Section("Against the papers", words, (), (table,))


def bounds_section(report: Report) -> Section:
    """Rooflines, and what they rest on."""
    bounded = [(model.id, model.cost, model.bounds) for model in report.models if model.cost is not None]
    title = "Bounds for GPUs that are not at hand"
    if not bounded:
        return Section(title, ("No bound: these models are engines, whose graphs are not in the file.",))
    rows = []
    for name, cost, bounds in bounded:
        cells = (
            "cannot" if bound.bound_ms is None else f"{bound.bound_ms:.3g} / {number(bound.bound_fps, 0, '-')}"
            for bound in bounds
        )
        rows.append((name, f"{cost.macs / 1e9:.2f}", *cells))
    gpus = (bound.gpu.partition(" ")[2] for bound in bounded[0][2])  # without the product line: "RTX 2080 Ti"
    headers = ("model", "10^9 MACs", *gpus)
    table = Table("No faster than: milliseconds per image / FPS at best", headers, tuple(rows))

    peaks = tuple(
        (
            gpu.name,
            *(number(peak, 1, "-") for peak in (gpu.fp32_tera_ops, gpu.fp16_tera_ops, gpu.int8_tera_ops)),
            f"{gpu.bandwidth_gb_s:g}",
            f"{gpu.l2_bytes / 2**20:.1f}",
            gpu.source,
        )
        for gpu in report.gpus
    )
    headers = ("GPU", "FP32, 10^12/s", "FP16, 10^12/s", "INT8, 10^12/s", "GB/s", "L2, MiB", "source")
    words = ("These are bounds from the graph's own multiplications and bytes, not measurements. They assume:",)
    return Section(title, words, report.bound_assumptions, (table, Table("What the bounds rest on", headers, peaks)))


def versions_section(report: Report) -> Section:
    """What was measured, and with what."""
    files = []
    for model in report.models:
        ran = model.backend
        cells = ("not run", "-") if ran is None else (f"{ran.library} {ran.version}", ran.device)
        files.append((model.id, model.file, model.sha256[:12], *cells))
    return Section(
        "Files and versions",
        tables=(
            Table("Files", ("model", "file", "SHA-256 begins", "library", "device"), tuple(files)),
            Table("Versions", ("package", "version"), tuple(report.versions.items())),
        ),
    )
