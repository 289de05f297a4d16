"""A stand-in for tritonclient.grpc and the server that it talks to, which runs a model of ``gfl-edge triton``."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import onnx

from gfl_edge.ops.onnx_graph import open_session


class InferenceServerException(Exception):  # noqa: N818
    def message(self):
        return str(self)


class InferInput:
    def __init__(self, name, shape, datatype):
        self.name, self.shape, self.datatype = name, shape, datatype

    def set_data_from_numpy(self, array):
        assert (list(array.shape), array.dtype.name.upper()) == (self.shape, self.datatype)
        self.array = array


def InferRequestedOutput(name):  # noqa: N802
    return name


class Repository:
    """The models of a repository; ``client`` is what stands for ``tritonclient.grpc``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = SimpleNamespace(
            InferenceServerClient=self._connect,
            InferInput=InferInput,
            InferRequestedOutput=InferRequestedOutput,
            InferenceServerException=InferenceServerException,
        )

    def _connect(self, _server):
        return SimpleNamespace(get_model_config=self._config, infer=self._infer, close=lambda: None)

    def _config(self, name, client_timeout):
        assert client_timeout > 0
        path = self.folder / name / "config.pbtxt"
        if not path.is_file():
            raise InferenceServerException(f"Request for unknown model: '{name}' is not found")
        found = re.findall(
            r'^parameters { key: "(.*?)" value { string_value: "(.*)" } }$', path.read_text(), re.MULTILINE
        )
        texts = {key: value.encode().decode("unicode_escape").encode("latin-1").decode() for key, value in found}
        parameters = {key: SimpleNamespace(string_value=value) for key, value in texts.items()}
        return SimpleNamespace(config=SimpleNamespace(parameters=parameters))

    def _infer(self, name, inputs, outputs, client_timeout):
        assert client_timeout > 0
        session = open_session(onnx.load(self.folder / name / "1" / "model.onnx"))
        arrays = session.run(outputs, {given.name: given.array for given in inputs})
        return SimpleNamespace(as_numpy=dict(zip(outputs, arrays, strict=True)).get)
