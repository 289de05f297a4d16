"""Images per second of the detector in this process and behind a real Triton, in the environment that has it.

    python -m benchmarks.serving.load IMAGE PORT ROUNDS SECONDS

prints JSON.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.server import PROTOCOLS, Client, served
from gfl_edge.detector import Detector
from gfl_edge.media.images import read_image

CLIENTS = (1, 2, 4, 16)
VERSIONS = ("nvidia-pytriton", "tritonclient", "onnxruntime", "numpy", "opencv-python-headless")
WARM_UP = 5  # requests of each client

Ask = Callable[[NDArray[np.uint8]], Any]
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
            local.append(_together([detector], frame, seconds))
            for protocol, count in kinds:
                remote[protocol, count].append(_of_clients(protocol, count, port, frame, seconds))
    rows = [{"protocol": protocol, "clients": count, **_summary(turns)} for (protocol, count), turns in remote.items()]
    described = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
    height, width = frame.shape[:2]
    print(json.dumps({"versions_of_the_server": described, "frame_wh": [width, height]} | _result(local, rows)))
    return 0


def _result(local: list[Turn], rows: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(row["images_per_second"] for row in rows)
    here = _summary(local)
    return {"local": here, "server": rows, "best_over_local": round(best / here["images_per_second"], 3)}


def _check_same(detector: Detector, frame: NDArray[np.uint8], port: int) -> None:
    local = detector(frame)
    for protocol in PROTOCOLS:
        with Client(protocol, port) as client:
            for name, array in client.ask(frame).items():
                np.testing.assert_array_equal(array, getattr(local, name))


def _of_clients(protocol: str, count: int, port: int, frame: NDArray[np.uint8], seconds: float) -> Turn:
    clients = [Client(protocol, port) for _ in range(count)]
    try:
        return _together([client.ask for client in clients], frame, seconds)
    finally:
        for client in clients:
            client.__exit__()


def _together(asks: list[Ask], frame: NDArray[np.uint8], seconds: float) -> Turn:
    """All at once, each on a thread of its own, one request after the other."""
    with ThreadPoolExecutor(len(asks)) as pool:
        for _ in pool.map(partial(_ask_some, frame, WARM_UP), asks):
            pass
        start = time.monotonic()
        turns = list(pool.map(partial(_ask_until, frame, start + seconds), asks))
        took = time.monotonic() - start
    ms = [one for turn in turns for one in turn]
    return len(ms) / took, ms


def _ask_some(frame: NDArray[np.uint8], count: int, ask: Ask) -> None:
    for _ in range(count):
        ask(frame)


def _ask_until(frame: NDArray[np.uint8], end_s: float, ask: Ask) -> list[float]:
    ms = []
    while (start := time.monotonic()) < end_s:
        ask(frame)
        ms.append(1000 * (time.monotonic() - start))
    return ms


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
