"""ONNX files, as a detector opens and runs them on the CPU."""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random
from zlib import crc32

from gfl_edge.detector import Detector
from gfl_edge.spec import read_spec
from tests.fuzz.reader import Reader


def seeds() -> list[bytes]:
    """A model of each form of NMS."""
    from tests.support.tiny_onnx import tiny_onnx

    return [tiny_onnx(nms).SerializeToString() for nms in ("none", "graph", "raw")]


def fields(random: Random, content: bytes) -> bytes:
    """Changes of a few fields."""
    import onnx

    from tests.fuzz.messages import change

    model = onnx.ModelProto.FromString(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        change(random, model)
    return model.SerializeToString()


def detect(path: Path, backend: str) -> object:
    """Open it, with NMS in the graph or on the host, and detect in an image of another size than the model's."""
    import numpy

    nms = "graph" if crc32(path.read_bytes()) % 2 and read_spec(path).has_nms else "auto"
    with Detector(path, backend, nms) as detector:
        return detector(numpy.full((24, 40, 3), 114, numpy.uint8))


READERS = [
    Reader("onnx-description", read_spec, seeds, ".onnx", fields),
    Reader("onnxruntime", functools.partial(detect, backend="onnxruntime"), seeds, ".onnx", fields),
    Reader("openvino", functools.partial(detect, backend="openvino"), seeds, ".onnx", fields),
]
