"""Serve a detector by NVIDIA's Triton, without a repository: ``pip install nvidia-pytriton`` brings the server (x86).

Frames come as uint8 ``[h, w, 3]`` BGR, and detections in their pixels go back, over HTTP and gRPC.
Triton's Python back end loads ``libpython`` of the interpreter that runs this; where that is in no folder of the
system, as of pyenv, put the folder that ``sysconfig.get_config_var("LIBDIR")`` names into ``LD_LIBRARY_PATH``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.console import run_command
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError
from gfl_edge.parsing.numbers import whole_argument

MODEL = "detector"
OUTPUTS = {"boxes": (np.float32, (-1, 4)), "scores": (np.float32, (-1,)), "class_ids": (np.int32, (-1,))}
MAX_PORT = 65533

logger = logging.getLogger(__name__)


class NotDetectedError(Exception):
    """What a client reads instead of detections: a sentence.

    PyTriton sends exceptions with their tracebacks, which name files of this machine. This one has none to send.
    """

    __traceback__ = property(lambda self: None)  # type: ignore[assignment]  # of every exception, and here always None


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/triton_server.py", description=__doc__)
    parser.add_argument("--model", type=Path, metavar="M", help=".onnx or .engine file (default: the bundled detector)")
    parser.add_argument("--backend", default="auto", help="what runs it (default: auto)")
    parser.add_argument(
        "--port",
        type=whole_argument(1, MAX_PORT),
        default=8000,
        metavar="N",
        help="of HTTP; N + 1 is that of gRPC and N + 2 that of metrics (default: 8000)",
    )
    return run_command(parser, _run, argv)


def detects(detector: Detector) -> Callable[..., list[dict[str, Any]]]:
    """What Triton calls: requests with a ``frame`` of uint8 ``[h, w, 3]`` BGR each, answers in their order.

    It raises NotDetectedError where there is none.
    """

    def answer(frame: NDArray[np.uint8]) -> dict[str, Any]:
        try:
            found = detector(frame)
        except InputError as error:  # says what is wrong with the frame
            raise NotDetectedError(str(error)) from None
        except Exception:  # the text of others may name files of this machine: it stays here
            logger.exception("a frame of %s was not detected in", "x".join(map(str, frame.shape)))
            raise NotDetectedError("the detector failed; the log of the server says why") from None
        return {name: np.asarray(getattr(found, name), dtype) for name, (dtype, _) in OUTPUTS.items()}

    def infer(requests: list[Any]) -> list[dict[str, Any]]:
        return [answer(np.asarray(request["frame"])) for request in requests]

    return infer


def _run(args: argparse.Namespace) -> int:
    config, server = (optional.load(f"pytriton.{name}") for name in ("model_config", "triton"))
    http, grpc, metrics = range(args.port, args.port + 3)
    where = {"http_address": "127.0.0.1", "grpc_address": "127.0.0.1", "http_port": http, "grpc_port": grpc}
    settings = server.TritonConfig(**where, metrics_port=metrics, exit_timeout_secs=5)
    outputs = [config.Tensor(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in OUTPUTS.items()]
    with Detector(args.model, args.backend) as detector, server.Triton(config=settings) as triton:
        triton.bind(
            model_name=MODEL,
            infer_func=detects(detector),
            inputs=[config.Tensor(name="frame", dtype=np.uint8, shape=(-1, -1, 3))],
            outputs=outputs,
            config=config.ModelConfig(batching=False),
        )
        triton.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
