"""Which counters describe what a model runs on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from gfl_edge.backends.base import Backend
from gfl_edge.bench.device.counters import Counters, Reading
from gfl_edge.bench.device.cpu import CpuCounters
from gfl_edge.bench.device.jetson import JetsonCounters
from gfl_edge.bench.device.nvml import NvmlCounters
from gfl_edge.environment import is_jetson
from gfl_edge.errors import BackendError, MissingDependencyError

ON_CPU = ("openvino", "onnxruntime")  # backends that use no GPU


@runtime_checkable
class OnGpu(Protocol):
    """A backend that says which GPU it runs on.

    Attributes:
        pci_bus_id: of the GPU, "0000:0B:00.0".
    """

    pci_bus_id: str


class NoCounters:
    """For a GPU about which nothing can be found out."""

    name = "none"

    def __init__(self, reason: str) -> None:
        self.missing = dict.fromkeys(("clocks", "temperature", "power", "throttling", "memory"), reason)

    def read(self) -> Reading:
        """Nothing."""
        return Reading()

    def memory_bytes(self) -> int | None:
        """None."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""


def open_counters(backend: Backend, root: Path = Path("/")) -> Counters:
    """The counters of the device that ``backend`` runs on; where there are none, they say why.

    Args:
        backend: that runs a model.
        root: folder that stands for the root of the file system.
    """
    if is_jetson(root):
        return JetsonCounters(root)
    if backend.name in ON_CPU:
        return CpuCounters(root)
    if not isinstance(backend, OnGpu):
        return NoCounters(f"the backend {backend.name} does not say by pci_bus_id which GPU it runs on")
    try:
        return NvmlCounters(backend.pci_bus_id)
    except (BackendError, MissingDependencyError) as error:
        return NoCounters(str(error))
