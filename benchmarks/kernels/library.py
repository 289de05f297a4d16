"""The CUDA kernels of plugins/ from Python: built by nvcc for a GPU, or by g++ for the emulation on the host."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import os
import re
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from benchmarks.kernels.memory import Array, HostMemory, Memory, memory_of
from gfl_edge.cuda import kernels
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import FLOAT16, FLOAT32, MAX_LEVELS, NmsParams, ResizeParams

PLUGINS = Path(__file__).resolve().parent.parent.parent / "plugins"
ORDERS = ("forward", "reverse", "random")
WORK = (  # the fields of Work in plugins/emulation/cuda_runtime.h
    "launches",
    "blocks",
    "elements_read",
    "keys_written",
    "edges_decoded",
    "ious",
    "shared",
    "global",
    "block_steps",
    "block_shared",
    "block_global",
)
# Has the compiler call the emulation before every access to memory, see plugins/emulation/traffic.h
TRAFFIC = ("-O2", "-DGFL_TRAFFIC", "-fsanitize=thread")


class NmsInputs(ctypes.Structure):
    """GflNmsInputs of gfl_kernels.h."""

    _fields_ = tuple((field.name, ctypes.c_void_p) for field in dataclasses.fields(kernels.NmsInputs))


class NmsOutputs(ctypes.Structure):
    """GflNmsOutputs of gfl_kernels.h."""

    _fields_ = tuple((field.name, ctypes.c_void_p) for field in dataclasses.fields(kernels.NmsOutputs))


def nms_params(
    scores: Array, *, strides: tuple[int, ...] = (), input_hw: tuple[int, int] = (0, 0), **fields: Any
) -> NmsParams:
    """Parameters for scores or logits ``[N, A, C]``, float32 or float16; ``fields`` are those of GflNmsParams.

    Fields that are not given have the values of GFL's own test configuration, K = 100 and candidates of all levels.
    """
    batch, num_anchors, num_classes = scores.shape
    rule = {"max_candidates": 1000, "max_detections": 100, "score_threshold": 0.05, "iou_threshold": 0.6}
    return NmsParams(
        batch=batch,
        num_anchors=num_anchors,
        num_classes=num_classes,
        dtype=FLOAT16 if scores.dtype == np.float16 else FLOAT32,
        input_height=input_hw[0],
        input_width=input_hw[1],
        num_levels=len(strides),
        strides=(ctypes.c_int32 * MAX_LEVELS)(*strides),
        **{**rule, **fields},
    )


class KernelError(Exception):
    """A function of the library did not return GFL_OK; ``status`` is what it returned, the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KernelLibrary(ABC):
    """The kernels, however they are launched."""

    @abstractmethod
    def memory(self) -> AbstractContextManager[Memory]:
        """Memory that the kernels can reach, for a ``with`` block."""

    @abstractmethod
    def workspace_size(self, params: NmsParams) -> int:
        """Bytes that an NMS needs; 0 for impossible parameters."""

    @abstractmethod
    def queue_nms(self, call: NmsCall, stream: int) -> None:
        """Queue the NMS on ``stream``, 0 for the emulation's; raises KernelError if that fails."""

    @abstractmethod
    def queue_resize(self, params: ResizeParams, frame: int, uv: int, out: int, stream: int) -> None:
        """Queue the resize of the frame at address ``frame`` to ``out``, ``uv`` 0 if it has no such plane."""

    def nms(self, params: NmsParams, edge_sigma: bool = False, /, **arrays: Array | None) -> dict[str, Array]:
        """Run the NMS once; arguments and result as for NmsCall."""
        with self.memory() as memory:
            call = NmsCall(self, memory, params, edge_sigma, **arrays)
            call.queue()
            return call.results()

    def resize(self, params: ResizeParams, frame: Array, uv: Array | None = None) -> Array:
        """Run the resize once on uint8 ``frame`` (rows of ``pitch`` bytes) and ``uv``; uint8 ``[H, W, 3]`` BGR."""
        shape = (params.out_height, params.out_width, 3)
        planes = [np.ascontiguousarray(plane).reshape(-1) for plane in (frame, uv) if plane is not None]
        with self.memory() as memory:
            start = memory.put(np.concatenate(planes))  # a UV plane follows its Y plane
            out = memory.empty(int(np.prod(shape)))
            self.queue_resize(params, start, start + planes[0].nbytes if uv is not None else 0, out, memory.stream)
            return memory.get(out, shape, np.uint8)


