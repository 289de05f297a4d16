"""What a report for people sets beside its measurements: the papers, bounds of other GPUs, files and versions."""

from __future__ import annotations

from typing import Any

from gfl_edge.report.sections import NOT_MEASURED, Section, Table, number


def paper_section(report: dict[str, Any]) -> Section:
    """The papers' models, and the same here."""
    rows = []
    for row in report["paper"]:
        here = row["here"]
        cells = (NOT_MEASURED, "-", "-", "-", "-", "-")
        if here is not None:
            ratio = number(here["ratio"], missing="-")
            real_time = "yes" if here["real_time"] else "no"
            cells = (number(here["fps"]), ratio, real_time, number(here["ap"], 1), here["model"], here["device"])
        rows.append(
            (
                row["name"] + (" (the target)" if row["target"] else ""),
                *(number(row[key], 1, "-") for key in ("ap_minival", "ap_test_dev", "fps")),
                *cells,
            )
        )
    headers = (
        *("model", "AP minival", "AP test-dev", "FPS, paper"),
        *("FPS here", "ratio", "real time", "AP here", "as", "here on"),
    )
    table = Table("Papers: PyTorch at 1333 x 800. Here: protocol gfocal", headers, tuple(rows))
    words = (
        "Only runs of the protocol gfocal stand beside the papers' numbers; the ratio is FPS here by FPS there, "
        "whatever the device.",
        *report["paper_sources"],
    )
    return Section("Against the papers", words, (), (table,))


def bounds_section(report: dict[str, Any]) -> Section:
    """Rooflines, and what they rest on."""
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


def versions_section(report: dict[str, Any]) -> Section:
    """What was measured, and with what."""
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
