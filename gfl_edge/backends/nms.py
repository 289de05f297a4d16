"""Where NMS runs: decided here, from what the file holds and what was requested.

==================  ============================  =================================================
``spec.nms``        ONNX file, on the CPU         engine, on the GPU
==================  ============================  =================================================
``graph``           host; graph where requested   graph
``plugin``          does not run                  graph
``none``, ``raw``   host                          kernels; host where requested or they are missing
==================  ============================  =================================================

On the host it takes 0.60 to 0.86 times as long as in the graph in OpenVINO, and 0.44 to 0.68 times in ONNX Runtime
(benchmarks/results/nms.json). For the GPU it is decided when the engine is built: see
:class:`gfl_edge.engine.options.BuildOptions`.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from gfl_edge.backends.base import Backend
from gfl_edge.errors import InputError
from gfl_edge.spec import ModelSpec
from gfl_edge.terminal.printable import word

NmsChoice = Literal["auto", "graph", "host"]  # what may be requested
NmsPlace = Literal["graph", "kernels", "host"]  # in the network, in CUDA kernels after it, or on the host


@runtime_checkable
class PlacesNms(Protocol):
    """A backend that may do what is left of NMS after the network.

    Attributes:
        nms_place: where it runs.
    """

    nms_place: NmsPlace


def nms_place(backend: Backend) -> NmsPlace:
    """Where the NMS of an open backend runs."""
    if isinstance(backend, PlacesNms):
        return backend.nms_place
    return "graph" if backend.spec.has_nms else "host"


def place_on_cpu(spec: ModelSpec, choice: NmsChoice, origin: str) -> NmsPlace:
    """Where the NMS of an ONNX file is to run; raises InputError if it cannot run there.

    Args:
        spec: the file's.
        choice: what was requested.
        origin: name of the file, for messages.
    """
    if spec.nms == "plugin":
        raise InputError(
            f"{origin} was exported with --nms plugin: its node GflNms has no body, and only full TensorRT with the "
            f"plugin runs it. Build an engine with: gfl-edge build --model {word(origin)} --flavor tensorrt, or export "
            "for the CPU with --nms graph, none or raw"
        )
    if choice == "graph" and not spec.has_nms:
        raise InputError(
            f"{origin} was exported with --nms {spec.nms}: it has no NMS in the graph. Export it with --nms graph"
        )
    return "graph" if choice == "graph" else "host"


def place_on_gpu(spec: ModelSpec, choice: NmsChoice, origin: str) -> NmsPlace:
    """Where the NMS of an engine is to run; see :func:`place_on_cpu`."""
    if choice != "auto" and spec.has_nms != (choice == "graph"):
        raise InputError(f"{origin} was built with NMS {spec.nms!r}, {choice!r} was requested. Leave out --nms")
    if spec.has_nms:
        return "graph"
    return "host" if choice == "host" else "kernels"
