"""A report for people: sections of words, tables and figures, which Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Iterator

from gfl_edge.report import figures
from gfl_edge.report.device_section import device_section
from gfl_edge.report.reference_sections import bounds_section, paper_section, versions_section
from gfl_edge.report.schema import BOUNDARIES, RUN_STAGES, ModelRow, Report, Run
from gfl_edge.report.sections import NOT_MEASURED, Section, Table, milliseconds, number


def document(report: Report) -> list[Section]:
    """The sections of a report."""
    return [
        _about(report),
        summary_section(report),
        _latency(report),
        _stages(report),
        _batches(report),
        device_section(report),
        paper_section(report),
        bounds_section(report),
        versions_section(report),
    ]


def _about(report: Report) -> Section:
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
    rows = tuple(_summary_row(report.model_of(run), run, report.real_time_fps) for run in report.main_runs())
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
    return Section("Summary", tuple(words), (), (Table("Accuracy and speed", headers, rows),), figures.accuracy(report))


def _summary_row(model: ModelRow, run: Run, real_time_fps: float) -> tuple[str, ...]:
    assert model.backend is not None  # it ran
    precision, latency = model.precision.upper(), run.latency
    return (
        model.name,
        f"INT8 + {precision}" if model.quantized_layers else precision,
        model.backend.name,
        number(None if model.accuracy is None else model.accuracy.ap),
        milliseconds(latency.p50_ms),
        milliseconds(latency.p95_ms),
        number(latency.fps, 1),
        "yes" if latency.fps >= real_time_fps else "no",
        number(model.size_bytes / 1e6),
    )


def _latency(report: Report) -> Section:
    headers = (
        *("model", "protocol", "batch", "samples"),
        *("mean", "p50", "p90", "p95", "p99", "max", "CV, %", "warm-up"),
    )
    table = Table(
        "Milliseconds per run; CV is standard deviation by mean; warm-up is in runs",
        headers,
        tuple(map(_latency_row, report.runs)),
    )
    differences = sorted({text for run in report.runs for text in run.differences})
    words = ("Where this differs from the protocol's original:",) if differences else ()
    return Section("Latency", words, tuple(differences), (table,), figures.distribution(report))


def _latency_row(run: Run) -> tuple[str, ...]:
    found, warm_up = run.latency, run.warm_up
    times_ms = (found.mean_ms, found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms, found.max_ms)
    return (
        *(run.model, run.protocol, str(run.batch), str(found.samples)),
        *map(milliseconds, times_ms),
        number(100 * found.cv, 1),
        f"{warm_up.runs}" if warm_up.stable else f"{warm_up.runs}, unstable",
    )


def _stages(report: Report) -> Section:
    rows = tuple(
        (run.model, run.protocol, str(run.batch), *(milliseconds(run.stage(name).mean_ms, "-") for name in RUN_STAGES))
        for run in report.runs
    )
    table = Table("Mean milliseconds per run", ("model", "protocol", "batch", *RUN_STAGES), rows)
    words = ("From the same runs as the latency, whose stages are resize to other; read and draw come on top.",)
    return Section("Stages", words, tuple(_stage_notes(report)), (table,), figures.stages(report))


def _stage_notes(report: Report) -> Iterator[str]:
    """What is said about stages, with the protocols it is said of where those are not all."""
    protocols = sorted({run.protocol for run in report.runs})
    for name in RUN_STAGES:
        said: dict[str, set[str]] = {}
        for run in report.runs:
            if note := run.stage(name).note:
                said.setdefault(note, set()).add(run.protocol)
        for note, of in sorted(said.items()):
            yield f"{name}: {note}" if sorted(of) == protocols else f"{name}, {', '.join(sorted(of))}: {note}"


def _batches(report: Report) -> Section:
    runs = [run for run in report.runs if run.protocol == "offline"]
    if not runs:
        return Section("Throughput by batch", (f"Throughput by batch was {NOT_MEASURED}: --batch 1,8 does.",))
    rows = tuple(
        (run.model, str(run.batch), milliseconds(run.latency.p50_ms), number(run.latency.fps, 1)) for run in runs
    )
    table = Table(BOUNDARIES["offline"], ("model", "batch", "p50 of a batch, ms", "images per second"), rows)
    return Section("Throughput by batch", (), (), (table,), figures.batches(report))
