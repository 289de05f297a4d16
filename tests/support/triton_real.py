"""Runs in an environment of its own: a real Triton serves the bundled detector, and clients ask it.

    python triton_real.py IMAGE PORT REPOSITORY

Prints a line for each promise that held, and fails where one does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from examples.triton_server import MODEL, OUTPUTS
from gfl_edge.detector import Detector
from gfl_edge.media.images import read_image
from gfl_edge.serving.triton import spec_of_parameters
from gfl_edge.spec import read_spec
from gfl_edge.zoo.bundled import bundled_model

CHECKOUT = Path(__file__).resolve().parents[2]
CLIENTS, START_S = 64, 120


@contextlib.contextmanager
def served(port):
    """A server, ended as by Ctrl-C."""
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    words = [sys.executable, str(CHECKOUT / "examples" / "triton_server.py"), "--backend", "onnxruntime"]
    words += ["--port", str(port)]
    settings = {**os.environ, "LD_LIBRARY_PATH": libraries}
    # Whoever starts the tests in the background ignores SIGINT, and so would the server
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(words, env=settings, stdout=sys.stderr, preexec_fn=listen)
    try:
        with contextlib.closing(tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}")) as client:
            wait_for(process, client)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(process, client):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(Exception):  # as long as it starts, connections are refused in many ways
            if client.is_model_ready(MODEL):
                return
        time.sleep(0.5)
    raise SystemExit(f"the server did not start; its status is {process.poll()}")


def ask(module, port, frame):
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    frames = module.InferInput("frame", list(frame.shape), "UINT8")
    frames.set_data_from_numpy(frame)
    with contextlib.closing(client):
        answer = client.infer(MODEL, [frames])
        return {name: answer.as_numpy(name) for name in OUTPUTS}


def check_same(found, local):
    for name in OUTPUTS:
        np.testing.assert_array_equal(found[name], getattr(local, name))


def check_refused(module, port):
    for wrong in (np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3), np.uint8)[:1, :1]):
        try:
            ask(module, port, wrong)
        except InferenceServerException:
            continue
        raise AssertionError(f"{wrong.shape} was taken")


def main() -> None:
    image, port, repository = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    config = text_format.Parse((repository / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert spec_of_parameters(config.parameters, "m") == read_spec(bundled_model())
    print("protobuf")
    frame = read_image(image)
    with Detector(None, "onnxruntime") as detector:
        local = detector(frame)
    assert len(local.scores) > 5
    roads = ((tritonclient.http, port), (tritonclient.grpc, port + 1))
    with served(port):
        for module, at in roads:
            check_same(ask(module, at, frame), local)
            check_refused(module, at)
            check_same(ask(module, at, frame), local)
        print("same", "refused")
        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = [pool.submit(ask, *roads[index % 2], frame) for index in range(CLIENTS)]
            for one in asked:
                check_same(one.result(), local)
        print("clients")
    with served(port):
        check_same(ask(*roads[1], frame), local)
    print("restart")


if __name__ == "__main__":
    main()
