"""Two hours of a camera at 30 FPS, as fast as they go: memory, file handles and threads over the frames.

A camera over HTTP on loopback, read by OpenCV as any other, drops again and again; a second one is never there, so that
it is tried all the time. Detections are made up, as the network's memory is measured elsewhere (camera.json); all else
is the running camera. In a process of its own: python -m benchmarks.camera.soak FOLDER
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.faults.http_camera import HEAD, HttpCamera, jpeg, part
from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.media.sources import Frame
from gfl_edge.parsing.json_text import json_text
from gfl_edge.spec import ModelSpec

FPS, HOURS = 30, 2
FRAMES = HOURS * 3600 * FPS
STEP = 2_000  # frames between samples
WARM_UP = 20_000  # frames, before which a slope does not count
FRAMES_A_CONNECTION = 5_000
SIZE_HW = (48, 64)


class MadeUpDetector:
    """Finds the same person in every frame."""

    class Backend:
        """What a run asks of it."""

        name, max_batch = "made up", None

    backend = Backend()
    in_flight = 1
    spec = ModelSpec("made-up", "gfl", ("person",), SIZE_HW, "stretch", (0, 0, 0), (1, 1, 1), (8,), 16, 0.0)

    def prepare(self, frames: Sequence[Any]) -> Sequence[Any]:
        """Nothing to do."""
        return frames

    def infer(self, prepared: Sequence[Any]) -> Inference:
        """One person for each frame."""
        box = np.array([[4, 4, 30, 40]], np.float32)
        found = [Detections(box, np.array([0.9], np.float32), np.array([0], np.int32), ("person",)) for _ in prepared]
        return Inference(found, {"preprocess": 0.0, "network": 0.0, "postprocess": 0.0}, [0] * len(found))


class DroppingCamera(HttpCamera):
    """Gives frames as fast as they are taken, and drops the connection after so many."""

    def _answer(self, connection: socket.socket) -> None:
        frames = b"".join(part(jpeg(SIZE_HW, level)) for level in range(0, 250, 10))
        try:
            with connection:
                connection.recv(65536)
                connection.sendall(HEAD)
                for _ in range(FRAMES_A_CONNECTION // 25):
                    if self.stopped.is_set():
                        return
                    connection.sendall(frames)
        except OSError:  # the reader left
            return


def measure(folder: Path) -> dict[str, Any]:
    """Slopes over the frames after the warm-up, and the samples."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.camera.soak", str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def soak(folder: Path, frames: int = FRAMES, step: int = STEP) -> dict[str, Any]:
    """Run so many frames here, with a sample every ``step``; JSON lines go to ``folder``."""
    process, samples = psutil.Process(), list[tuple[int, float, int, int]]()
    done = 0

    def sample(_: Frame, __: Detections) -> None:
        nonlocal done
        done += 1
        if done % step == 0:
            memory = round(process.memory_info().rss / 1e6, 2)
            samples.append((done, memory, process.num_fds(), threading.active_count()))

    camera = DroppingCamera()
    try:
        summary = run_camera(
            MadeUpDetector(),  # type: ignore[arg-type]
            [f"{camera.url}/good", "http://127.0.0.1:1/never"],
            show=False,
            json_lines=folder / "soak.jsonl",
            max_frames=frames,
            reconnect_seconds=float("inf"),
            on_frame=sample,
        )
    finally:
        camera.close()
    at, resident, handles, threads = np.array([point for point in samples if point[0] > min(WARM_UP, frames / 10)]).T
    return {
        "frames": summary.frames,
        "hours_at_30_fps": round(summary.frames / FPS / 3600, 3),
        "seconds": round(summary.seconds, 1),
        "fps": round(summary.fps, 1),
        "dropped": summary.dropped,
        "reconnects": summary.reconnects,
        "slope_after_frames": WARM_UP,
        "slope_bytes_per_frame": round(float(np.polyfit(at, resident, 1)[0]) * 1e6, 3),
        "slope_handles_per_1000_frames": round(float(np.polyfit(at, handles, 1)[0]) * 1000, 4),
        "slope_threads_per_1000_frames": round(float(np.polyfit(at, threads, 1)[0]) * 1000, 4),
        "handles": [int(handles.min()), int(handles.max())],
        "threads": [int(threads.min()), int(threads.max())],
        "samples": samples,
    }


if __name__ == "__main__":
    logging.getLogger("gfl_edge").setLevel(logging.ERROR)  # hundreds of attempts to reconnect
    print(json_text(soak(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
