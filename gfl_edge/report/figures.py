"""The figures of a report."""

from __future__ import annotations

from dataclasses import dataclass

from gfl_edge.report.plots import Spread, bar_chart, line_chart, point_chart, spread_chart
from gfl_edge.report.schema import RUN_STAGES, Report, Run


@dataclass(frozen=True)
class Figure:
    """A chart and the words for those who do not see it.

    Attributes:
        name: of its file, without suffix.
        words: what it shows.
        svg: the chart.
    """

    name: str
    words: str
    svg: bytes


def accuracy(report: Report) -> tuple[Figure, ...]:
    """AP against latency; nothing where AP was not measured."""
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for run in _single(report):
        model = report.model_of(run)
        if model.accuracy is not None and model.accuracy.ap is not None:
            kind = "INT8" if model.quantized_layers else model.precision.upper()
            groups.setdefault(kind, []).append((run.latency.p50_ms, model.accuracy.ap, model.name))
    if not groups:
        return ()
    chart = point_chart("AP against latency", "p50 of the latency, ms", "COCO AP, percent", groups)
    return (
        Figure("ap-latency", "AP against median latency of every model; the summary holds the same numbers", chart),
    )


def _single(report: Report) -> list[Run]:
    """The runs of single frames; without any, those of the smallest batch."""
    smallest = min((run.batch for run in report.runs), default=1)
    return [run for run in report.runs if run.protocol == report.settings.protocol and run.batch == smallest]


def distribution(report: Report) -> tuple[Figure, ...]:
    """Where the latencies of each model lie."""
    rows = {}
    for run in _single(report):
        of = run.latency
        rows[run.model] = Spread(of.p5_ms, of.p25_ms, of.p50_ms, of.p75_ms, of.p95_ms, of.p99_ms)
    if not rows:
        return ()
    title = "Latency: box p25 to p75 with the median, line p5 to p95, dot p99"
    return (Figure("latency", f"{title}, for each model", spread_chart(title, "ms", rows)),)


def stages(report: Report) -> tuple[Figure, ...]:
    """Mean milliseconds of each stage, side by side."""
    runs = _single(report)
    shown = [name for name in RUN_STAGES if any(run.stage(name).mean_ms is not None for run in runs)]
    if not shown:
        return ()
    parts: dict[str, dict[str, float]] = {
        run.model: {name: run.stage(name).mean_ms or 0.0 for name in shown} for run in runs
    }
    title = "Where the time of a frame goes, mean"
    return (
        Figure("stages", f"{title}, for each model; the table holds the same numbers", bar_chart(title, "ms", parts)),
    )


def batches(report: Report) -> tuple[Figure, ...]:
    """Images per second by batch; nothing where there is only one batch."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for run in report.runs:
        if run.protocol == "offline":
            curves.setdefault(run.model, []).append((run.batch, run.latency.fps))
    if not any(len(points) > 1 for points in curves.values()):
        return ()
    chart = line_chart("Throughput by batch", "batch", "images per second", curves, from_zero=True)
    return (Figure("batches", "Images per second by batch, for each model; the table holds the same numbers", chart),)
