"""What a device says about itself while it works: clocks, temperature, power, throttling."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from gfl_edge.report.schema import DeviceCounters, Missing, Range


@dataclass(frozen=True)
class Reading:
    """The counters of a device at one moment; what it does not have is left out.

    Attributes:
        clocks_mhz: by name.
        temperatures_c: by name.
        powers_w: by name of the rail; what a whole board or card takes is ``TOTAL``.
        energy_j: a counter that only grows; None: there is none.
        throttled: why the device runs slower than it could, now.
        throttle_events: counters that grow when it does, by name.
    """

    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    powers_w: Mapping[str, float] = field(default_factory=dict)
    energy_j: float | None = None
    throttled: tuple[str, ...] = ()
    throttle_events: Mapping[str, int] = field(default_factory=dict)


TOTAL = "total"


class Counters(Protocol):
    """The counters of one device."""

    name: str  # where they come from
    missing: dict[str, str]  # why there are none: "clocks", "temperature", "power", "throttling", "memory" -> reason

    def read(self) -> Reading:
        """The counters now; never raises for what is not there."""
        ...

    def memory_bytes(self) -> int | None:
        """Memory of the device in use, by everything on it; None: not known."""
        ...

    def close(self) -> None:
        """Let go of the device. Calling it twice is fine."""
        ...


@dataclass
class Turn:
    """A while that one case ran: its seconds, images, and the readings at its start, middle and end."""

    seconds: float
    images: int
    readings: list[Reading]

    @property
    def energy_j(self) -> float:
        """What its counter grew by; only for a device that has one."""
        first, last = self.readings[0].energy_j, self.readings[-1].energy_j
        assert first is not None
        assert last is not None
        return last - first


class Recorder:
    """Collects readings while one case runs, turn by turn."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._turns: list[Turn] = []

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Read at the start and the end of a ``with`` block, which sets ``images`` to how many it ran."""
        turn = Turn(0.0, 0, [self._counters.read()])
        start = time.perf_counter()
        yield turn
        turn.seconds = time.perf_counter() - start
        turn.readings.append(self._counters.read())
        self._turns.append(turn)

    def read(self, turn: Turn) -> None:
        """Read in the middle of a turn."""
        turn.readings.append(self._counters.read())

    def summary(self) -> DeviceCounters:
        """For the report.

        Clocks, temperatures and powers are those of the middles and ends of turns: at their starts the device may have
        come from something else.
        """
        working = [reading for turn in self._turns for reading in turn.readings[1:]]
        grown = {
            name
            for turn in self._turns
            for name, after in turn.readings[-1].throttle_events.items()
            if after > turn.readings[0].throttle_events.get(name, after)
        }
        reasons = grown.union(*(reading.throttled for reading in working))
        return DeviceCounters(
            source=self._counters.name,
            clocks_mhz=_ranges([reading.clocks_mhz for reading in working]),
            temperatures_c=_ranges([reading.temperatures_c for reading in working]),
            powers_w=_ranges([reading.powers_w for reading in working]),
            energy_per_image_j=self._energy_per_image(),
            energy_from=self._energy_source(),
            throttled=None if "throttling" in self._counters.missing else bool(reasons),
            throttle_reasons=tuple(sorted(reasons)),
            missing=tuple(Missing(what, why) for what, why in sorted(self._counters.missing.items())),
        )

    def _energy_source(self) -> Literal["counter", "power"] | None:
        readings = [reading for turn in self._turns for reading in turn.readings]
        if readings and all(reading.energy_j is not None for reading in readings):
            return "counter"
        return "power" if any(TOTAL in reading.powers_w for reading in readings) else None

    def _energy_per_image(self) -> float | None:
        """Joules of everything that ran in the turns, reading and drawing included, by their images."""
        source, images = self._energy_source(), sum(turn.images for turn in self._turns)
        if source is None or not images:
            return None
        if source == "counter":
            return sum(turn.energy_j for turn in self._turns) / images
        watts = [r.powers_w[TOTAL] for turn in self._turns for r in turn.readings[1:] if TOTAL in r.powers_w]
        return float(np.mean(watts)) * sum(turn.seconds for turn in self._turns) / images


def _ranges(values: Sequence[Mapping[str, float]]) -> tuple[Range, ...]:
    """Smallest, mean and largest of each name."""
    names = sorted({name for row in values for name in row})
    found = []
    for name in names:
        column = [row[name] for row in values if name in row]
        found.append(Range(name, min(column), float(np.mean(column)), max(column)))
    return tuple(found)
