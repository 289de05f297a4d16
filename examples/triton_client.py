"""Detect objects in images by a model that NVIDIA's Triton serves, as ``gfl-edge triton`` put it there.

What the model takes and finds, the server says; frames are resized here, so that a fraction of their bytes travels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.console import run_command
from gfl_edge.detections import Detections
from gfl_edge.detector import in_frame
from gfl_edge.errors import BackendError
from gfl_edge.filters.arguments import add_filter, read_filter
from gfl_edge.media.images import read_image
from gfl_edge.ops.postprocess import detections
from gfl_edge.ops.preprocess import place_frame, single_input
from gfl_edge.serving.triton import spec_of_parameters
from gfl_edge.spec import INPUT_NAME


class TritonDetector:
    """A model on a server, for frames one by one.

    Args:
        server: host and port of its gRPC service, "127.0.0.1:8001".
        model: its name there.
        timeout_s: of a request.

    Raises:
        BackendError: the server is not there, does not have the model or refuses a frame.
        ContractError: the model was not put there by ``gfl-edge triton``.
    """

    def __init__(self, server: str, model: str, timeout_s: float = 30.0) -> None:
        self._grpc: Any = optional.load("tritonclient.grpc")
        self._client = self._grpc.InferenceServerClient(server)
        self._model, self._timeout_s = model, timeout_s
        config = self._asked(self._client.get_model_config, model).config
        self.spec = spec_of_parameters(config.parameters, model)

    def __call__(self, frame: NDArray[np.uint8]) -> Detections:
        """The detections in a frame, uint8 ``[h, w, 3]`` BGR."""
        batch = single_input(frame, self.spec)
        images = self._grpc.InferInput(INPUT_NAME, list(batch.shape), "UINT8")
        images.set_data_from_numpy(batch)
        wanted = [self._grpc.InferRequestedOutput(name) for name in self.spec.output_names]
        answer = self._asked(self._client.infer, self._model, [images], outputs=wanted)
        outputs = {name: answer.as_numpy(name) for name in self.spec.output_names}
        found = detections(outputs, 0, self.spec, batch.shape[1:3])
        size = (frame.shape[0], frame.shape[1])
        place = place_frame(size, batch.shape[1:3], self.spec.resize, self.spec.short_long)
        return in_frame(found, place, self.spec)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _asked(self, ask: Any, *args: Any, **options: Any) -> Any:
        try:
            return ask(*args, client_timeout=self._timeout_s, **options)
        except self._grpc.InferenceServerException as error:
            raise BackendError(f"Triton, model {self._model}: {error.message()}") from error


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/triton_client.py", description=__doc__)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--model", required=True, metavar="NAME", help="of the model on the server")
    parser.add_argument("--server", default="127.0.0.1:8001", metavar="HOST:PORT", help="its gRPC service")
    add_filter(parser, "print")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    detector = TritonDetector(args.server, args.model)
    try:
        keep = read_filter(args).for_model(detector.spec)
        for path in args.images:
            image = read_image(path)
            for box, score, name in keep.apply(detector(image), (image.shape[0], image.shape[1])):
                print(path, name, f"{score:.2f}", *(f"{side:.1f}" for side in box))
    finally:
        detector.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
