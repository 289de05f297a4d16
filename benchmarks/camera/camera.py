"""The running camera: overlap, several sources, latency of a live source, and memory over 100,000 frames."""

from __future__ import annotations

import itertools
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.camera.looping_source import LoopingSource
from benchmarks.models import IMAGES, export
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.camera import run_camera
from gfl_edge.camera.summary import CameraSummary
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector, Inference, Prepared
from gfl_edge.filters import DetectionFilter
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.opening import open_source
from gfl_edge.media.sinks import VideoSink
from gfl_edge.media.sources import Frame
from gfl_edge.ops.preprocess import Image
from gfl_edge.report.plots import Points, line_chart
from train.weights.find import CHECKOUT, CHECKPOINTS, data_folder

logger = logging.getLogger(__name__)

MODEL, SMALL_MODEL, SMALL_HW = "nanodet-plus-m-416", "nanodet-m-320", (64, 96)
VIDEO, SECOND_VIDEO = "video/vtest.avi", "video/one-by-one-person-detection.mp4"
SCORE = 0.35
FRAMES, TURNS = 400, 5  # of the overlap
LOOPED_FRAMES = 100
SLOW_WRITE_S = 0.02
SHARED_FRAMES = 900  # of three sources together, so that none ends before
LIVE_FPS, DETECTOR_FPS, LIVE_FRAMES = 30.0, 10.0, 900

OnFrame = Callable[[Frame, Detections], None]


class SlowedDetector(Detector):
    """A detector that takes ``1 / DETECTOR_FPS`` seconds for a frame."""

    def infer(self, prepared: Prepared) -> Inference:
        """See Detector."""
        end = time.perf_counter() + 1 / DETECTOR_FPS
        found = super().infer(prepared)
        time.sleep(max(0.0, end - time.perf_counter()))
        return found._replace(ms={**found.ms, "network": 1000 / DETECTOR_FPS})


def measure(folder: Path) -> dict[str, Any]:
    """All four; ``folder`` takes models and videos."""
    model, small = export(MODEL, folder), folder / "small.onnx"
    export_onnx(ExportRequest(data_folder() / CHECKPOINTS[SMALL_MODEL], input_hw=SMALL_HW), small)
    return {
        "memory": _measure_memory(small, folder),
        "overlap": _measure_overlap(model, folder),
        "three_sources": _measure_three_sources(model, folder),
        "live": _measure_live(small),
    }


def draw(result: dict[str, Any]) -> bytes:
    """Resident memory over the frames."""
    memory = result["memory"]
    curves: dict[str, Points] = {
        f"{written} written": [(frame, value) for frame, value in run["resident_mb"]]
        for written, run in memory["written"].items()
    }
    title = f"Memory of the running camera, {memory['model']}"
    return line_chart(title, "frames", "resident memory, MB", curves, from_zero=True)


def _measure_memory(model: Path, folder: Path) -> dict[str, Any]:
    """In other processes: this one holds PyTorch. An MP4's index grows in FFmpeg until the file is closed."""
    paths = [str(path.resolve()) for path in (model, data_folder() / VIDEO, folder)]
    found: dict[str, Any] = {}
    for written, outputs in (("JSON lines", []), ("video and JSON lines", ["memory.mp4"])):
        logger.info("== memory, %s", written)
        words = [sys.executable, "-m", "benchmarks.camera.memory", *paths, *outputs]
        found[written] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=CHECKOUT).stdout)
    return {"model": f"{SMALL_MODEL} at {SMALL_HW[0]}x{SMALL_HW[1]}", "written": found}


def _measure_overlap(model: Path, folder: Path) -> dict[str, Any]:
    """Each kind of output, one after the other and overlapped in turns."""
    kinds: dict[str, tuple[Path | None, float]] = {
        "nothing written": (None, 0.0),
        "video": (folder / "overlap.mp4", 0.0),
        f"video, and {1000 * SLOW_WRITE_S:g} ms more a frame": (folder / "overlap.mp4", SLOW_WRITE_S),
    }
    with Detector(model) as one_by_one, Detector(model, performance="throughput") as overlapping:
        found = {kind: _overlap(one_by_one, overlapping, *how, kind) for kind, how in kinds.items()}
        backend, in_flight = overlapping.backend.name, overlapping.in_flight
    described = {"model": MODEL, "backend": backend, "in_flight": in_flight, "video": VIDEO, "frames": FRAMES}
    return {**described, "frames_in_memory": LOOPED_FRAMES, "written": found}


