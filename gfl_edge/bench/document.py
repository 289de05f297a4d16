"""A report for people: sections of words, tables and figures, which Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gfl_edge.bench import figures
from gfl_edge.bench.figures import Figure
from gfl_edge.bench.protocols import BOUNDARIES
from gfl_edge.bench.stages import STAGES

NOT_MEASURED = "not measured"


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
    figures: tuple[Figure, ...] = field(default=())


def document(report: dict[str, Any]) -> list[Section]:
    """The sections of a report, see docs/report.md for its keys."""
    return [
        _about(report),
        _summary(report),
        _latency(report),
        _stages(report),
        _batches(report),
        _device(report),
        _paper(report),
        _bounds(report),
        _versions(report),
    ]


def precision(model: dict[str, Any]) -> str:
    """ "FP16", or "INT8 + FP16" where convolutions are quantized and the rest is half."""
    body = str(model["precision"]).upper()
    return f"INT8 + {body}" if model["quantized_layers"] else body


def number(value: float | None, digits: int = 2, missing: str = NOT_MEASURED) -> str:
    """A number with so many digits behind the point."""
    return missing if value is None else f"{value:.{digits}f}"


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
        number(latency["p50_ms"]),
        number(latency["p95_ms"]),
        number(latency["fps"], 1),
        "yes" if latency["fps"] >= real_time_fps else "no",
        number(model["size_bytes"] / 1e6),
    )


def _latency(report: dict[str, Any]) -> Section:
    keys = ("mean", "p50", "p90", "p95", "p99", "min", "max")
    rows = []
    for run in report["runs"]:
        latency, warm_up = run["latency"], run["warm_up"]
        rows.append(
            (
                *(run["model"], run["protocol"], str(run["batch"]), str(latency["samples"])),
                *(number(latency[f"{key}_ms"]) for key in keys),
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
        means = {stage["name"]: number(stage["mean_ms"], missing="-") for stage in run["stages"]}
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
        (run["model"], str(run["batch"]), number(run["latency"]["p50_ms"]), number(run["latency"]["fps"], 1))
        for run in runs
    ]
    table = Table(BOUNDARIES["offline"], ("model", "batch", "p50 of a batch, ms", "images per second"), tuple(rows))
    return Section("Throughput by batch", (), (), (table,), figures.batches(report))


def _device(report: dict[str, Any]) -> Section:
    machine = report["machine"]
    rows, reasons = [], set()
    for run in report["runs"]:
        device = run["device"]
        rows.append(
            (
                *(run["model"], run["protocol"], str(run["batch"])),
                *(_ranges(device[key]) for key in ("clocks_mhz", "temperatures_c", "powers_w")),
                number(device["energy_per_image_j"], 3, "not available"),
                {None: "not available", True: ", ".join(device["throttle_reasons"]), False: "no"}[device["throttled"]],
            )
        )
        reasons |= {f"{row['what']} ({device['source']}): {row['why']}" for row in device["missing"]}
    headers = ("model", "protocol", "batch", "clocks, MHz", "temperatures, C", "power, W", "J per image", "throttled")
    table = Table("Mean, and smallest to largest, while the model ran", headers, tuple(rows))
    words = [
        f"Load average before the start: {number(machine['load_average_1min'])} on {machine['cores']} cores. Meanwhile "
        f"other processes took {number(machine['cpu_percent_of_others'], 1, 'an unknown share')} % of the CPU, and "
        f"{number(machine['cpu_percent_stolen'], 1, 'an unknown share')} % went to other virtual machines. Largest "
        f"memory of the whole process: {_megabytes(machine['process_peak_bytes'])}."
    ]
    if reasons:
        words.append("Not available, and why:")
    return Section("Device", tuple(words), tuple(sorted(reasons)), (table, _memory(report)))


def _memory(report: dict[str, Any]) -> Table:
    rows = tuple(
        (model["id"], *(_megabytes(model["memory"][key]) for key in ("host_bytes", "device_bytes_in_use")))
        for model in report["models"]
        if model["memory"] is not None
    )
    return Table(
        "Memory: what loading a model added on the host, and what the GPU had in use then",
        ("model", "host", "GPU"),
        rows,
    )


def _megabytes(nbytes: int | None) -> str:
    return "not available" if nbytes is None else f"{nbytes / 1e6:.0f} MB"


def _ranges(rows: Sequence[dict[str, Any]]) -> str:
    parts = [f"{row['name']} {row['mean']:.4g} ({row['min']:.4g}-{row['max']:.4g})" for row in rows]
    return "; ".join(parts) or "not available"


def _paper(report: dict[str, Any]) -> Section:
    rows = []
    for row in report["paper"]:
        here = row["here"]
        cells = ("-", "-", NOT_MEASURED, "-", "-", "-")
        if here is not None:
            ratio = number(here["ratio"], missing="-")
            real_time = "yes" if here["real_time"] else "no"
            cells = (here["device"], here["model"], number(here["fps"], 1), ratio, real_time, number(here["ap"], 1))
        rows.append(
            (
                row["name"] + (" (the target)" if row["target"] else ""),
                *(number(row[key], 1, "-") for key in ("ap_minival", "ap_test_dev", "fps")),
                *cells,
            )
        )
    headers = (
        *("model", "AP minival", "AP test-dev", "FPS, RTX 2080 Ti"),
        *("here on", "as", "FPS here", "ratio", "real time", "AP here"),
    )
    table = Table("Papers: PyTorch at 1333 x 800. Here: protocol gfocal", headers, tuple(rows))
    words = (
        "Only runs of the protocol gfocal stand beside the papers' numbers; the ratio is FPS here by FPS there, "
        "whatever the device.",
        *report["paper_sources"],
    )
    return Section("Against the papers", words, (), (table,))


def _bounds(report: dict[str, Any]) -> Section:
    models = [model for model in report["models"] if model["bounds"]]
    title = "Bounds for GPUs that are not at hand"
    if not models:
        return Section(title, ("No bound: these models are engines, whose graphs are not in the file.",))
    names = [row["gpu"] for row in models[0]["bounds"]]
    rows = [(model["id"], f"{model['cost']['macs'] / 1e9:.2f}", *map(_bound_cell, model["bounds"])) for model in models]
    table = Table(
        "No faster than: milliseconds per image / FPS at best",
        ("model", "10^9 MACs", *(_short(name) for name in names)),
        tuple(rows),
    )
    words = ("These are bounds from the graph's own multiplications and bytes, not measurements. They assume:",)
    return Section(title, words, tuple(report["bound_assumptions"]), (table, _peaks(report)))


def _short(gpu: str) -> str:
    """Without the product line: "RTX 2080 Ti"."""
    return gpu.partition(" ")[2]


def _bound_cell(row: dict[str, Any]) -> str:
    if row["bound_ms"] is None:
        return "cannot"
    return f"{row['bound_ms']:.3g} / {number(row['bound_fps'], 0, '-')}"


def _peaks(report: dict[str, Any]) -> Table:
    kinds = ("fp32", "fp16", "int8")
    rows = tuple(
        (
            row["name"],
            *(number(row[f"{kind}_tera_ops"], 1, "-") for kind in kinds),
            f"{row['bandwidth_gb_s']:g}",
            f"{row['l2_bytes'] / 2**20:.1f}",
            row["source"],
        )
        for row in report["gpus"]
    )
    headers = ("GPU", *(f"{kind.upper()}, 10^12/s" for kind in kinds), "GB/s", "L2, MiB", "source")
    return Table("What the bounds rest on", headers, rows)


def _versions(report: dict[str, Any]) -> Section:
    models = tuple(
        (model["id"], model["file"], model["sha256"][:12], *_backend_cells(model["backend"]))
        for model in report["models"]
    )
    versions = tuple(report["versions"].items())
    return Section(
        "Files and versions",
        tables=(
            Table("Files", ("model", "file", "SHA-256 begins", "library", "device"), models),
            Table("Versions", ("package", "version"), versions),
        ),
    )


def _backend_cells(backend: dict[str, Any] | None) -> tuple[str, str]:
    return ("not run", "-") if backend is None else (f"{backend['library']} {backend['version']}", backend["device"])
