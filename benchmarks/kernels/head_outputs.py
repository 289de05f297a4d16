"""What the bundled detector says of two frames, before decode and NMS: a real load for the kernels.

``python benchmarks/kernels/head_outputs.py vtest.avi`` wrote the file beside this one, from a sample of OpenCV's
(THIRD_PARTY_NOTICES.md); it holds numbers of the network, no pixels.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.kernels.memory import Array
from gfl_edge import optional
from gfl_edge.console import run_command
from gfl_edge.files import write_atomically
from gfl_edge.media.opening import open_source
from gfl_edge.ops.preprocess import resize_into
from gfl_edge.spec import ModelSpec
from gfl_edge.zoo.bundled import bundled_model

FILE = Path(__file__).with_name("head_outputs.npz")
PERCENTILES = {"median": 50, "p90": 90}  # of the frames, by candidates
EVERY = 10  # frames of the clip
THRESHOLDS = (0.05, 0.01)  # a camera's, and one at which AP is measured
# Score from which on the file holds logits as they are and distributions; other logits are whole numbers there, and the
# distributions of anchors without such a score are 0
KEPT_FROM = 0.009


def load() -> dict[str, dict[str, Array]]:
    """``scores`` ``[1, A, C]`` and ``reg_logits`` ``[1, A, 4 * (reg_max + 1)]``, float16, by the frame: PERCENTILES."""
    found: dict[str, dict[str, Array]] = {}
    with np.load(FILE) as stored:
        for name in PERCENTILES:
            scores, anchors, reg = (stored[f"{name}_{part}"] for part in ("scores", "anchors", "reg"))
            reg_logits = np.zeros((1, len(scores), reg.shape[1]), np.float16)
            reg_logits[0, anchors] = reg
            found[name] = {"scores": scores[None], "reg_logits": reg_logits}
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/kernels/head_outputs.py", description=__doc__)
    parser.add_argument("clip", type=Path, help="a video")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    maps = list(_raw_maps(args.clip))
    order = sorted(range(len(maps)), key=lambda index: np.count_nonzero(_sigmoid(maps[index][0]) > THRESHOLDS[0]))
    arrays: dict[str, Array] = {}
    for name, percentile in PERCENTILES.items():
        scores, reg = maps[order[round(percentile / 100 * (len(order) - 1))]]
        kept = _sigmoid(scores) > KEPT_FROM
        (anchors,) = np.nonzero(kept.any(axis=1))
        arrays |= {
            f"{name}_scores": np.where(kept, scores, np.floor(scores)),
            f"{name}_anchors": anchors.astype(np.uint16),
            f"{name}_reg": reg[anchors],
        }
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_atomically(FILE, stream.getvalue())
    print(FILE)
    return 0


def _sigmoid(logits: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-logits.astype(np.float32)))
    return found


def _raw_maps(clip: Path) -> Iterator[tuple[Array, Array]]:
    """Logits ``[A, C]`` and distributions ``[A, 4 * (reg_max + 1)]`` of a clip's frames, float16."""
    onnx, runtime = optional.load("onnx"), optional.load("onnxruntime")
    path = str(bundled_model())
    model = onnx.load(path)
    spec = ModelSpec.from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)
    names = _raw_names(model)
    del model.graph.output[:]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.empty((1, *spec.input_hw, 3), np.uint8)
    with open_source(str(clip)) as source:
        for frame in source:
            if frame.index % EVERY == 0:
                resize_into(frame.image, pixels[0], spec.resize)
                *levels, reg = session.run(names, {"images": pixels})
                scores = np.concatenate([level[0].reshape(spec.num_classes, -1).T for level in levels])
                reg = reg[0].transpose(2, 0, 1)  # [4, bins, A]
                yield scores.astype(np.float16), reg.reshape(len(reg), -1).astype(np.float16)


def _raw_names(model: Any) -> list[str]:
    """What goes into the sigmoid of each level's scores, and into the softmax of the edges."""
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    return [*(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid"), softmax.input[0]]


if __name__ == "__main__":
    sys.exit(main())
