"""Temperature and power of the device that a run uses, read at most once a second for all who ask."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from gfl_edge.backends.base import Backend
from gfl_edge.bench.device.counters import TOTAL, Counters
from gfl_edge.bench.device.open import open_counters

READ_SECONDS = 1.0


@dataclass(frozen=True)
class DeviceState:
    """Of a device, as far as it is known.

    Attributes:
        temperatures_c: by name of the sensor.
        powers_w: by name of the rail.
        missing: "temperature" and "power", where there are none: why.
    """

    temperatures_c: dict[str, float] = field(default_factory=dict)
    powers_w: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class DeviceGauge:
    """Reads the counters of a backend's device; may be used in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._backend: Backend | None = None
        self._counters: Counters | None = None
        self._state, self._read_s = DeviceState(), 0.0
        self._energy: tuple[float, float] | None = None  # joules so far, and when

    def read(self, backend: Backend) -> DeviceState:
        """The device of ``backend`` now, or up to a second ago."""
        with self._lock:
            if self._backend is not backend:
                self._close()
                self._backend, self._counters = backend, open_counters(backend)
                self._read_s = 0.0
            now = time.monotonic()
            if self._counters is not None and now - self._read_s >= READ_SECONDS:
                self._state, self._read_s = self._now(self._counters, now), now
            return self._state

    def _now(self, counters: Counters, now: float) -> DeviceState:
        reading = counters.read()
        powers, missing = dict(reading.powers_w), {}
        if reading.energy_j is not None and TOTAL not in powers:  # power needs two looks
            before, self._energy = self._energy, (reading.energy_j, now)
            if before is not None:
                powers[TOTAL] = max(0.0, reading.energy_j - before[0]) / (now - before[1])
        for what, found in (("temperature", reading.temperatures_c), ("power", powers)):
            if not found and what in counters.missing:
                missing[what] = counters.missing[what]
        return DeviceState(dict(reading.temperatures_c), powers, missing)

    def _close(self) -> None:
        if self._counters is not None:
            self._counters.close()
        self._backend = self._counters = self._energy = None

    def close(self) -> None:
        """Let go of the device."""
        with self._lock:
            self._close()
