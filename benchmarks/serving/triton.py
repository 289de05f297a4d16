"""How many images a second a real Triton serves, beside the same detector without a server."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.serving.server import CHECKOUT, PACKAGES, PYTHON
from gfl_edge.errors import BackendError, InputError
from train.weights.find import data_folder

IMAGES = "coco128/train2017"
ROUNDS, SECONDS = 5, 6.0
ENVIRONMENT = "env"  # in the measurement's folder


def measure(folder: Path, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """The bundled detector on ONNX Runtime in this machine's server and without: images per second, and request times.

    Clients, the server and the detector share the cores. In turns, so that what disturbs the machine disturbs all.

    Raises:
        InputError: the environment of the server, or the images, are missing; says how to make it.
        BackendError: the server does not start, or answers otherwise than the detector.
    """
    python = folder / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        environment = f"FOLDER/{ENVIRONMENT}"
        raise InputError(
            f"{python} is missing: nvidia-pytriton's server needs an environment of its own, Python {PYTHON} on Linux "
            f"on x86_64. Make it in some folder: python{PYTHON} -m venv {environment} && {environment}/bin/python -m "
            f"pip install {shlex.join(PACKAGES)}, then: python benchmarks/run.py triton --folder FOLDER"
        )
    images = sorted((data_folder() / IMAGES).glob("*.jpg"))
    if not images:
        raise InputError(f"there are no images in {data_folder() / IMAGES}")
    words = [python, "-m", "benchmarks.serving.load", images[0], free_ports(3), rounds, seconds]
    with tempfile.TemporaryDirectory() as home:  # in which its sockets lie, whose paths have to be short
        settings = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HOME": home}
        ran = subprocess.run(list(map(str, words)), env=settings, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise BackendError(f"the server was not measured; what asked it ended with status {ran.returncode}, see above")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return {"model": "the bundled detector", "seconds": seconds, **result}


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free.

    Raises:
        InputError: there are none.
    """
    for first in range(18_500, 19_000, count):
        if all(map(_is_free, range(first, first + count))):
            return first
    raise InputError(f"there are no {count} free ports in a row from 18500 to 19000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