def _overlap(
    one_by_one: Detector, overlapping: Detector, output: Path | None, wait_s: float, kind: str
) -> dict[str, Any]:
    images = _images(LOOPED_FRAMES)
    loop, sequential, overlapped, summaries = [], [], [], []
    for turn in range(TURNS):
        logger.info("== %s, turn %d of %d", kind, turn + 1, TURNS)
        loop.append(_loop(one_by_one, images))
        sequential.append(_run_in_turn(one_by_one, output, wait_s))
        on_frame: OnFrame | None = (lambda frame, found: time.sleep(wait_s)) if wait_s else None
        source = data_folder() / VIDEO
        summary = run_camera(
            overlapping,
            source,
            keep=DetectionFilter(score=SCORE),
            show=False,
            output=output,
            max_frames=FRAMES,
            on_frame=on_frame,
        )
        overlapped.append(summary.fps)
        summaries.append(summary)
    middle = sorted(summaries, key=lambda summary: summary.fps)[TURNS // 2]
    return {
        "loop_fps": [round(fps, 2) for fps in loop],
        "sequential_fps": [round(fps, 2) for fps in sequential],
        "overlapped_fps": [round(fps, 2) for fps in overlapped],
        "loop_median_fps": round(statistics.median(loop), 2),
        "sequential_median_fps": round(statistics.median(sequential), 2),
        "overlapped_median_fps": round(statistics.median(overlapped), 2),
        "overlapped_over_sequential": round(statistics.median(overlapped) / statistics.median(sequential), 3),
        "overlapped_over_loop": round(statistics.median(overlapped) / statistics.median(loop), 3),
        "median_turn": _figures(middle),
    }


def _images(count: int) -> list[Image]:
    """The first frames of the video."""
    with open_source(data_folder() / VIDEO) as source:
        return [frame.image for frame in itertools.islice(source, count)]


def _loop(detector: Detector, images: list[Image]) -> float:
    """Frames per second of the detector alone, on frames in memory."""
    start = time.perf_counter()
    for image in images:
        detector(image).above(SCORE)
    return len(images) / (time.perf_counter() - start)


def _run_in_turn(detector: Detector, output: Path | None, wait_s: float) -> float:
    """Frames per second of the plain calls one after the other."""
    with open_source(data_folder() / VIDEO) as source:
        start = time.perf_counter()
        sink = VideoSink(output, source.fps) if output else None
        for frame in source:
            detections = detector(frame.image).above(SCORE)
            if sink:
                sink.write(draw_detections(frame.image, detections), frame.time_s)
            time.sleep(wait_s)
            if frame.index + 1 == FRAMES:
                break
        seconds = time.perf_counter() - start
        if sink:
            sink.close()
    return FRAMES / seconds


def _measure_three_sources(model: Path, folder: Path) -> dict[str, Any]:
    logger.info("== three sources")
    data = data_folder()
    with Detector(model, performance="throughput") as detector:
        summary = run_camera(
            detector,
            [data / VIDEO, data / SECOND_VIDEO, data / IMAGES],
            keep=DetectionFilter(score=SCORE),
            show=False,
            output=folder / "three.mp4",
            max_frames=SHARED_FRAMES,
        )
    sources = [
        {
            "name": Path(source.name).name,
            "frames": source.frames,
            "fps": round(source.fps, 2),
            "latency_ms": _rounded(source.latency_ms),
        }
        for source in summary.sources
    ]
    return {"model": MODEL, **_figures(summary), "sources": sources}


def _measure_live(model: Path) -> dict[str, Any]:
    """A camera at 30 FPS in front of a detector at 10."""
    logger.info("== live source at %g FPS, detector at %g", LIVE_FPS, DETECTOR_FPS)
    ages_ms: list[float] = []
    with SlowedDetector(model) as detector:
        summary = run_camera(
            detector,
            LoopingSource(data_folder() / VIDEO, LIVE_FPS, LIVE_FRAMES),
            show=False,
            on_frame=lambda frame, _: ages_ms.append(1000 * (time.time() - frame.time_s)),
        )
    quarter = len(ages_ms) // 4
    return {
        "source_fps": LIVE_FPS,
        "detector_fps": DETECTOR_FPS,
        "played": LIVE_FRAMES,
        "mean_age_ms_first_quarter": round(statistics.mean(ages_ms[:quarter]), 1),
        "mean_age_ms_last_quarter": round(statistics.mean(ages_ms[-quarter:]), 1),
        **_figures(summary),
    }


def _figures(summary: CameraSummary) -> dict[str, Any]:
    """What the camera reports of itself."""
    queues = {name: {**asdict(queue), "mean": round(queue.mean, 3)} for name, queue in summary.queues.items()}
    return {
        "frames": summary.frames,
        "seconds": round(summary.seconds, 2),
        "fps": round(summary.fps, 2),
        "dropped": summary.dropped,
        "stage_ms": _rounded(summary.stage_ms),
        "queues": queues,
        "latency_ms": _rounded(summary.latency_ms),
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}
