"""The GPU: the few CUDA calls that running an engine needs by one small interface, and the kernels.

May import ops, the spec, the errors and the small tools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from gfl_edge.cuda.cuda_python import CudaPythonDevice
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.pycuda import PycudaDevice
from gfl_edge.errors import InputError, MissingDependencyError

CudaLibrary = Literal["auto", "cuda-python", "pycuda"]
_DEVICE_OF: dict[CudaLibrary, Callable[[], CudaDevice]] = {"cuda-python": CudaPythonDevice, "pycuda": PycudaDevice}


def open_device(prefer: CudaLibrary = "auto") -> CudaDevice:
    """Open the first GPU.

    Args:
        prefer: the library to reach it with; "auto" takes cuda-python where it is installed, else pycuda.

    Raises:
        InputError: unknown library.
        MissingDependencyError: the library is not installed; names the extra.
        BackendError: no driver, no GPU, or CUDA failed.
    """
    if prefer not in get_args(CudaLibrary):
        raise InputError(f"unknown CUDA library {prefer!r}: expected one of {', '.join(get_args(CudaLibrary))}")
    if prefer != "auto":
        return _DEVICE_OF[prefer]()
    for open_with in _DEVICE_OF.values():
        try:
            return open_with()
        except MissingDependencyError:
            continue
    raise MissingDependencyError(
        "neither cuda-python nor pycuda is installed, one of which reaches the GPU. Install cuda-python with: "
        "pip install 'gfl-edge[rtx]' or 'gfl-edge[tensorrt]', on a Jetson 'gfl-edge[jetson6]' or 'gfl-edge[jetson7]' "
        "by its JetPack, or pycuda with: pip install 'gfl-edge[pycuda]'"
    )
