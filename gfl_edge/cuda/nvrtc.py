"""NVIDIA's run-time compiler NVRTC, which needs neither toolkit nor GPU: finding it, and calling its C interface."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfl_edge.cuda.source import CudaSource
from gfl_edge.errors import BackendError, MissingDependencyError

OLDEST_CUDA = 12  # major version
NEWEST_CUDA = 13  # that the system's loader is asked for; of packages every version is found

_FILE = re.compile(r"libnvrtc\.so\.(\d+)|nvrtc64_(\d+)0_0\.dll")
_INSTALL = (
    "pip install 'gfl-edge[rtx]' or 'gfl-edge[tensorrt]', on a Jetson 'gfl-edge[jetson6]' or 'gfl-edge[jetson7]' "
    "by its JetPack"
)


class Nvrtc:
    """The newest NVRTC here that a driver can follow.

    A driver loads machine code of its own major version of CUDA and older. Packages of several versions may be
    installed beside one another.

    Args:
        driver_version: newest CUDA that the driver runs, "12.6"; None: any.

    Raises:
        MissingDependencyError: there is none, or only newer ones; says what to install.
    """

    # Without fused a * b + c, which rounds differently from the reference, ties stay ties. The headers also declare
    # functions of the host, which NVRTC refuses unless they may pass for the device's.
    options: tuple[str, ...] = ("--std=c++17", "--fmad=false", "--device-as-default-execution-space")

    def __init__(self, driver_version: str | None = None) -> None:
        self._library = _load(driver_version)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        numbers = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", *map(ctypes.byref, numbers))
        self.version = f"NVRTC {numbers[0].value}.{numbers[1].value}"

    def compile(self, source: CudaSource, compute_capability: str) -> bytes:
        """See :meth:`gfl_edge.cuda.compiler.Compiler.compile`."""
        architecture = self._architecture(compute_capability)
        program = ctypes.c_void_p()
        texts, names = _strings(source.headers.values()), _strings(source.headers)
        text, name = source.text.encode(), source.name.encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, name, len(source.headers), texts, names)
        try:
            options = (f"--gpu-architecture={architecture}", *self.options)
            status = self._library.nvrtcCompileProgram(program, len(options), _strings(options))
            if status:
                reason = self._text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
                raise BackendError(
                    f"{self.version} cannot compile {source.name} for {architecture}: {reason or self._error(status)}"
                )
            return self._text(program, "CUBIN" if architecture.startswith("sm_") else "PTX")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _architecture(self, compute_capability: str) -> str:
        """ "sm_75"; "compute_121", whose PTX the driver finishes, where the GPU is newer than this NVRTC."""
        wanted = int(compute_capability.removeprefix("sm"))
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", known)
        if wanted in known:
            return f"sm_{wanted}"
        older = [number for number in known if number < wanted]
        if not older:
            raise BackendError(
                f"{self.version} compiles for sm{min(known)} and newer, this GPU is {compute_capability}. "
                "Install an older version, for example: pip install nvidia-cuda-nvrtc-cu12, and uninstall this one"
            )
        return f"compute_{max(older)}"

    def _text(self, program: ctypes.c_void_p, kind: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{kind}", program, content)
        return content.raw

    def _call(self, function: str, *arguments: Any) -> None:
        if status := getattr(self._library, function)(*arguments):
            raise BackendError(f"NVRTC failed in {function}: {self._error(status)}")

    def _error(self, status: int) -> str:
        return str(self._library.nvrtcGetErrorString(status).decode())


def _strings(texts: Any) -> Any:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def _load(driver_version: str | None) -> ctypes.CDLL:
    newest = int(driver_version.partition(".")[0]) if driver_version else None
    too_new = ""
    for major, library in _candidates():
        if newest is not None and major > newest:
            too_new = too_new or (library if Path(library).is_file() else "")
            continue
        try:
            return ctypes.CDLL(library)
        except OSError:
            continue
    if too_new:
        package = "nvidia-cuda-nvrtc-cu12" if newest == OLDEST_CUDA else f"'nvidia-cuda-nvrtc=={newest}.*'"
        raise MissingDependencyError(
            f"NVRTC, which compiles the CUDA kernels, is here only for a newer CUDA ({Path(too_new).name}) than that "
            f"of the driver, {driver_version}. Update the driver, or install the one that fits: pip install {package}"
        )
    raise MissingDependencyError(
        f"NVRTC, which compiles the CUDA kernels, is not installed. Install it with: {_INSTALL}"
    )


def _candidates() -> list[tuple[int, str]]:
    """Major version of CUDA, and path or name, the newest first; of one version, that of NVIDIA's package first."""
    found = [(int(match[1] or match[2]), str(path)) for path in _files() if (match := _FILE.fullmatch(path.name))]
    named = [(major, f"libnvrtc.so.{major}") for major in range(NEWEST_CUDA, OLDEST_CUDA - 1, -1)]
    return sorted(found + named, key=lambda candidate: -candidate[0])


def _files() -> Iterator[Path]:
    """What may be NVRTC, in NVIDIA's packages and then in CUDA toolkits."""
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package else ():
        for pattern in ("*/lib/libnvrtc.so.*", "*/bin/**/nvrtc64_*.dll"):
            yield from sorted(Path(folder).glob(pattern))
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), sys.prefix, "/usr/local/cuda"]
    for toolkit in filter(None, toolkits):
        for pattern in ("lib64/libnvrtc.so.*", "lib/libnvrtc.so.*", "bin/nvrtc64_*.dll"):
            yield from sorted(Path(toolkit).glob(pattern))
