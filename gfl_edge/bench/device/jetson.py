"""The counters of a Jetson board, whose GPU NVML does not describe."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.bench.device import sysfs
from gfl_edge.bench.device.counters import TOTAL, Reading

INPUT_RAILS = ("VDD_IN", "POM_5V_IN")  # what the whole module takes, where it is measured
_GPU_DEVFREQ = ("gpu", "ga10b", "gv11b", "gp10b", "gb10b")  # "17000000.gpu", "17000000.ga10b"
_NOT_CONNECTED = "NC"


class JetsonCounters:
    """Clocks from devfreq and cpufreq, power from the INA3221 monitors, throttling from the over-current counters.

    Args:
        root: folder that stands for the root of the file system.
    """

    name = "Jetson sysfs"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        first = self.read()
        self.missing: dict[str, str] = {"memory": "CPU and GPU share it; host memory is given for each model"}
        for what, found, where in (
            ("clocks", first.clocks_mhz, "sys/class/devfreq"),
            ("temperature", first.temperatures_c, "sys/class/thermal"),
            ("power", first.powers_w, "sys/class/hwmon with the name ina3221"),
            ("throttling", first.throttle_events, "sys/class/hwmon with the name soctherm_oc"),
        ):
            if not found:
                self.missing[what] = f"nothing below {root}{where}; containers need /sys of the host"

    def read(self) -> Reading:
        """See :meth:`gfl_edge.bench.device.counters.Counters.read`."""
        clocks_mhz: dict[str, float] = {}
        for folder in sorted((self._root / "sys/class/devfreq").glob("*")):
            if folder.name.rpartition(".")[2] in _GPU_DEVFREQ:
                hertz = sysfs.number(folder / "cur_freq")
                if hertz is not None:
                    clocks_mhz["gpu"] = hertz / 1e6
                    break
        over_current_events: dict[str, int] = {}
        for monitor in sysfs.hwmon(self._root, "soctherm_oc"):
            for path in sorted(monitor.glob("oc*_event_cnt")):
                count = sysfs.number(path)
                if count is not None:
                    over_current_events[f"over-current {path.name.partition('_')[0]}"] = int(count)
        return Reading(
            clocks_mhz={**clocks_mhz, **sysfs.cpu_clocks_mhz(self._root)},
            temperatures_c=sysfs.temperatures_c(self._root),
            powers_w=self._powers_w(),
            throttle_events=over_current_events,
        )

    def _powers_w(self) -> dict[str, float]:
        rails: dict[str, float] = {}
        for monitor in sysfs.hwmon(self._root, "ina3221"):
            for channel in (1, 2, 3):
                label = sysfs.text(monitor / f"in{channel}_label")
                millivolts = sysfs.number(monitor / f"in{channel}_input")
                milliamperes = sysfs.number(monitor / f"curr{channel}_input")
                if label and label != _NOT_CONNECTED and millivolts is not None and milliamperes is not None:
                    rails[label] = millivolts * milliamperes / 1e6
        whole = [rails[name] for name in INPUT_RAILS if name in rails]
        if rails:  # AGX boards measure no input, but rails that feed all parts
            rails[TOTAL] = whole[0] if whole else sum(rails.values())
        return rails

    def memory_bytes(self) -> int | None:
        """None: see ``missing``."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""
