"""Reading the files below /sys and /proc, or below a folder that stands for the root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def text(path: Path) -> str | None:
    """The content of a file without white space around it; None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip().strip("\0")
    except OSError:
        return None


def number(path: Path) -> float | None:
    """The number in a file; None where it cannot be read or holds none."""
    content = text(path)
    try:
        return None if content is None else float(content)
    except ValueError:
        return None


def temperatures_c(root: Path) -> dict[str, float]:
    """Of the thermal zones that are switched on, by their types."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        millidegrees = number(zone / "temp")
        if millidegrees is not None and millidegrees > -100_000:  # Jetson's zones say -256 degrees when switched off
            found[text(zone / "type") or zone.name] = millidegrees / 1000
    return found


def hwmon(root: Path, name: str) -> Iterator[Path]:
    """The folders of the hardware monitors of that name."""
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if text(folder / "name") == name:
            yield folder


def cpu_clocks_mhz(root: Path) -> dict[str, float]:
    """Current clock of each core that has a governor, "cpu0" and so on."""
    found: dict[str, float] = {}
    for path in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")):
        kilohertz = number(path)
        if kilohertz is not None:
            found[path.parent.parent.name] = kilohertz / 1000
    return found
