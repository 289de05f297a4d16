"""CUDA C++ to machine code at run time, kept on disk for the next start."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gfl_edge import optional
from gfl_edge.cuda.kept import keep, read_kept
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.files import cache_folder

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CudaSource:
    """One translation unit."""

    name: str  # "gfl_kernels.cu", in the compiler's messages
    text: str
    headers: dict[str, str] = field(default_factory=dict)  # text by the name that #include has


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


class Nvrtc:
    """NVIDIA's run-time compiler, which needs neither a CUDA toolkit nor a GPU, through cuda-python.

    Raises:
        MissingDependencyError: cuda-python or NVRTC's library is not installed.
    """

    # Without fused a * b + c, which rounds differently from the reference, ties stay ties. The headers also declare
    # functions of the host, which NVRTC refuses unless they may pass for the device's.
    options: tuple[str, ...] = ("--std=c++17", "--fmad=false", "--device-as-default-execution-space")

    def __init__(self) -> None:
        self._nvrtc = optional.load_renamed("cuda.bindings.nvrtc", "cuda.nvrtc")  # before 12.6.1
        try:
            numbers = self._call("nvrtcVersion")
        except RuntimeError as error:  # the library is loaded by the first call, not by the import
            raise MissingDependencyError(
                f"NVRTC, which compiles the CUDA kernels, is not installed ({str(error).strip()}). "
                "Install it with: pip install 'gfl-edge[rtx]' or 'gfl-edge[tensorrt]', on a Jetson 'gfl-edge[jetson6]' "
                "or 'gfl-edge[jetson7]' by its JetPack"
            ) from error
        self.version = "NVRTC {}.{}".format(*numbers)

    def compile(self, source: CudaSource, compute_capability: str) -> bytes:
        """See :meth:`Compiler.compile`."""
        architecture = self._architecture(compute_capability)
        names = [name.encode() for name in source.headers]
        texts = [text.encode() for text in source.headers.values()]
        program = self._call("nvrtcCreateProgram", source.text.encode(), source.name.encode(), len(names), texts, names)
        try:
            options = [option.encode() for option in (f"--gpu-architecture={architecture}", *self.options)]
            status, *_ = self._nvrtc.nvrtcCompileProgram(program, len(options), options)
            log = self._text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
            if status != self._nvrtc.nvrtcResult.NVRTC_SUCCESS:
                raise BackendError(f"{self.version} cannot compile {source.name} for {architecture}: {log or status}")
            if log:
                _LOG.debug("%s compiled %s for %s with warnings: %s", self.version, source.name, architecture, log)
            return self._text(program, "CUBIN" if architecture.startswith("sm_") else "PTX")
        finally:
            self._nvrtc.nvrtcDestroyProgram(program)

    def _architecture(self, compute_capability: str) -> str:
        """ "sm_75"; "compute_121", whose PTX the driver finishes, where the GPU is newer than this NVRTC."""
        wanted = int(compute_capability.removeprefix("sm"))
        known = self._call("nvrtcGetSupportedArchs")
        if wanted in known:
            return f"sm_{wanted}"
        older = [number for number in known if number < wanted]
        if not older:
            raise BackendError(
                f"{self.version} compiles for sm{min(known)} and newer, this GPU is {compute_capability}. "
                "Install an older version, for example: pip install 'cuda-python<13' nvidia-cuda-nvrtc-cu12"
            )
        return f"compute_{max(older)}"

    def _text(self, program: Any, kind: str) -> bytes:
        # NVRTC writes into it; a single byte would be an object that all of Python shares
        content: bytes = b" " * (self._call(f"nvrtcGet{kind}Size", program) + 1)
        self._call(f"nvrtcGet{kind}", program, content)  # fills the bytes in place
        return content[:-1]

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a function of NVRTC, whose answers are tuples (status, value, ...), and return the value or values."""
        status, *values = getattr(self._nvrtc, function)(*arguments)
        if status != self._nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise BackendError(f"NVRTC failed in {function}: {status}")
        return values[0] if len(values) == 1 else values


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


def open_compiler() -> Compiler:
    """NVRTC where it is installed, else pycuda's nvcc.

    Raises:
        MissingDependencyError: neither is; says what to install.
    """
    try:
        return Nvrtc()
    except MissingDependencyError as missing:
        try:
            return PycudaNvcc()
        except (MissingDependencyError, BackendError) as error:
            _LOG.debug("%s", error)
        raise missing


def compiled(source: CudaSource, compute_capability: str, compiler: Compiler | None = None) -> bytes:
    """Machine code of ``source`` for a GPU, from the cache or else compiled and put there.

    The cache is the folder that ``GFL_EDGE_CACHE`` names, else ``gfl_edge`` in the user's cache folder. Where it cannot
    be read or written, everything is compiled anew each time.

    Args:
        source: what to compile.
        compute_capability: of the GPU, "sm75".
        compiler: what compiles; None: see :func:`open_compiler`.

    Raises:
        MissingDependencyError: no compiler is installed.
        BackendError: it cannot compile this.
    """
    compiler = compiler or open_compiler()
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
