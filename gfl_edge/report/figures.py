"""The figures of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gfl_edge.bench.stages import STAGES
from gfl_edge.report.plots import Spread, bar_chart, line_chart, point_chart, spread_chart


@dataclass(frozen=True)
class Figure:
    """A picture and the words for those who do not see it.

    Attributes:
        name: of its file, without suffix.
        words: what it shows.
        svg: the picture.
    """

    name: str
    words: str
    svg: bytes


def accuracy(report: dict[str, Any]) -> tuple[Figure, ...]:
    """AP against latency; nothing where AP was not measured."""
    models = {model["id"]: model for model in report["models"]}
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for run in _single(report):
        model = models[run["model"]]
        if model["accuracy"] is not None:
            point = (run["latency"]["p50_ms"], model["accuracy"]["metrics"]["AP"], model["name"])
            groups.setdefault(_kind(model), []).append(point)
    if not groups:
        return ()
    picture = point_chart("AP against latency", "p50 of the latency, ms", "COCO AP, percent", groups)
    return (
        Figure("ap-latency", "AP against median latency of every model; the summary holds the same numbers", picture),
    )


def _kind(model: dict[str, Any]) -> str:
    return "INT8" if model["quantized_layers"] else str(model["precision"]).upper()


def _single(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of single frames; without any, those of the smallest batch."""
    least = min((run["batch"] for run in report["runs"]), default=1)
    protocol = report["settings"]["protocol"]
    return [run for run in report["runs"] if run["protocol"] == protocol and run["batch"] == least]


def distribution(report: dict[str, Any]) -> tuple[Figure, ...]:
    """Where the latencies of each model lie."""
    keys = ("p5", "p25", "p50", "p75", "p95", "p99")
    rows = {run["model"]: Spread(**{key: run["latency"][f"{key}_ms"] for key in keys}) for run in _single(report)}
    if not rows:
        return ()
    title = "Latency: box p25 to p75 with the median, line p5 to p95, dot p99"
    return (Figure("latency", f"{title}, for each model", spread_chart(title, "ms", rows)),)


def stages(report: dict[str, Any]) -> tuple[Figure, ...]:
    """Mean milliseconds of each stage, side by side."""
    found = {run["model"]: {row["name"]: row["mean_ms"] for row in run["stages"]} for run in _single(report)}
    shown = [name for name in STAGES if any(row[name] is not None for row in found.values())]
    if not shown:
        return ()
    parts = {model: {name: row[name] or 0.0 for name in shown} for model, row in found.items()}
    title = "Where the time of a frame goes, mean"
    return (
        Figure("stages", f"{title}, for each model; the table holds the same numbers", bar_chart(title, "ms", parts)),
    )


def batches(report: dict[str, Any]) -> tuple[Figure, ...]:
    """Images per second by batch; nothing where there is one batch alone."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for run in report["runs"]:
        if run["protocol"] == "offline":
            curves.setdefault(run["model"], []).append((run["batch"], run["latency"]["fps"]))
    if not any(len(points) > 1 for points in curves.values()):
        return ()
    picture = line_chart("Throughput by batch", "batch", "images per second", curves, from_zero=True)
    return (Figure("batches", "Images per second by batch, for each model; the table holds the same numbers", picture),)
