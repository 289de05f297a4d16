"""Traces of networks: PyTorch takes seconds for each, and several tests export the same network in other forms.

What follows the trace (simplifying, NMS, the plugin, metadata, checks) is done for every file.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.once import once

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.graph import ExportedDetector
    from gfl_edge.spec import ModelSpec

KEPT = "GFL_EDGE_EXPORTED"  # a folder that outlives the session, as one run of continuous integration has it


@contextmanager
def traced_once(folder: Path) -> Iterator[None]:
    """Let the exporter take a trace from ``folder`` where it has one of a module of the same classes and values."""
    import onnx

    from export import graph

    folder.mkdir(parents=True, exist_ok=True)
    trace = graph._trace

    @functools.wraps(trace)
    def kept(module: ExportedDetector, spec: ModelSpec, opset: int) -> ModelProto:
        key = digest(module, graph.traced_names(spec), opset)
        if key is None:
            return trace(module, spec, opset)
        return onnx.load(once(folder / f"trace-{key}.onnx", lambda path: onnx.save(trace(module, spec, opset), path)))

    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(trace, "__wrapped__"):  # or else it waits for its own lock
            patch.setattr(graph, "_trace", kept)
        yield


def digest(module: ExportedDetector, *settings: object) -> str | None:
    """Of all that the module is made of, except for names, and where NMS runs, which ``settings`` say as far as traced.

    None for a module with operators that cannot be told apart.
    """
    module = copy.copy(module)
    numbers = tuple(map(str, range(module.spec.num_classes)))
    module.spec = replace(module.spec, nms="none", name="any", class_names=numbers, source_sha256="")
    file = io.BytesIO()
    pickler = TensorDigests(file)
    pickler.fast = True  # what is the same object in one module may be two equal ones in another
    try:
        pickler.dump((module, settings))
    except (pickle.PicklingError, AttributeError, TypeError, ValueError):
        return None
    return hashlib.sha256(file.getvalue()).hexdigest()[:24]


class TensorDigests(pickle.Pickler):
    """Writes digests of tensors, whose own form differs from one process to the next."""

    def reducer_override(self, value: object) -> object:
        import torch

        if not isinstance(value, torch.Tensor):
            return NotImplemented
        content = value.detach().contiguous().flatten().view(torch.uint8).numpy()
        return str, (f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}",)


@pytest.fixture(scope="module")
def one_trace(shared: Path) -> Iterator[None]:
    """For tests that export: see :func:`traced_once`."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with traced_once(Path(os.environ.get(KEPT, shared))):
        yield
