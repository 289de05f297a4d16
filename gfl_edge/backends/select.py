"""Which backend runs a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from gfl_edge import optional
from gfl_edge.backends.base import Backend, Performance
from gfl_edge.backends.nms import NmsChoice, place_on_cpu
from gfl_edge.backends.onnx_cpu import OnnxRuntimeBackend, OpenVinoBackend
from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.engine.sidecar import ENGINE_SUFFIX
from gfl_edge.errors import InputError, MissingDependencyError, ModelFileError
from gfl_edge.ops.onnx_graph import without_nms
from gfl_edge.spec import ModelSpec, load_contract
from gfl_edge.terminal.printable import word

BackendName = Literal["auto", "openvino", "onnxruntime", "tensorrt", "rtx"]
CpuBackendName = Literal["auto", "openvino", "onnxruntime"]


def open_backend(
    path: str | Path, backend: BackendName = "auto", nms: NmsChoice = "auto", performance: Performance = "latency"
) -> Backend:
    """Load ``path`` with the backend that fits it.

    Args:
        path: ``.onnx`` (OpenVINO, ONNX Runtime) or ``.engine`` (TensorRT, TensorRT-RTX).
        backend: "auto" takes OpenVINO where it is installed, else ONNX Runtime, and the engine's own TensorRT.
        nms: where NMS is to run; "auto" takes the fastest place, see :mod:`gfl_edge.backends.nms`.
        performance: what to be fast at.

    Raises:
        InputError: unknown backend, one that does not run this kind of file, or NMS where this file cannot have it.
        ModelFileError: missing, unreadable or foreign file.
        BackendError: the library refused the model.
        MissingDependencyError: the library is not installed.
    """
    path = Path(path)
    for value, choices in ((backend, BackendName), (nms, NmsChoice), (performance, Performance)):
        if value not in get_args(choices):
            raise InputError(f"unknown choice {value!r}: expected one of {', '.join(get_args(choices))}")
    if path.suffix == ".onnx":
        if backend == "tensorrt" or backend == "rtx":
            raise InputError(
                f"{path} is an ONNX file, backend {backend} runs engines. Build one with: "
                f"gfl-edge build --model {word(path)} --flavor {backend}"
            )
        model, spec = load_contract(path)
        return open_onnx_backend(model, spec, backend, nms, str(path), performance)
    if path.suffix == ENGINE_SUFFIX:
        if backend == "openvino" or backend == "onnxruntime":
            raise InputError(
                f"{path} is an engine, backend {backend} runs ONNX files. Give the .onnx it was built from"
            )
        return TensorRTBackend(path, None if backend == "auto" else backend, nms=nms, performance=performance)
    found = repr(path.suffix) if path.suffix else "a folder" if path.is_dir() else "a name without suffix"
    raise ModelFileError(
        f"{path}: a model is an .onnx or .engine file, not {found}. "
        "Export a checkpoint, in a checkout of gfl_edge, with: "
        "python export/to_onnx.py --weights CHECKPOINT -o MODEL.onnx"
    )


def open_onnx_backend(
    model: Any,
    spec: ModelSpec,
    backend: CpuBackendName = "auto",
    nms: NmsChoice = "auto",
    origin: str = "MODEL.onnx",
    performance: Performance = "latency",
) -> Backend:
    """Load a model that is in memory, for the CPU.

    Args:
        model: ``onnx.ModelProto`` of the gfl_edge contract; where NMS is cut off for the host, this changes it.
        spec: its description.
        backend: see :func:`open_backend`.
        nms: see :func:`open_backend`.
        origin: name of the file, for messages.
        performance: what to be fast at.

    Raises:
        InputError: NMS where this model cannot have it.
        BackendError: the library refused the model.
        MissingDependencyError: the library is not installed.
    """
    place = place_on_cpu(spec, nms, origin)
    if backend == "auto":
        preferred: tuple[CpuBackendName, ...] = ("openvino", "onnxruntime")
        installed = next((name for name in preferred if optional.available(name)), None)
        if installed is None:
            raise MissingDependencyError(
                "neither openvino nor onnxruntime is installed, one of which runs ONNX files. "
                "Install them with: pip install 'gfl-edge[cpu]', or build an engine for the GPU with: "
                f"gfl-edge build --model {word(origin)}"
            )
        backend = installed
    if spec.has_nms and place == "host":
        spec = without_nms(model, spec)
    made = OpenVinoBackend if backend == "openvino" else OnnxRuntimeBackend
    return made(model, spec, performance)
