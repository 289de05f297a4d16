"""Whether an adopted model computes what the foreign one does, and what AP it has if something is meant otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.adopt.dry_run import noise, runner
from gfl_edge.adopt.foreign import Foreign
from gfl_edge.adopt.maps import Piece
from gfl_edge.adopt.recognize import Head
from gfl_edge.adopt.trace import Traced
from gfl_edge.errors import ParityError
from gfl_edge.ops import decode, postprocess
from gfl_edge.ops.boxes import Floats
from gfl_edge.ops.tolerances import TOLERANCES, Parity, Tolerance
from gfl_edge.spec import INPUT_NAME, RAW_NAMES, SIGMAS, ModelSpec

NOISE_IMAGES = 2
# Of scores that the file computes of probabilities: a root, as PicoDet takes, makes 3e-4 of a sigmoid that is 1e-7 off
ROOT_TOLERANCE = 1e-3


def prove(
    foreign: Foreign,
    head: Head,
    candidates: Any,
    adopted: Any,
    spec: ModelSpec,
    channel_order: str,
    frames: Iterable[NDArray[np.uint8]] = (),
) -> Parity:
    """Compare the foreign model with the adopted one, element by element.

    Args:
        foreign: the model.
        head: what was found in it.
        candidates: the adopted model with its decoded points as outputs (nms "none").
        adopted: the model that is to be written.
        spec: of ``adopted``.
        channel_order: in which the foreign model takes its channels.
        frames: real ones, resized, uint8 ``[1, H, W, 3]`` BGR.

    Raises:
        ParityError: they differ by more than the tolerance.
        MissingDependencyError: NMS is in the graph, and ONNX Runtime is not installed: ONNX's reference cannot run it.
    """
    if spec.nms == "graph":
        optional.load("onnxruntime")
    size = (1, *spec.input_hw, 3)
    images = [*(noise(size, seed) for seed in range(NOISE_IMAGES)), *frames]
    run_foreign = runner(foreign.model, [seed.name for seed in head.seeds], foreign.origin)
    run_candidates = runner(candidates, spec.candidate_names, "the adopted model")
    before_nms = spec.candidate_names if spec.nms == "graph" else ()
    run_adopted = runner(adopted, [*spec.output_names, *before_nms], "the adopted model")
    _, strides = decode.points(spec.input_hw, spec.strides, spec.point_offset)
    apart: dict[str, list[float]] = {name: [] for name in spec.candidate_names}
    differing = 0
    for image in images:
        before = expected(head, run_foreign({foreign.image: foreign_input(image, foreign, spec, channel_order)}), spec)
        outputs = run_adopted({INPUT_NAME: image})
        there = postprocess.decoded(*before, spec, spec.input_hw)
        found = [{name: values[0] for name, values in run_candidates({INPUT_NAME: image}).items()}]
        if spec.nms == "raw":
            logits, distributions = (outputs[name][0].astype(np.float32) for name in RAW_NAMES)
            found.append(postprocess.decoded(postprocess.sigmoid(logits), distributions, spec, spec.input_hw))
        elif spec.nms == "graph":
            differing += _differ(outputs, spec)
        for here in found:
            for name in spec.candidate_names:
                difference = here[name] - there[name]
                apart[name].append(_largest(difference if name == "scores" else difference / strides[:, None]))
    score, edge = max(apart["scores"]), max(apart["boxes"])
    sigma = max(apart[SIGMAS]) if spec.edge_sigma else None
    proof = Parity("the foreign file", len(images), score, edge, differing, _tolerance(head, spec), sigma)
    if not proof.passed:
        raise ParityError(f"{foreign.origin}: {proof}. Nothing was written")
    return proof


def _tolerance(head: Head, spec: ModelSpec) -> Tolerance:
    tolerance = TOLERANCES[spec.precision]
    return tolerance if head.logits else replace(tolerance, score=max(tolerance.score, ROOT_TOLERANCE))


def _largest(difference: Floats) -> float:
    return float(np.nan_to_num(np.abs(difference), nan=np.inf).max(initial=0))


def _differ(outputs: dict[str, Any], spec: ModelSpec) -> bool:
    """Whether NMS in the graph and on the host give other detections of the same candidates."""
    there = postprocess.detections(outputs, 0, spec, spec.input_hw)
    candidates = {name: outputs[name] for name in spec.candidate_names}
    here = postprocess.detections(candidates, 0, replace(spec, nms="none"), spec.input_hw)
    if len(there.scores) != len(here.scores):
        return True
    pairs = [*zip(there[:3], here[:3], strict=True)]
    if there.sigmas is not None and here.sigmas is not None:
        pairs.append((there.sigmas, here.sigmas))
    return not all(np.allclose(a, b, atol=1e-3) for a, b in pairs)


def foreign_input(image: NDArray[np.uint8], foreign: Foreign, spec: ModelSpec, channel_order: str) -> NDArray[Any]:
    """What the foreign model takes of an image, uint8 ``[1, H, W, 3]`` BGR; in NumPy, independent of the graph."""
    x = (image.astype(np.float64) - spec.mean_bgr) / spec.std_bgr
    if channel_order == "rgb":
        x = x[..., ::-1]
    if foreign.layout == "nchw":
        x = x.transpose(0, 3, 1, 2)
    dtype = {"FLOAT": np.float32, "FLOAT16": np.float16, "UINT8": np.uint8}[foreign.dtype]
    return np.ascontiguousarray(x.astype(dtype))


def expected(head: Head, outputs: dict[str, NDArray[Any]], spec: ModelSpec) -> tuple[Floats, Floats]:
    """Scores ``[A, C]``, 0..1, and distributions ``[A, 4 * (reg_max + 1)]``, from what the foreign model gives.

    Every element is put to where the numbers say that it came from; what they do not cover is NaN.
    """
    scores = np.full((spec.num_anchors, spec.num_classes), np.nan, np.float32)
    distributions = np.full((spec.num_anchors, 4 * (spec.reg_max + 1)), np.nan, np.float32)
    first = 0
    for level in head.levels:
        cells = level.scores.hw[0] * level.scores.hw[1]
        rows = slice(first, first + cells)
        for seed in head.seeds:
            values = outputs[seed.name].astype(np.float32)
            _put(seed, values, level.scores, scores[rows], head.logits)
            _put(seed, values, level.distributions, distributions[rows], False)
        first += cells
    return scores, distributions


def _put(seed: Traced, values: Floats, piece: Piece, target: Floats, logits: bool) -> None:
    """What of a tensor comes from a piece, into ``[cells, channels]`` of its level."""
    if piece.tensor not in seed.sources:
        return
    own = seed.source == seed.sources.index(piece.tensor)
    place, cells = seed.place[own], piece.hw[0] * piece.hw[1]
    last = piece.channels_last
    channel, cell = (place % piece.total, place // piece.total) if last else (place // cells, place % cells)
    inside = (channel >= piece.channels[0]) & (channel < piece.channels[1])
    taken = values[own][inside]
    if logits:
        taken = np.where(seed.sigmoid[own][inside], taken, postprocess.sigmoid(taken))
    target[cell[inside], channel[inside] - piece.channels[0]] = taken
