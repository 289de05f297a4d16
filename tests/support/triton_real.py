"""Runs in an environment of its own: a real Triton serves the bundled detector, and clients ask it.

    python triton_real.py IMAGE PORT REPOSITORY

Prints a line for each promise that held, and fails where one does not.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from benchmarks.serving.server import CHECKOUT, MODEL, OUTPUTS, PROTOCOLS, Client, served
from examples import triton_server
from gfl_edge.detector import Detector
from gfl_edge.media.images import read_image
from gfl_edge.serving.triton import spec_of_parameters
from gfl_edge.spec import read_spec
from gfl_edge.zoo.bundled import bundled_model

CLIENTS = 64


def ask(protocol, port, frame):
    with Client(protocol, port) as client:
        return client(frame)


def check_same(found, local):
    for name in OUTPUTS:
        np.testing.assert_array_equal(found[name], getattr(local, name))


def check_refused(protocol, port):
    for wrong in (np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3), np.uint8)[:1, :1]):
        try:
            ask(protocol, port, wrong)
        except InferenceServerException as error:
            said = error.message()
        else:
            raise AssertionError(f"{wrong.shape} was taken")
        assert str(CHECKOUT) not in said, "a client reads no paths of this machine"


def main() -> None:
    image, port, repository = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    config = text_format.Parse((repository / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert spec_of_parameters(config.parameters, "m") == read_spec(bundled_model())
    print("protobuf")
    frame = read_image(image)
    with Detector(None, "onnxruntime") as detector:
        local = detector(frame)
    assert len(local.scores) > 5
    assert (triton_server.MODEL, tuple(triton_server.OUTPUTS)) == (MODEL, OUTPUTS)
    with served(port):
        for protocol in PROTOCOLS:
            check_same(ask(protocol, port, frame), local)
            check_refused(protocol, port)
            check_same(ask(protocol, port, frame), local)
        print("same", "refused")
        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = [pool.submit(ask, tuple(PROTOCOLS)[index % 2], port, frame) for index in range(CLIENTS)]
            for one in asked:
                check_same(one.result(), local)
        print("clients")
    with served(port):
        check_same(ask("gRPC", port, frame), local)
    print("restart")


if __name__ == "__main__":
    main()
