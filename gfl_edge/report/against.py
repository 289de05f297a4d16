"""A new report against an old one: what became slower or less accurate than is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.errors import InputError
from gfl_edge.parsing.json_text import read_json
from gfl_edge.report.document import Table
from gfl_edge.report.schema import Report

Key = tuple[str, str, int, str]  # model, protocol, batch, backend


@dataclass(frozen=True)
class Change:
    """One number of both reports.

    Attributes:
        key: model, protocol, batch, backend.
        what: "p50, ms" or "AP".
        before: in the old report.
        after: in the new one.
        limit: what ``after`` may be at most, or for AP at least.
        failed: whether it is beyond.
    """

    key: Key
    what: str
    before: float
    after: float
    limit: float
    failed: bool


def read_report(path: str | Path) -> Report:
    """A ``report.json``, or the one in the folder ``path``.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    advice = "Give the report.json of: gfl-edge bench -o REPORT"
    tree = read_json(path, advice)
    try:
        return Report.from_dict(tree)
    except InputError as error:
        raise InputError(f"{path} is no report: {error}. {advice}") from error


def changes(
    old: Report, new: Report, max_slowdown: float, max_ap_drop: float, any_device: bool = False
) -> list[Change]:
    """What both reports measured.

    Args:
        old: the earlier report.
        new: the later one.
        max_slowdown: p50 may be so many times that of before, 1.1 being 10 % more.
        max_ap_drop: points of AP that may be lost.
        any_device: compare even where the devices are not the same.

    Raises:
        InputError: another device, AP on other images, nothing that both measured, or a limit that is none.
    """
    if not 0 < max_slowdown < math.inf or not 0 <= max_ap_drop <= 100:
        raise InputError(
            f"a slowdown of {max_slowdown:g} and a drop of {max_ap_drop:g} AP are allowed: expected a factor above 0 "
            "and 0..100 points"
        )
    _check_comparable(old, new, any_device)
    before, after = dict(_runs(old)), dict(_runs(new))
    common = [key for key in after if key in before]
    if not common:
        raise InputError(
            "the reports have no model, protocol, batch and backend in common: the old one has "
            f"{_listed(before)}, the new one {_listed(after)}. Measure the same models in the same way"
        )
    found = []
    for key in common:
        (old_ms, old_ap), (new_ms, new_ap) = before[key], after[key]
        limit_ms = old_ms * max_slowdown
        found.append(Change(key, "p50, ms", old_ms, new_ms, limit_ms, new_ms > limit_ms))
        if old_ap is not None and new_ap is not None:
            found.append(Change(key, "AP", old_ap, new_ap, old_ap - max_ap_drop, new_ap < old_ap - max_ap_drop))
    return found


def _runs(report: Report) -> Iterator[tuple[Key, tuple[float, float | None]]]:
    """Median and AP of each run."""
    for run in report.runs:
        model = report.model_of(run)
        assert model.backend is not None  # it ran
        ap = None if model.accuracy is None else model.accuracy.ap
        yield (run.model, run.protocol, run.batch, model.backend.name), (run.latency.p50_ms, ap)


def _check_comparable(old: Report, new: Report, any_device: bool) -> None:
    """Raise InputError where both have AP, on different images, or times of different devices."""
    before, after = (
        {(found.annotations, found.images) for model in report.models if (found := model.accuracy) is not None}
        for report in (old, new)
    )
    if before and after and before != after:
        raise InputError(
            f"the old report's AP is on {_named(before)}, this one's on {_named(after)}, which do not compare. Measure "
            "with the same --images, --annotations and --limit, or leave out --annotations"
        )
    old_devices, new_devices = _devices(old), _devices(new)
    if not any_device and old_devices != new_devices:
        raise InputError(
            f"the old report is of {', '.join(old_devices)}, this one of {', '.join(new_devices)}: times of different "
            "devices say nothing about a regression. Measure the old version here, or insist with --any-device"
        )


def _named(images: Set[tuple[str, int]]) -> str:
    return ", ".join(f"{count} images of {annotations}" for annotations, count in images)


def _devices(report: Report) -> list[str]:
    """The CPU, and what the models ran on."""
    own = {model.backend.device for model in report.models if model.backend is not None}
    return [f"{report.device.cpu}, {report.device.cores} cores", *sorted(own)]


def _listed(runs: Iterable[Key]) -> str:
    return "; ".join(" ".join(map(str, key)) for key in list(runs)[:3]) or "none"


def table(found: list[Change]) -> Table:
    """The changes for people."""
    rows = tuple(
        (
            *(change.key[0], change.key[1], str(change.key[2]), change.key[3], change.what),
            *(f"{value:.2f}" for value in (change.before, change.after)),
            f"x {change.after / change.before:.3f}" if change.what != "AP" else f"{change.after - change.before:+.2f}",
            f"{change.limit:.2f}",
            "REGRESSION" if change.failed else "ok",
        )
        for change in found
    )
    headers = ("model", "protocol", "batch", "backend", "what", "before", "now", "change", "limit", "")
    return Table("Against the old report", headers, rows)
