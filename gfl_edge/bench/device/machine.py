"""How busy the machine was with other things, which a reader of its numbers has to know."""

from __future__ import annotations

import os
from pathlib import Path

from gfl_edge.bench.device import sysfs
from gfl_edge.report.schema import MachineLoad

_TICKS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # of /proc/stat's first line


class LoadMeter:
    """Load of the machine from the start of a measurement on.

    Args:
        root: folder that stands for the root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._load = self._load_average()
        self._ticks, self._own_seconds = self._read_ticks(), _own_seconds()

    def _load_average(self) -> float | None:
        content = sysfs.text(self._root / "proc/loadavg")
        return float(content.split()[0]) if content else None

    def _read_ticks(self) -> dict[str, int] | None:
        content = sysfs.text(self._root / "proc/stat")
        return dict(zip(_TICKS, map(int, content.split()[1:9]), strict=True)) if content else None

    def summary(self) -> MachineLoad:
        """For the report."""
        others, stolen = self._shares()
        return MachineLoad(os.cpu_count() or 1, self._load, others, stolen, _peak_bytes())

    def _shares(self) -> tuple[float | None, float | None]:
        """Of all cores' time since the start: what other processes took, and what the host gave to other machines."""
        now = self._read_ticks()
        if now is None or self._ticks is None:
            return None, None
        spent = {name: now[name] - self._ticks[name] for name in _TICKS}
        total = sum(spent.values())
        if total <= 0:
            return None, None
        busy = total - spent["idle"] - spent["iowait"] - spent["steal"]
        own = (_own_seconds() - self._own_seconds) * os.sysconf("SC_CLK_TCK")
        return 100 * max(0.0, busy - own) / total, 100 * spent["steal"] / total


def _own_seconds() -> float:
    """CPU seconds of this process and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_bytes() -> int | None:
    """The most resident memory that this process has had; None where the system does not tell."""
    status = sysfs.text(Path("/proc/self/status")) or ""
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0][1]) << 10 if lines else None


def process_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell."""
    content = sysfs.text(Path("/proc/self/statm"))
    return int(content.split()[1]) * os.sysconf("SC_PAGE_SIZE") if content else None
