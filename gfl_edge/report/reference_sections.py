"""What a report for people sets beside its measurements: the papers, bounds of other GPUs, files and versions."""

from __future__ import annotations

from collections.abc import Sequence

from gfl_edge.report.schema import Bound, GpuPeaks, PaperRow, Report
from gfl_edge.report.sections import NOT_MEASURED, Section, Table, number


def paper_section(report: Report) -> Section:
    """The papers' models, and the same here."""
    headers = (
        *("model", "AP minival", "AP test-dev", "FPS, paper"),
        *("FPS here", "ratio", "real time", "AP here", "as", "here on"),
    )
    table = Table("Papers: PyTorch at 1333 x 800. Here: protocol gfocal", headers, tuple(map(_paper_row, report.paper)))
    words = (
        "Only runs of the protocol gfocal stand beside the papers' numbers; the ratio is FPS here by FPS there, "
        "whatever the device.",
        *report.paper_sources,
    )
    return Section("Against the papers", words, (), (table,))


def _paper_row(row: PaperRow) -> tuple[str, ...]:
    name = row.name + (" (the target)" if row.target else "")
    published = (number(value, 1, "-") for value in (row.ap_minival, row.ap_test_dev, row.fps))
    here = row.here
    if here is None:
        return (name, *published, NOT_MEASURED, "-", "-", "-", "-", "-")
    ratio, real_time = number(here.ratio, missing="-"), "yes" if here.real_time else "no"
    return (name, *published, number(here.fps), ratio, real_time, number(here.ap, 1), here.model, here.device)


def bounds_section(report: Report) -> Section:
    """Rooflines, and what they rest on."""
    bounded = [(model.id, model.cost, model.bounds) for model in report.models if model.cost is not None]
    title = "Bounds for GPUs that are not at hand"
    if not bounded:
        return Section(title, ("No bound: these models are engines, whose graphs are not in the file.",))
    gpus = (bound.gpu.partition(" ")[2] for bound in bounded[0][2])  # without the product line: "RTX 2080 Ti"
    rows = tuple((name, f"{cost.macs / 1e9:.2f}", *map(_bound_cell, bounds)) for name, cost, bounds in bounded)
    table = Table("No faster than: milliseconds per image / FPS at best", ("model", "10^9 MACs", *gpus), rows)
    words = ("These are bounds from the graph's own multiplications and bytes, not measurements. They assume:",)
    return Section(title, words, report.bound_assumptions, (table, _peaks(report.gpus)))


def _bound_cell(bound: Bound) -> str:
    return "cannot" if bound.bound_ms is None else f"{bound.bound_ms:.3g} / {number(bound.bound_fps, 0, '-')}"


def _peaks(gpus: Sequence[GpuPeaks]) -> Table:
    rows = tuple(
        (
            gpu.name,
            *(number(peak, 1, "-") for peak in (gpu.fp32_tera_ops, gpu.fp16_tera_ops, gpu.int8_tera_ops)),
            f"{gpu.bandwidth_gb_s:g}",
            f"{gpu.l2_bytes / 2**20:.1f}",
            gpu.source,
        )
        for gpu in gpus
    )
    headers = ("GPU", "FP32, 10^12/s", "FP16, 10^12/s", "INT8, 10^12/s", "GB/s", "L2, MiB", "source")
    return Table("What the bounds rest on", headers, rows)


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
