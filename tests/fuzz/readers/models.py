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


def foreign_seeds() -> list[bytes]:
    """A detector of each form that is adopted."""
    from tests.support.foreign_onnx import Form, foreign_onnx

    forms = (
        *(Form(), Form(joined=True, ghosts=True, levels=4), Form(joined=True, sigmoid=False)),
        *(Form(decoded=True, points=0.5), Form(opset=9, old_resize=True), Form(selects=True, swapped="gather")),
    )
    return [*(foreign_onnx(form).SerializeToString() for form in forms), _two_files()[0]]


@functools.cache
def _two_files() -> tuple[bytes, bytes]:
    """A detector, and its weights in a file of their own."""
    from tests.support.foreign_onnx import Form, foreign_onnx, weights_beside

    model, weights = weights_beside(foreign_onnx(Form()), "weights.bin")
    return model.SerializeToString(), weights


def recognize(path: Path) -> object:
    """Read somebody else's file, look for the maps of a detector in it, and wrap those that are found."""
    path.with_name("weights.bin").write_bytes(_two_files()[1])
    from gfl_edge.adopt.body import cut_body, open_batch
    from gfl_edge.adopt.families import guess_family
    from gfl_edge.adopt.foreign import read_foreign
    from gfl_edge.adopt.inside import inner_normalization
    from gfl_edge.adopt.recognize import find_head
    from gfl_edge.adopt.roles import Given

    foreign = read_foreign(path, (64, 64))
    head = find_head(foreign, Given())
    return guess_family(foreign, head), inner_normalization(foreign), open_batch(cut_body(foreign, head), foreign)


READERS = [
    Reader("foreign-onnx", recognize, foreign_seeds, ".onnx", fields),
    Reader("onnx-description", read_spec, seeds, ".onnx", fields),
    Reader("onnxruntime", functools.partial(detect, backend="onnxruntime"), seeds, ".onnx", fields),
    Reader("openvino", functools.partial(detect, backend="openvino"), seeds, ".onnx", fields),
]
