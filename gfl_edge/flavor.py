"""The two flavours of TensorRT, which share one API: full TensorRT and TensorRT-RTX."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from gfl_edge import optional

Flavor = Literal["tensorrt", "rtx"]
MODULE_OF: dict[Flavor, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}


def load_flavor(flavor: Flavor) -> ModuleType:
    """Import the Python module of a flavour.

    Both expose the API of ``tensorrt``. To have calls checked against its stubs, callers write::

        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = load_flavor(flavor)

    Raises:
        MissingDependencyError: it is not installed; names the extra.
    """
    return optional.load(MODULE_OF[flavor])


def available_flavors() -> tuple[Flavor, ...]:
    """The flavours that can be imported here, full TensorRT first."""
    return tuple(flavor for flavor, module in MODULE_OF.items() if optional.available(module))
