"""A report for people: sections of words, tables and figures, which Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gfl_edge.bench.protocols import BOUNDARIES
from gfl_edge.bench.stages import STAGES
from gfl_edge.report import figures
from gfl_edge.report.device_section import device_section
from gfl_edge.report.reference_sections import bounds_section, paper_section, versions_section
from gfl_edge.report.sections import NOT_MEASURED, Section, Table, milliseconds, number


def document(report: dict[str, Any]) -> list[Section]:
    """The sections of a report, see docs/report.md for its keys."""
    return [
        _about(report),
        _summary(report),
        _latency(report),
        _stages(report),
        _batches(report),
        device_section(report),
        paper_section(report),
        bounds_section(report),
        versions_section(report),
    ]


def precision(model: dict[str, Any]) -> str:
    """ "FP16", or "INT8 + FP16" where convolutions are quantized and the rest is half."""
    body = str(model["precision"]).upper()
    return f"INT8 + {body}" if model["quantized_layers"] else body


def _about(report: dict[str, Any]) -> Section:
    frames, device = report["settings"]["frames"], report["device"]
    pictures = f"the first {frames['count']} pictures of {frames['folder']}"
    if frames["origin"] == "generated":
        pictures = (
            f"{frames['count']} generated pictures (seed {frames['seed']}), in which a detector finds other objects, "
            "and other numbers of them, than in real ones"
        )
    protocol = report["settings"]["protocol"]
    words = (
        f"Measured on {report['time_utc']}: {device['cpu']}, {device['cores']} cores, {device['system']}.",
        f"Protocol {protocol}: {BOUNDARIES[protocol]}. Times were taken on {pictures}. Every model, protocol and batch "
        f"warmed up until its times were stable within {100 * report['settings']['warm_up_tolerance']:.0f} % and then "
        f"ran for about {report['settings']['seconds']:g} s, in turns of a second with the others.",
        f"Command: {report['command']}",
    )
    points = tuple(f"Warning: {warning}." for warning in report["warnings"])
    return Section("About this measurement", words, points or ("Nothing disturbed it that could be noticed.",))


def _summary(report: dict[str, Any]) -> Section:
    models = {model["id"]: model for model in report["models"]}
    rows = [_summary_row(models[run["model"]], run, report["real_time_fps"]) for run in main_runs(report)]
    headers = ("model", "precision", "runs in", "AP", "p50, ms", "p95, ms", "FPS", "real time", "MB")
    accuracy = next((model["accuracy"] for model in report["models"] if model["accuracy"]), None)
    words = [f"FPS are images by the sum of their times; real time is {report['real_time_fps']:g} FPS or more."]
    if accuracy is None:
        words.append("AP was not measured: --images and --annotations say on what.")
    else:
        words.append(
            f"AP is COCO AP in percent of the same files on {accuracy['images']} images ({accuracy['annotations']})."
        )
    if any(model["precision"] != "fp32" and _is_openvino(model) for model in report["models"]):
        words.append(
            "OpenVINO computes in float32 what a file has in half or bfloat16: such a file is smaller, not faster."
        )
    table = Table("Accuracy and speed", headers, tuple(rows))
    return Section("Summary", tuple(words), (), (table,), figures.accuracy(report))


def _is_openvino(model: dict[str, Any]) -> bool:
    return model["backend"] is not None and bool(model["backend"]["name"] == "openvino")


def main_runs(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One run of each model: that of the protocol, with the smallest batch."""
    found: dict[str, dict[str, Any]] = {}
    for run in report["runs"]:
        if run["protocol"] == report["settings"]["protocol"]:
            found.setdefault(run["model"], run)
    return list(found.values())


def _summary_row(model: dict[str, Any], run: dict[str, Any], real_time_fps: float) -> tuple[str, ...]:
    latency, accuracy = run["latency"], model["accuracy"]
    return (
        model["name"],
        precision(model),
        model["backend"]["name"],
        number(accuracy and accuracy["metrics"]["AP"]),
        milliseconds(latency["p50_ms"]),
        milliseconds(latency["p95_ms"]),
        number(latency["fps"], 1),
        "yes" if latency["fps"] >= real_time_fps else "no",
        number(model["size_bytes"] / 1e6),
    )


def _latency(report: dict[str, Any]) -> Section:
    keys = ("mean", "p50", "p90", "p95", "p99", "max")
    rows = []
    for run in report["runs"]:
        latency, warm_up = run["latency"], run["warm_up"]
        rows.append(
            (
                *(run["model"], run["protocol"], str(run["batch"]), str(latency["samples"])),
                *(milliseconds(latency[f"{key}_ms"]) for key in keys),
                number(100 * latency["cv"], 1),
                f"{warm_up['runs']}" if warm_up["stable"] else f"{warm_up['runs']}, unstable",
            )
        )
    headers = ("model", "protocol", "batch", "samples", *keys, "CV, %", "warm-up")
    table = Table("Milliseconds per run; CV is standard deviation by mean; warm-up is in runs", headers, tuple(rows))
    differences = sorted({text for run in report["runs"] for text in run["differences"]})
    words = ("Where this differs from the protocol's original:",) if differences else ()
    return Section("Latency", words, tuple(differences), (table,), figures.distribution(report))


def _stages(report: dict[str, Any]) -> Section:
    rows = []
    for run in report["runs"]:
        means = {stage["name"]: milliseconds(stage["mean_ms"], "-") for stage in run["stages"]}
        rows.append((run["model"], run["protocol"], str(run["batch"]), *(means[name] for name in STAGES)))
    table = Table("Mean milliseconds per run", ("model", "protocol", "batch", *STAGES), tuple(rows))
    words = ("From the same runs as the latency, whose stages are resize to other; read and draw come on top.",)
    return Section("Stages", words, tuple(_stage_notes(report)), (table,), figures.stages(report))


def _stage_notes(report: dict[str, Any]) -> Iterator[str]:
    """What is said about stages, with the protocols it is said of where those are not all."""
    protocols = sorted({run["protocol"] for run in report["runs"]})
    for name in STAGES:
        said: dict[str, set[str]] = {}
        for run in report["runs"]:
            for stage in run["stages"]:
                if stage["name"] == name and stage["note"]:
                    said.setdefault(stage["note"], set()).add(run["protocol"])
        for note, of in sorted(said.items()):
            yield f"{name}: {note}" if sorted(of) == protocols else f"{name}, {', '.join(sorted(of))}: {note}"


def _batches(report: dict[str, Any]) -> Section:
    runs = [run for run in report["runs"] if run["protocol"] == "offline"]
    if not runs:
        return Section("Throughput by batch", (f"Throughput by batch was {NOT_MEASURED}: --batch 1,8 does.",))
    rows = [
        (run["model"], str(run["batch"]), milliseconds(run["latency"]["p50_ms"]), number(run["latency"]["fps"], 1))
        for run in runs
    ]
    table = Table(BOUNDARIES["offline"], ("model", "batch", "p50 of a batch, ms", "images per second"), tuple(rows))
    return Section("Throughput by batch", (), (), (table,), figures.batches(report))
