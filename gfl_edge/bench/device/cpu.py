"""The counters of a CPU, as Linux shows them."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.bench.device import sysfs
from gfl_edge.bench.device.counters import Reading

_NOT_SHOWN = "this machine does not show it, as virtual machines do not"


class CpuCounters:
    """Clocks, temperatures and throttle events from /sys, energy from RAPL where it may be read.

    Args:
        root: folder that stands for the root of the file system.
    """

    name = "Linux sysfs"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._packages = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]"))
        self._last_uj: dict[Path, float] = {}
        self._wrapped_uj = 0.0
        first = self.read()
        self.missing: dict[str, str] = {"memory": "no GPU is used; host memory is given for each model"}
        if not first.clocks_mhz:
            self.missing["clocks"] = f"no cpufreq below {root}sys: {_NOT_SHOWN}"
        if not first.temperatures_c:
            self.missing["temperature"] = f"no thermal zone below {root}sys: {_NOT_SHOWN}"
        if not first.throttle_events:
            self.missing["throttling"] = f"no thermal_throttle counters below {root}sys: {_NOT_SHOWN}"
        if first.energy_j is None and self._packages:
            unreadable = self._packages[0] / "energy_uj"
            self.missing["power"] = f"{unreadable} cannot be read; it needs root, or: chmod a+r on it"
        elif first.energy_j is None:
            self.missing["power"] = f"no RAPL counter below {root}sys/class/powercap: {_NOT_SHOWN}"

    def read(self) -> Reading:
        """See :meth:`gfl_edge.bench.device.counters.Counters.read`."""
        throttle_events: dict[str, int] = {}
        for kind in ("core", "package"):
            paths = (self._root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
            counts = [count for path in paths if (count := sysfs.number(path)) is not None]
            if counts:
                throttle_events[f"{kind} too hot"] = int(sum(counts))
        return Reading(
            clocks_mhz=sysfs.cpu_clocks_mhz(self._root),
            temperatures_c=sysfs.temperatures_c(self._root),
            energy_j=self._energy_j(),
            throttle_events=throttle_events,
        )

    def _energy_j(self) -> float | None:
        """Of all packages together; the counters start again at 0 now and then."""
        values = {package: sysfs.number(package / "energy_uj") for package in self._packages}
        total_uj = 0.0
        for package, value in values.items():
            if value is None:
                return None
            if value < self._last_uj.get(package, 0.0):
                self._wrapped_uj += sysfs.number(package / "max_energy_range_uj") or 0.0
            self._last_uj[package] = value
            total_uj += value
        return (total_uj + self._wrapped_uj) / 1e6 if values else None

    def memory_bytes(self) -> int | None:
        """None: see ``missing``."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""
