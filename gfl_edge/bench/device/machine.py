"""How busy the machine was with other things, which a reader of its numbers has to know; psutil (extra ``report``)."""

from __future__ import annotations

import os
from pathlib import Path

from gfl_edge import optional
from gfl_edge.bench.device import sysfs
from gfl_edge.report.schema import MachineLoad

TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # guests are part of user


class LoadMeter:
    """Load of the machine from the start of a measurement on.

    Raises:
        MissingDependencyError: psutil is not installed.
    """

    def __init__(self) -> None:
        self._psutil = optional.load("psutil")
        try:
            self._load: float | None = float(self._psutil.getloadavg()[0])
        except OSError:
            self._load = None
        self._times, self._own_seconds = self._cpu_times(), _own_seconds()

    def _cpu_times(self) -> dict[str, float] | None:
        """Seconds that all cores have spent, of ``TIMES`` those that the system counts."""
        try:
            times = self._psutil.cpu_times()
        except OSError:
            return None
        return {name: getattr(times, name) for name in TIMES if hasattr(times, name)}

    def summary(self) -> MachineLoad:
        """For the report."""
        others, stolen = self._shares()
        return MachineLoad(os.cpu_count() or 1, self._load, others, stolen, _peak_bytes())

    def _shares(self) -> tuple[float | None, float | None]:
        """Of all cores' time since the start: what other processes took, and what the host gave to other machines."""
        now = self._cpu_times()
        if now is None or self._times is None:
            return None, None
        spent = {name: seconds - self._times[name] for name, seconds in now.items()}
        total = sum(spent.values())
        if total <= 0:
            return None, None
        busy = total - sum(spent.get(name, 0.0) for name in ("idle", "iowait", "steal"))
        others = max(0.0, busy - (_own_seconds() - self._own_seconds))
        return 100 * others / total, 100 * max(0.0, spent["steal"]) / total if "steal" in spent else None


def _own_seconds() -> float:
    """CPU seconds of this process and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_bytes() -> int | None:
    """The most resident memory that this process has had; None where the system does not say.

    From /proc, as psutil does not have it, and getrusage's maximum outlives exec: it may be that of the shell.
    """
    status = sysfs.text(Path("/proc/self/status")) or ""
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0][1]) << 10 if lines else None


def process_bytes() -> int:
    """Resident memory of this process; raises MissingDependencyError without psutil."""
    return int(optional.load("psutil").Process().memory_info().rss)
