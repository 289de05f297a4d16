"""What the libraries for the CPU cannot read, by their versions."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from gfl_edge.backends.onnx_cpu import OpenVinoBackend
from gfl_edge.errors import BackendError
from gfl_edge.spec import load_contract
from gfl_edge.zoo.bundled import bundled_model


@pytest.fixture
def model():
    return load_contract(bundled_model())


@pytest.mark.parametrize("version", ["2024.4.0-16579-c3152d32c9c-releases/2024/4", "2025.2.0"])
def test_an_openvino_that_reads_no_half_scales_says_so(model, version, monkeypatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino, "__version__", version)
    network, spec = model
    with pytest.raises(BackendError, match=r"INT8 with FP16 scales, which need 2025\.3 or newer") as refused:
        OpenVinoBackend(network, dataclasses.replace(spec, quantized_layers=3))
    assert "\n" not in str(refused.value)
    assert "--backend onnxruntime" in str(refused.value)
    OpenVinoBackend(network, spec).close()  # FP16 alone is read


def test_the_bundled_file_is_of_an_ir_that_onnxruntime_1_18_reads(model) -> None:
    network, _ = model
    assert isinstance(network, onnx.ModelProto)
    assert network.ir_version <= 10
