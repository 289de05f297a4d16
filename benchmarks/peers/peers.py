"""From a frame to its detections on a CPU: gfl_edge beside other run times with their samples' post-processing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import ANNOTATIONS, IMAGES, export
from benchmarks.peers import networks
from benchmarks.peers.samples import NcnnModelZoo, OpenCvZoo, OpenModelZoo, Sample, Stream
from gfl_edge.backends.select import BackendName
from gfl_edge.bench.frames import generated_frame
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import Frames, as_coco, average_precision, coco_results, rounded
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.ops.preprocess import Image
from gfl_edge.progress import track
from gfl_edge.report.plots import ranked_bars
from train.weights.find import data_folder

MODELS = ("nanodet-m-320", "nanodet-plus-m-416")
OURS = "gfl_edge, OpenVINO"
EVALUATED_SCORE, SHOWN_SCORE = 0.05, 0.35  # AP is computed from the first on; a viewer draws from the second on
BLOCK = 20  # frames that one pipeline runs before the next has its turn
WARM_UPS = 3
PAUSE_S = 0.2  # between turns: waiting threads of the last one would take the cores from the next


def measure(folder: Path) -> dict[str, Any]:
    """AP and times of every pipeline; ``folder`` takes the files of the networks."""
    return {
        "annotations": ANNOTATIONS,
        "iou_threshold": 0.6,
        "models": {name: _measure_model(name, folder) for name in MODELS},
    }


def draw(result: dict[str, Any]) -> bytes:
    """Every pipeline's time, the fastest of each model first."""
    rows = [
        (label, row[f"p50_ms_from_{SHOWN_SCORE}"], name)
        for name, model in result["models"].items()
        for label, row in sorted(model["pipelines"].items(), key=lambda item: item[1][f"p50_ms_from_{SHOWN_SCORE}"])
    ]
    return ranked_bars("From a frame to its detections on 2 CPU cores", "milliseconds, p50", rows)


def _measure_model(name: str, folder: Path) -> dict[str, Any]:
    truth = read_truth(data_folder() / ANNOTATIONS, data_folder() / IMAGES)
    coco, frames = as_coco(truth.to_coco()), list(Frames.of(truth, f"reading for {name}"))
    with ExitStack() as stack:
        pipelines, streams, class_names = _pipelines(name, folder, stack)
        categories = match_categories(truth, class_names)
        milliseconds: dict[str, dict[float, list[float]]] = {
            label: {EVALUATED_SCORE: [], SHOWN_SCORE: []} for label in pipelines
        }
        results: dict[str, list[dict[str, Any]]] = {label: [] for label in pipelines}
        for score in (EVALUATED_SCORE, SHOWN_SCORE):
            for label, image_id, frame in _turns(list(pipelines), frames, f"{name}, score {score}"):
                start = time.perf_counter()
                found = pipelines[label](frame, score)
                milliseconds[label][score].append(1000 * (time.perf_counter() - start))
                if score == EVALUATED_SCORE:
                    results[label] += coco_results(found, image_id, categories)
        fps = _frames_per_second(streams, [frame for _, frame in frames], name)
    ids = [image_id for image_id, _ in frames]
    rows: dict[str, dict[str, Any]] = {
        label: {
            "AP": rounded(average_precision(coco, results[label], ids), 2)["AP"],
            **{f"p50_ms_from_{score}": round(statistics.median(times[score]), 2) for score in times},
            **({"throughput_fps": fps[label]} if label in fps else {}),
        }
        for label, times in milliseconds.items()
    }
    return {
        "images": len(frames),
        "pipelines": {
            label: row
            | {f"of_ours_{key}": round(row[key] / rows[OURS][key], 2) for key in row if key.startswith("p50")}
            for label, row in rows.items()
        },
    }


def _frames_per_second(streams: dict[str, Stream], frames: list[Image], name: str) -> dict[str, float]:
    """Of those that have several frames under way at once; medians of the blocks."""
    found: dict[str, list[float]] = {label: [] for label in streams}
    starts = range(0, len(frames), BLOCK)
    for turn, start in enumerate(track(starts, f"{name}, throughput", len(starts))):
        for index in range(len(streams)):
            time.sleep(PAUSE_S)
            label, block = list(streams)[(index + turn) % len(streams)], frames[start : start + BLOCK]
            start_s = time.perf_counter()
            count = sum(1 for _ in streams[label](block, SHOWN_SCORE))
            found[label].append(count / (time.perf_counter() - start_s))
    return {label: round(statistics.median(each), 2) for label, each in found.items()}


def _turns(labels: list[str], frames: list[tuple[int, Image]], title: str) -> Iterator[tuple[str, int, Image]]:
    """Every frame with every pipeline, in blocks, each time another one first."""
    starts = range(0, len(frames), BLOCK)
    for turn, start in enumerate(track(starts, title, len(starts))):
        for index in range(len(labels)):
            time.sleep(PAUSE_S)
            for image_id, frame in frames[start : start + BLOCK]:
                yield labels[(index + turn) % len(labels)], image_id, frame


def _pipelines(
    name: str, folder: Path, stack: ExitStack
) -> tuple[dict[str, Sample], dict[str, Stream], tuple[str, ...]]:
    """Every pipeline by its label, those that have several frames under way at once, and the model's class names."""
    path = export(name, folder)
    plain = folder / f"{name.replace('-', '_')}_plain.onnx"  # pnnx writes no hyphens
    found: dict[str, Sample] = {}
    streams: dict[str, Stream] = {}
    backends: tuple[BackendName, ...] = ("openvino", "onnxruntime")
    for backend in backends:
        detector = stack.enter_context(Detector(path, backend))
        label = OURS if backend == "openvino" else "gfl_edge, ONNX Runtime"
        found[label] = _ours(detector)
        streams[label] = _our_stream(stack.enter_context(Detector(path, backend, performance="throughput")))
    spec, threads = detector.spec, os.cpu_count() or 1
    networks.export_plain(name, spec.input_hw, plain)
    model_zoo = OpenModelZoo(networks.openvino_network(plain), networks.openvino_queue(plain), spec)
    found["OpenVINO, Open Model Zoo's sample"] = model_zoo
    streams["OpenVINO, Open Model Zoo's sample"] = model_zoo.stream
    found["ONNX Runtime, opencv_zoo's sample"] = OpenCvZoo(networks.onnxruntime_network(plain), spec)
    found["OpenCV DNN, opencv_zoo's sample"] = OpenCvZoo(networks.opencv_network(plain), spec)
    if spec.family == "nanodet":
        found["ncnn, ncnn's sample"] = NcnnModelZoo(plain, spec, threads)
    else:  # ncnn's package has none for NanoDet-Plus
        found["ncnn, opencv_zoo's sample"] = OpenCvZoo(networks.ncnn_network(plain, threads), spec)
    frame = generated_frame(np.random.default_rng(0), (480, 640))
    for sample in found.values():  # what is compiled or allocated at first
        for _ in range(WARM_UPS):
            sample(frame, EVALUATED_SCORE)
    for stream in streams.values():
        list(stream([frame] * BLOCK, EVALUATED_SCORE))
    return found, streams, spec.class_names


def _ours(detector: Detector) -> Sample:
    return lambda frame, score: detector(frame).above(score)


def _our_stream(detector: Detector) -> Stream:
    def run(frames: Iterable[Image], score: float) -> Iterator[Detections]:
        for found in detector.infer_all(detector.prepare([frame]) for frame in frames):
            yield found.detections[0].above(score)

    return run
