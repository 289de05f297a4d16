"""What a report for people says about the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gfl_edge.report.sections import Section, Table, number

NOT_AVAILABLE = "not available"


def device_section(report: dict[str, Any]) -> Section:
    """Load, counters and memory, and why some are missing."""
    reasons = {
        f"{row['what']} ({run['device']['source']}): {row['why']}"
        for run in report["runs"]
        for row in run["device"]["missing"]
    }
    counters = _counters(report["runs"])
    shown = any(set(row[3:]) != {NOT_AVAILABLE} for row in counters.rows)
    words = (_load(report["machine"]), *(("Not available, and why:",) if reasons else ()))
    tables = (*((counters,) if shown else ()), _memory(report))
    return Section("Device", words, tuple(sorted(reasons)), tables)


def _load(machine: dict[str, Any]) -> str:
    others, stolen = (
        number(machine[key], 1, "an unknown share") for key in ("cpu_percent_of_others", "cpu_percent_stolen")
    )
    return (
        f"Load average before the start: {number(machine['load_average_1min'])} on {machine['cores']} cores. Meanwhile "
        f"other processes took {others} % of the CPU, and {stolen} % went to other virtual machines. Largest memory of "
        f"the whole process: {_megabytes(machine['process_peak_bytes'])}."
    )


def _counters(runs: Sequence[dict[str, Any]]) -> Table:
    headers = ("model", "protocol", "batch", "clocks, MHz", "temperatures, C", "power, W", "J per image", "throttled")
    return Table("Mean, and smallest to largest, while the model ran", headers, tuple(map(_counter_row, runs)))


def _counter_row(run: dict[str, Any]) -> tuple[str, ...]:
    device = run["device"]
    throttled = {None: NOT_AVAILABLE, True: ", ".join(device["throttle_reasons"]), False: "no"}[device["throttled"]]
    return (
        *(run["model"], run["protocol"], str(run["batch"])),
        *(_ranges(device[key]) for key in ("clocks_mhz", "temperatures_c", "powers_w")),
        number(device["energy_per_image_j"], 3, NOT_AVAILABLE),
        throttled,
    )


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
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:.0f} MB"


def _ranges(rows: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{row['name']} {_range(row)}" for row in rows) or NOT_AVAILABLE


def _range(row: dict[str, Any]) -> str:
    mean = f"{row['mean']:.4g}"
    return mean if row["min"] == row["max"] else f"{mean} ({row['min']:.4g}-{row['max']:.4g})"
