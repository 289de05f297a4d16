"""CUDA C++ to machine code at run time, kept on disk for the next start."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Protocol

from gfl_edge import optional
from gfl_edge.cuda.kept import keep, read_kept
from gfl_edge.cuda.nvrtc import Nvrtc
from gfl_edge.cuda.source import CudaSource
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.files import cache_folder

_LOG = logging.getLogger(__name__)


class Compiler(Protocol):
    """Something that compiles CUDA C++."""

    version: str  # "NVRTC 13.4"
    options: tuple[str, ...]  # of every compilation

    def compile(self, source: CudaSource, compute_capability: str) -> bytes:
        """A CUBIN for a GPU, "sm75", or PTX where the compiler is older than the GPU.

        Raises:
            BackendError: the source has errors, or the compiler cannot compile for this GPU; carries its messages.
        """
        ...


class PycudaNvcc:
    """The CUDA toolkit's nvcc through pycuda, for machines that have these two instead of cuda-python.

    Raises:
        MissingDependencyError: pycuda or nvcc is not installed.
        BackendError: pycuda is, but the driver is not.
    """

    options: tuple[str, ...] = ("-std=c++17", "-fmad=false")

    def __init__(self) -> None:
        self._compiler = optional.load("pycuda.compiler")
        try:
            version = str(self._compiler.get_nvcc_version("nvcc"))
        except Exception as error:  # pycuda and pytools have a type each for a program that does not start
            raise MissingDependencyError(
                f"nvcc, which compiles the CUDA kernels for pycuda, does not run ({error}). Put the CUDA toolkit's "
                "folder bin on PATH, or install NVRTC with: pip install 'gfl-edge[rtx]' or 'gfl-edge[tensorrt]'"
            ) from error
        self.version = "nvcc " + " ".join(version.split())

    def compile(self, source: CudaSource, compute_capability: str) -> bytes:
        """See :meth:`Compiler.compile`."""
        architecture = "sm_" + compute_capability.removeprefix("sm")
        try:
            image = self._compiler.compile(
                inlined(source), options=list(self.options), no_extern_c=True, arch=architecture, cache_dir=False
            )
        except Exception as error:  # pycuda.driver.CompileError, or what a missing host compiler makes of it
            raise BackendError(f"nvcc cannot compile {source.name} for {architecture}: {error}") from error
        return bytes(image)


def inlined(source: CudaSource) -> str:
    """The text of ``source`` with its headers in place of the lines that include them; system headers stay."""
    lines = []
    for line in source.text.splitlines():
        directive = line.split()
        if len(directive) == 2 and directive[0] == "#include" and directive[1][0] == '"':
            header = directive[1].strip('"')
            line = inlined(CudaSource(header, source.headers[header], source.headers))
        lines.append(line)
    return "\n".join(lines) + "\n"


def open_compiler(driver_version: str | None = None) -> Compiler:
    """NVRTC where it is installed, else pycuda's nvcc.

    Args:
        driver_version: newest CUDA that the driver runs, "12.6"; None: any.

    Raises:
        MissingDependencyError: neither is; says what to install.
    """
    try:
        return Nvrtc(driver_version)
    except MissingDependencyError as missing:
        try:
            return PycudaNvcc()
        except (MissingDependencyError, BackendError) as error:
            _LOG.debug("%s", error)
        raise missing


def compiled(source: CudaSource, compute_capability: str, compiler: Compiler) -> bytes:
    """Machine code of ``source`` for a GPU, from the cache or else compiled and put there.

    The cache is the folder that ``GFL_EDGE_CACHE`` names, else ``gfl_edge`` in the user's cache folder. Where it cannot
    be read or written, everything is compiled anew each time.

    Args:
        source: what to compile.
        compute_capability: of the GPU, "sm75".
        compiler: what compiles.

    Raises:
        BackendError: it cannot compile this.
    """
    parts = (source.name, source.text, source.headers, compiler.version, compiler.options)
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = cache_folder()
    path = folder / "kernels" / f"{Path(source.name).stem}-{compute_capability}-{key[:16]}.bin" if folder else None
    image = read_kept(path) if path else None
    if image is None:
        _LOG.debug("compiling %s for %s with %s", source.name, compute_capability, compiler.version)
        image = compiler.compile(source, compute_capability)
        if path:
            keep(path, image)
    return image
