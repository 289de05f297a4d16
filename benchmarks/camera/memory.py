"""Memory of the running camera over many frames, in a process of its own, where nothing else comes and goes.

python -m benchmarks.camera.memory MODEL VIDEO FOLDER [OUTPUT.mp4]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.camera.looping_source import LoopingSource
from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.media.sources import Frame
from gfl_edge.parsing.json_text import json_text

FRAMES, STEP = 100_000, 1000
WARM_UP = 10_000  # frames, before which the slope does not count
SOURCE_FPS = 1000.0  # more than the detector takes, so that frames are dropped, too
SOURCE_HW = (96, 128)


def measure(model: Path, video: Path, folder: Path, output: str | None = None) -> dict[str, Any]:
    """Run ``FRAMES`` frames; JSON lines go to ``folder``, and the annotated video ``output`` if one is named."""
    process, samples = psutil.Process(), list[tuple[int, float]]()
    done = 0

    def sample(frame: Frame, _: Detections) -> None:
        nonlocal done
        done += 1
        if done % STEP == 0:
            samples.append((done, round(process.memory_info().rss / 1e6, 2)))

    with Detector(model) as detector:
        summary = run_camera(
            detector,
            LoopingSource(video, SOURCE_FPS, size_hw=SOURCE_HW),
            show=False,
            output=folder / output if output else None,
            json_lines=folder / "memory.jsonl",
            max_frames=FRAMES,
            on_frame=sample,
        )
        backend = detector.backend.name
    frames, resident = np.array([point for point in samples if point[0] > WARM_UP]).T
    return {
        "backend": backend,
        "frames": summary.frames,
        "fps": round(summary.fps, 2),
        "dropped": summary.dropped,
        "slope_bytes_per_frame": round(float(np.polyfit(frames, resident, 1)[0]) * 1e6, 2),
        "slope_after_frames": WARM_UP,
        "resident_mb": samples,
    }


if __name__ == "__main__":
    model, video, folder, *output = sys.argv[1:]
    print(json_text(measure(Path(model), Path(video), Path(folder), *output)))