class CLibrary(KernelLibrary):
    """The C interface of gfl_kernels.h in a shared library, for a GPU or as an emulation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.functions = ctypes.CDLL(str(path))
        self.functions.gfl_nms_workspace_size.restype = ctypes.c_size_t
        self.functions.gfl_last_error.restype = ctypes.c_char_p
        self.functions.gfl_nms.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_size_t, ctypes.c_void_p]
        self.functions.gfl_resize.argtypes = [ctypes.c_void_p] * 5

    def last_error(self) -> str:
        """The message of gfl_last_error."""
        return str(self.functions.gfl_last_error().decode())

    def check(self, status: int) -> None:
        """Raise KernelError unless ``status`` is GFL_OK."""
        if status:
            raise KernelError(status, self.last_error())

    def workspace_size(self, params: NmsParams) -> int:
        """See KernelLibrary."""
        return int(self.functions.gfl_nms_workspace_size(ctypes.byref(params)))

    def queue_nms(self, call: NmsCall, stream: int) -> None:
        """See KernelLibrary."""
        pointers = [ctypes.byref(part) for part in (call.params, call.inputs, call.outputs)]
        self.check(self.functions.gfl_nms(*pointers, call.workspace, call.workspace_size, stream or None))

    def queue_resize(self, params: ResizeParams, frame: int, uv: int, out: int, stream: int) -> None:
        """See KernelLibrary."""
        self.check(self.functions.gfl_resize(ctypes.byref(params), frame, uv or None, out, stream or None))


class NmsCall:
    """One call of gfl_nms with its memory, which can be queued as often as wanted.

    Args:
        library: where the function is.
        memory: where arrays go; it is not closed here.
        params: of gfl_nms; see nms_params.
        edge_sigma: whether the sigmas of what is found in ``reg_logits`` are wanted.
        arrays: ``scores`` ``[N, A, C]``, ``boxes`` ``[N, A, 4]`` or ``reg_logits`` ``[N, A, 4 * (reg_max + 1)]``, and
            ``quality`` ``[N, A]`` if wanted. Boxes are float32, the rest is all float32 or all float16. With boxes,
            ``sigmas`` float32 ``[N, A, 4]`` ask for those of the detections.
    """

    def __init__(
        self,
        library: KernelLibrary,
        memory: Memory,
        params: NmsParams,
        edge_sigma: bool = False,
        /,
        **arrays: Array | None,
    ) -> None:
        self._library, self._memory, self.params = library, memory, params
        self.inputs = NmsInputs(**{name: memory.put(a) for name, a in arrays.items() if a is not None})
        batch, max_detections = params.batch, params.max_detections
        self._shapes: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            "num_dets": ((batch, 1), np.int32),
            "det_boxes": ((batch, max_detections, 4), np.float32),
            "det_scores": ((batch, max_detections), np.float32),
            "det_classes": ((batch, max_detections), np.int32),
        }
        if edge_sigma or arrays.get("sigmas") is not None:
            self._shapes["det_sigmas"] = ((batch, max_detections, 4), np.float32)
        self.outputs = NmsOutputs(
            **{k: memory.empty(4 * int(np.prod(shape))) for k, (shape, _) in self._shapes.items()}
        )
        self.workspace_size = library.workspace_size(params)
        self.workspace = memory.empty(self.workspace_size)

    def queue(self, stream: int | None = None) -> None:
        """Queue the kernels on ``stream``, that of the memory if none; raises KernelError if that fails."""
        self._library.queue_nms(self, self._memory.stream if stream is None else stream)

    def addresses(self) -> tuple[kernels.NmsInputs, kernels.NmsOutputs]:
        """Inputs and outputs as :meth:`gfl_edge.cuda.kernels.Kernels.nms` takes them."""
        inputs, outputs = (
            {field[0]: getattr(part, field[0]) or 0 for field in part._fields_} for part in (self.inputs, self.outputs)
        )
        return kernels.NmsInputs(**inputs), kernels.NmsOutputs(**outputs)

    def results(self) -> dict[str, Array]:
        """The outputs by their names in GflNmsOutputs."""
        return {
            name: self._memory.get(getattr(self.outputs, name), shape, dtype)
            for name, (shape, dtype) in self._shapes.items()
        }


class EmulatedLibrary(CLibrary):
    """The emulation, whose memory is the host's, with its switches."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.functions.gfl_emulate_order.argtypes = [ctypes.c_int, ctypes.c_ulonglong]
        self.functions.gfl_emulate_fault.restype = ctypes.c_char_p
        self.functions.gfl_emulate_work.restype = ctypes.c_char_p

    @contextmanager
    def memory(self) -> Iterator[Memory]:
        """See KernelLibrary."""
        memory = HostMemory()
        yield memory
        memory.close()

    def order(self, order: str, seed: int = 0) -> None:
        """In which order threads go on from now on: one of ORDERS, ``seed`` for "random"."""
        self.functions.gfl_emulate_order(ORDERS.index(order), seed)

    def work(self) -> dict[str, dict[str, int]]:
        """What every kernel that ran did since the last call of this, by its name and the names of WORK."""
        values = (ctypes.c_uint64 * len(WORK))()
        found: dict[str, dict[str, int]] = {}
        while name := self.functions.gfl_emulate_work(len(found), values):
            found[name.decode()] = dict(zip(WORK, values, strict=True))
        self.functions.gfl_emulate_reset_work()
        return {name: row for name, row in found.items() if row["launches"]}


