"""A real Triton with the detector of ``examples/triton_server.py``, and its clients; where both are installed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.errors import BackendError

CHECKOUT = Path(__file__).resolve().parents[2]
MODEL, OUTPUTS = "detector", ("boxes", "scores", "class_ids")  # of the example
ANSWER_SECONDS = 600.0  # that a request may wait for those of others, however busy the machine is
# The module of the client, which port after the first, and what the client is told
PROTOCOLS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "HTTP": ("tritonclient.http", 0, {"network_timeout": ANSWER_SECONDS}),
    "gRPC": ("tritonclient.grpc", 1, {}),  # waits as long as it takes
}
START_SECONDS, STOP_SECONDS = 120.0, 60.0

# The back end for Python loads libpython of the interpreter: it took that of pyenv's 3.10, and not that of its 3.11
PYTHON = "3.10"
PACKAGES = (
    *("nvidia-pytriton==0.7.0", "tritonclient[grpc,http]", "numpy<2", "pydantic", "tqdm"),
    *("onnx", "onnxruntime", "opencv-python-headless<4.12"),
)


@contextlib.contextmanager
def served(port: int) -> Iterator[None]:
    """The bundled detector behind a server, HTTP at ``port`` and gRPC at the next; ended as by Ctrl-C.

    Raises:
        BackendError: it does not start.
    """
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    words = [sys.executable, str(CHECKOUT / "examples" / "triton_server.py"), "--backend", "onnxruntime"]
    words += ["--port", str(port)]
    settings = {**os.environ, "LD_LIBRARY_PATH": libraries}
    # Whoever starts this in the background ignores SIGINT, and so would the server
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(words, env=settings, stdout=sys.stderr, preexec_fn=listen)
    try:
        with Client("HTTP", port) as client:
            _wait_for(process, client)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(process: subprocess.Popen[bytes], client: Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(Exception):  # as long as it starts, connections are refused in many ways
            if client.ready():
                return
        time.sleep(0.5)
    raise BackendError(f"Triton did not start; its status is {process.poll()}")


class Client:
    """A connection to the server, for one thread.

    Args:
        protocol: one of :data:`PROTOCOLS`.
        port: the server's first.
    """

    def __init__(self, protocol: str, port: int) -> None:
        module, offset, settings = PROTOCOLS[protocol]
        self._module: Any = optional.load(module)
        self._client = self._module.InferenceServerClient(f"127.0.0.1:{port + offset}", **settings)

    def ready(self) -> bool:
        """Whether the server answers requests."""
        return bool(self._client.is_model_ready(MODEL))

    def __call__(self, frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The detections in a frame, uint8 ``[h, w, 3]`` BGR, by the names of the arrays."""
        frames = self._module.InferInput("frame", list(frame.shape), "UINT8")
        frames.set_data_from_numpy(frame)
        answer = self._client.infer(MODEL, [frames])
        return {name: answer.as_numpy(name) for name in OUTPUTS}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
