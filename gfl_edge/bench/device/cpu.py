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
        self.missing = self._find_missing()

    def _find_missing(self) -> dict[str, str]:
        first = self.read()
        missing = {"memory": "no GPU is used; host memory is given for each model"}
        if not first.clocks_mhz:
            missing["clocks"] = f"no cpufreq below {self._root}sys: {_NOT_SHOWN}"
        if not first.temperatures_c:
            missing["temperature"] = f"no thermal zone below {self._root}sys: {_NOT_SHOWN}"
        if not first.throttle_events:
            missing["throttling"] = f"no thermal_throttle counters below {self._root}sys: {_NOT_SHOWN}"
        if first.energy_j is None:
            if self._packages:
                unreadable = self._packages[0] / "energy_uj"
                missing["power"] = f"{unreadable} cannot be read; it needs root, or: chmod a+r on it"
            else:
                missing["power"] = f"no RAPL counter below {self._root}sys/class/powercap: {_NOT_SHOWN}"
        return missing

    def read(self) -> Reading:
        """See :meth:`gfl_edge.bench.device.counters.Counters.read`."""
        return Reading(
            clocks_mhz=sysfs.cpu_clocks_mhz(self._root),
            temperatures_c=sysfs.temperatures_c(self._root),
            energy_j=self._energy_j(),
            throttle_events=self._throttle_events(),
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

    def _throttle_events(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for kind in ("core", "package"):
            paths = (self._root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
            counts = [count for path in paths if (count := sysfs.number(path)) is not None]
            if counts:
                found[f"{kind} too hot"] = int(sum(counts))
        return found

    def memory_bytes(self) -> int | None:
        """None: see ``missing``."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""
