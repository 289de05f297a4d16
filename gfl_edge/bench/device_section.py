"""What a report for people says about the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gfl_edge.bench.sections import Section, Table, number


def device_section(report: dict[str, Any]) -> Section:
    """Load, counters and memory, and why some are missing."""
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
