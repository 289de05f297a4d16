"""The counters of an NVIDIA card, from NVML (nvidia-ml-py, the extra ``report``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gfl_edge import optional
from gfl_edge.bench.device.counters import TOTAL, Reading
from gfl_edge.errors import BackendError

# bit of nvmlDeviceGetCurrentClocksThrottleReasons -> what it means; idle and settings of the user are none of these
THROTTLE_REASONS = {
    0x0000000000000004: "power cap reached",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "too hot (driver)",
    0x0000000000000040: "too hot (hardware)",
    0x0000000000000080: "power brake",
}


class NvmlCounters:
    """The card at a place of the PCI bus, which CUDA tells of its device.

    Names do not say which one it is: there may be several alike, and one name begins another's. Numbers do not either:
    NVML counts cards that ``CUDA_VISIBLE_DEVICES`` hides from CUDA, and in another order.

    Args:
        pci_bus_id: "0000:0B:00.0".

    Raises:
        MissingDependencyError: nvidia-ml-py is not installed.
        BackendError: no NVML, or no such card.
    """

    name = "NVML"

    def __init__(self, pci_bus_id: str) -> None:
        self._library = optional.load("pynvml")
        self._open = False
        try:
            self._library.nvmlInit()
            self._open = True
            self._card = self._library.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
        except self._library.NVMLError as error:
            what = f"NVML knows no card at {pci_bus_id}" if self._open else "NVML cannot be used"
            self.close()
            raise BackendError(f"{what} ({error}). Is the NVIDIA driver installed?") from error
        except BaseException:
            self.close()
            raise
        self.missing: dict[str, str] = {}
        self.read()
        self.memory_bytes()

    def read(self) -> Reading:
        """See :meth:`gfl_edge.bench.device.counters.Counters.read`."""
        library, card = self._library, self._card
        kinds = (("sm", library.NVML_CLOCK_SM), ("memory", library.NVML_CLOCK_MEM))
        clocks = {name: self._ask("clocks", library.nvmlDeviceGetClockInfo, card, kind) for name, kind in kinds}
        temperature = self._ask("temperature", library.nvmlDeviceGetTemperature, card, library.NVML_TEMPERATURE_GPU)
        power_mw = self._ask("power", library.nvmlDeviceGetPowerUsage, card)
        energy_mj = self._ask("energy", library.nvmlDeviceGetTotalEnergyConsumption, card)
        bits = self._ask("throttling", library.nvmlDeviceGetCurrentClocksThrottleReasons, card)
        return Reading(
            clocks_mhz={name: float(clock) for name, clock in clocks.items() if clock is not None},
            temperatures_c={} if temperature is None else {"gpu": float(temperature)},
            powers_w={} if power_mw is None else {TOTAL: power_mw / 1000},
            energy_j=None if energy_mj is None else energy_mj / 1000,
            throttled=tuple(reason for bit, reason in THROTTLE_REASONS.items() if (bits or 0) & bit),
        )

    def _ask(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer; None, and the reason in ``missing``, where this card has none."""
        try:
            return function(*arguments)
        except self._library.NVMLError as error:
            self.missing[what] = f"NVML: {error}"
            return None

    def memory_bytes(self) -> int | None:
        """Device memory in use, by everything that runs on the card."""
        memory = self._ask("memory", self._library.nvmlDeviceGetMemoryInfo, self._card)
        return None if memory is None else int(memory.used)

    def close(self) -> None:
        """See :meth:`gfl_edge.bench.device.counters.Counters.close`."""
        if self._open:
            self._open = False
            self._library.nvmlShutdown()
