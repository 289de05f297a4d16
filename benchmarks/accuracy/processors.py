"""An INT8 file in OpenVINO on processors of fewer instructions than this one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.images import MIN_IMAGES, choose_images
from calib.noise import Decoded, signal_to_noise
from gfl_edge import optional
from gfl_edge.backends.onnx_cpu import OnnxRuntimeBackend, OpenVinoBackend
from gfl_edge.ops.onnx_graph import without_nms
from gfl_edge.spec import INPUT_NAME, ModelSpec, load_contract

INSTRUCTIONS = ("AVX2", "AVX512_CORE", "ALL")  # oneDNN's names: without VNNI, likewise, and what the processor has
LIMIT = "ONEDNN_MAX_CPU_ISA"
IMAGES = 4


def measure(onnx: Path, images: Path) -> dict[str, Any]:
    """What OpenVINO and ONNX Runtime compute of an INT8 file for CPUs, next to the float simulation of its Q/DQ pairs.

    Returns:
        ``same_bytes``: whether OpenVINO gives the same outputs whatever the instructions; and signal to noise in
        decibels against the simulation, by instructions and of ONNX Runtime.
    """
    found: dict[str, list[Decoded]] = {}
    for name in INSTRUCTIONS:
        out = onnx.with_suffix(f".{name}.npz")
        command = [sys.executable, "-m", "benchmarks.accuracy.processors", str(onnx), str(images), str(out)]
        subprocess.run(command, check=True, env={**os.environ, LIMIT: name})
        with np.load(out) as arrays:
            found[name] = [Decoded(arrays[f"boxes{i}"], arrays[f"scores{i}"]) for i in range(IMAGES)]
        out.unlink()
    model, spec, inputs = _load(onnx, images)
    simulated = _simulate(model, spec, inputs)
    runtime = [Decoded.of(OnnxRuntimeBackend(model, spec).run(image), spec, spec.input_hw) for image in inputs]
    first = found[INSTRUCTIONS[0]]
    return {
        "images": IMAGES,
        "same_bytes": all(
            np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
            for others in found.values()
            for a, b in zip(first, others, strict=True)
        ),
        "openvino_db": {name: round(signal_to_noise(simulated, values), 2) for name, values in found.items()},
        "onnxruntime_db": round(signal_to_noise(simulated, runtime), 2),
    }


def _load(onnx: Path, images: Path) -> tuple[Any, ModelSpec, list[NDArray[np.uint8]]]:
    """The model without NMS, its spec and its inputs."""
    model, spec = load_contract(onnx)
    spec = without_nms(model, spec) if spec.has_nms else spec
    chosen = choose_images(images, MIN_IMAGES)
    return model, spec, list(replace(chosen, names=chosen.names[:IMAGES]).inputs(spec))


def _simulate(model: Any, spec: ModelSpec, inputs: list[NDArray[np.uint8]]) -> list[Decoded]:
    """By ONNX Runtime without its optimizations, which would find INT8 kernels."""
    library = optional.load("onnxruntime")
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [session.run(list(spec.output_names), {INPUT_NAME: image}) for image in inputs]
    return [Decoded.of(dict(zip(spec.output_names, run, strict=True)), spec, spec.input_hw) for run in runs]


def main(onnx: str, images: str, out: str) -> None:
    """Run OpenVINO on the instructions that the environment leaves to it, and keep what it says."""
    model, spec, inputs = _load(Path(onnx), Path(images))
    backend = OpenVinoBackend(model, spec)
    arrays: dict[str, NDArray[np.float32]] = {}
    for i, image in enumerate(inputs):
        found = Decoded.of(backend.run(image), spec, spec.input_hw)
        arrays |= {f"boxes{i}": found.boxes.copy(), f"scores{i}": found.scores.copy()}
    np.savez(out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