class DeviceLibrary(CLibrary):
    """The library for a GPU."""

    def __init__(self, path: Path, device: CudaDevice) -> None:
        super().__init__(path)
        self.device = device

    def memory(self) -> AbstractContextManager[Memory]:
        """See KernelLibrary. The GPU is this thread's for the ``with`` block."""
        return memory_of(self.device)


def build_emulation(folder: Path, flags: tuple[str, ...] = ("-O2",)) -> Path:
    """Compile the emulation into ``folder`` by g++, or by ``$CXX``; raises FileNotFoundError without a compiler."""
    library = folder / "libgfl_kernels_emulated.so"
    compiler = os.environ.get("CXX", "g++")
    # longjmp between stacks is what a fiber does and what _FORTIFY_SOURCE ends programs for; NumPy fuses no products
    fixed = ("-std=c++17", "-g", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE", "-ffp-contract=off")
    includes = ("-I", str(PLUGINS / "emulation"), "-I", str(PLUGINS / "include"))
    source = str(PLUGINS / "emulation" / "emulation.cpp")
    compiled = str(folder / "emulation.o")
    subprocess.run((compiler, *fixed, *flags, *includes, "-fPIC", "-c", source, "-o", compiled), check=True, cwd=folder)
    # The emulation has the functions that -fsanitize=thread calls, in place of its library
    linked = [flag for flag in flags if flag != "-fsanitize=thread"]
    subprocess.run((compiler, *linked, "-shared", compiled, "-o", str(library)), check=True, cwd=folder)
    return library


def cached_emulation(flags: tuple[str, ...] = ("-O2",)) -> Path:
    """The emulation, compiled once per state of its sources into the folder for temporary files."""
    digest = hashlib.sha256(repr((flags, os.environ.get("CXX"))).encode())
    for path in sorted(PLUGINS.rglob("*")):
        if path.suffix in (".h", ".cuh", ".cu", ".cpp"):
            digest.update(path.read_bytes())
    user = os.getuid() if hasattr(os, "getuid") else 0
    final = Path(tempfile.gettempdir()) / f"gfl_edge-emulation-{user}" / digest.hexdigest()[:16]
    final.parent.mkdir(mode=0o700, exist_ok=True)
    library = final / "libgfl_kernels_emulated.so"
    if not library.exists():
        final.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as folder:
            build_emulation(Path(folder), flags).replace(library)
    return library


def build_for_gpu(folder: Path, architecture: str = "native") -> Path:
    """Compile the library into ``folder`` by nvcc for ``architecture``, "sm_86" or "native"."""
    library = folder / "libgfl_kernels.so"
    source = str(PLUGINS / "src" / "gfl_kernels.cu")
    words = ("nvcc", "-std=c++17", "-O3", f"-arch={architecture}", "-lineinfo", "-I", str(PLUGINS / "include"))
    subprocess.run((*words, "-Xcompiler", "-fPIC", "-shared", source, "-o", str(library)), check=True)
    return library


def ptxas_report(architecture: str, folder: Path) -> dict[str, dict[str, int]]:
    """What nvcc's assembler says of every kernel for ``architecture`` ("sm_86"): registers, and bytes of memory.

    ``folder`` takes the compiled file. Spills are registers that did not suffice; dynamic shared memory comes on top.
    """
    source = str(PLUGINS / "src" / "gfl_kernels.cuh")
    words = ("nvcc", "-std=c++17", "-O3", f"-arch={architecture}", "-Xptxas", "-v", "-I", str(PLUGINS / "include"))
    output = str(folder / f"{architecture}.cubin")
    done = subprocess.run(
        (*words, "-x", "cu", "-cubin", source, "-o", output), check=True, capture_output=True, text=True
    )
    report = {}
    for part in done.stderr.split("Compiling entry function '")[1:]:
        report[part.partition("'")[0]] = {
            "registers": _number(r"Used (\d+) registers", part),
            "static_shared_bytes": _number(r"(\d+) bytes smem", part),
            "stack_bytes": _number(r"(\d+) bytes stack frame", part),
            "spill_store_bytes": _number(r"(\d+) bytes spill stores", part),
            "spill_load_bytes": _number(r"(\d+) bytes spill loads", part),
        }
    return report


def _number(pattern: str, text: str) -> int:
    """The number that the pattern finds; 0 if it finds none, as ptxas leaves out what is not used."""
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
