"""Images per second of the detector in this process and behind a real Triton, in the environment that has it.

    python -m benchmarks.serving.load IMAGE PORT ROUNDS SECONDS

prints JSON.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.server import PROTOCOLS, Client, served
from gfl_edge.detector import Detector
from gfl_edge.media.images import read_image
from gfl_edge.parsing.json_text import json_text

CLIENTS = (1, 2, 4, 16)
VERSIONS = ("nvidia-pytriton", "tritonclient", "onnxruntime", "numpy", "opencv-python-headless")
WARM_UP = 5  # requests of each client
WAIT_SECONDS = 120.0  # for the slowest client

Connect = Callable[[], AbstractContextManager[Callable[[NDArray[np.uint8]], Any]]]
Turn = tuple[float, list[float]]  # images per second, and the milliseconds of each request


def main(argv: list[str]) -> int:
    """Measure, in turns: the detector here, then each protocol with each number of clients."""
    image, port, rounds, seconds = Path(argv[0]), int(argv[1]), int(argv[2]), float(argv[3])
    frame = read_image(image)
    kinds = [(protocol, count) for count in CLIENTS for protocol in PROTOCOLS]
    local: list[Turn] = []
    remote: dict[tuple[str, int], list[Turn]] = {kind: [] for kind in kinds}
    with Detector(None, "onnxruntime") as detector, served(port):
        _check_same(detector, frame, port)
        for _ in range(rounds):
            local.append(together([lambda: contextlib.nullcontext(detector)], frame, seconds))
            for protocol, count in kinds:
                remote[protocol, count].append(together([partial(Client, protocol, port)] * count, frame, seconds))
    rows = [{"protocol": protocol, "clients": count, **_summary(turns)} for (protocol, count), turns in remote.items()]
    described = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
    height, width = frame.shape[:2]
    print(json_text({"versions_of_the_server": described, "frame_wh": [width, height]} | _result(local, rows)))
    return 0


def _result(local: list[Turn], rows: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(row["images_per_second"] for row in rows)
    here = _summary(local)
    return {"local": here, "server": rows, "best_over_local": round(best / here["images_per_second"], 3)}


def _check_same(detector: Detector, frame: NDArray[np.uint8], port: int) -> None:
    local = detector(frame)
    for protocol in PROTOCOLS:
        with Client(protocol, port) as client:
            for name, array in client(frame).items():
                np.testing.assert_array_equal(array, getattr(local, name))


def together(connects: list[Connect], frame: NDArray[np.uint8], seconds: float) -> Turn:
    """All at once, each on a thread of its own, one request after the other.

    Args:
        connects: give what is asked, to the thread that uses it: Triton's client for HTTP serves no other.
        frame: uint8 ``[h, w, 3]``.
        seconds: of which requests are counted, after some that are not.
    """
    start = threading.Barrier(len(connects))
    with ThreadPoolExecutor(len(connects)) as pool:
        turns = list(pool.map(partial(_ask_until, frame, seconds, start), connects))
    took = max(end for _, _, end in turns) - min(begun for _, begun, _ in turns)
    ms = [one for asked, _, _ in turns for one in asked]
    return len(ms) / took, ms


def _ask_until(
    frame: NDArray[np.uint8], seconds: float, start: threading.Barrier, connect: Connect
) -> tuple[list[float], float, float]:
    """The milliseconds of each request, and when the first began and the last ended."""
    with connect() as ask:
        for _ in range(WARM_UP):
            ask(frame)
        start.wait(WAIT_SECONDS)
        times = [time.monotonic()]
        while times[-1] < times[0] + seconds:
            ask(frame)
            times.append(time.monotonic())
    return list(1000 * np.diff(times)), times[0], times[-1]


def _summary(turns: list[Turn]) -> dict[str, Any]:
    """Rates: the median of the rounds, and each; times: of all requests of all rounds."""
    rates = [rate for rate, _ in turns]
    p50, p90 = np.percentile([one for _, ms in turns for one in ms], (50, 90))
    return {
        "images_per_second": round(statistics.median(rates), 2),
        "rounds": [round(rate, 2) for rate in rates],
        "p50_ms": round(float(p50), 2),
        "p90_ms": round(float(p90), 2),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
