"""What a report for people says about the device."""

from __future__ import annotations

from collections.abc import Sequence

from gfl_edge.report.schema import MachineLoad, Range, Report, Run
from gfl_edge.report.sections import Section, Table, number

NOT_AVAILABLE = "not available"


def device_section(report: Report) -> Section:
    """Load, counters and memory, and why some are missing."""
    reasons = {f"{row.what} ({run.device.source}): {row.why}" for run in report.runs for row in run.device.missing}
    headers = ("model", "protocol", "batch", "clocks, MHz", "temperatures, C", "power, W", "J per image", "throttled")
    rows = tuple(_counter_row(run) for run in report.runs)
    counters = Table("Mean, and smallest to largest, while the model ran", headers, rows)
    shown = any(set(row[3:]) != {NOT_AVAILABLE} for row in rows)
    words = (_load(report.machine), *(("Not available, and why:",) if reasons else ()))
    tables = (*((counters,) if shown else ()), _memory(report))
    return Section("Device", words, tuple(sorted(reasons)), tables)


def _load(machine: MachineLoad) -> str:
    others, stolen = (
        number(share, 1, "an unknown share") for share in (machine.cpu_percent_of_others, machine.cpu_percent_stolen)
    )
    return (
        f"Load average before the start: {number(machine.load_average_1min)} on {machine.cores} cores. Meanwhile "
        f"other processes took {others} % of the CPU, and {stolen} % went to other virtual machines. Largest memory of "
        f"the whole process: {_megabytes(machine.process_peak_bytes)}."
    )


def _counter_row(run: Run) -> tuple[str, ...]:
    device = run.device
    throttled = {None: NOT_AVAILABLE, True: ", ".join(device.throttle_reasons), False: "no"}[device.throttled]
    return (
        *(run.model, run.protocol, str(run.batch)),
        *map(_ranges, (device.clocks_mhz, device.temperatures_c, device.powers_w)),
        number(device.energy_per_image_j, 3, NOT_AVAILABLE),
        throttled,
    )


def _memory(report: Report) -> Table:
    loaded = ((model.id, model.memory) for model in report.models if model.memory is not None)
    return Table(
        "Memory: what loading a model added on the host, and what the GPU had in use then",
        ("model", "host", "GPU"),
        tuple((name, _megabytes(memory.host_bytes), _megabytes(memory.device_bytes_in_use)) for name, memory in loaded),
    )


def _megabytes(nbytes: int | None) -> str:
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:.0f} MB"


def _ranges(rows: Sequence[Range]) -> str:
    cells = (
        f"{row.name} {row.mean:.4g}" + ("" if row.min == row.max else f" ({row.min:.4g}-{row.max:.4g})") for row in rows
    )
    return "; ".join(cells) or NOT_AVAILABLE
