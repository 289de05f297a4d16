"""Running an ONNX file on the CPU: OpenVINO, the fast default, and ONNX Runtime, the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.backends.checks import check_batch, check_outputs
from gfl_edge.backends.signal_stack import signal_stack_kept
from gfl_edge.backends.tied_scores import with_ordered_topk
from gfl_edge.errors import BackendError
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.spec import INPUT_NAME, ModelSpec

HALF_SCALES_FROM = (2025, 3)  # version of OpenVINO


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU.

    Args:
        model: ``onnx.ModelProto`` of the gfl_edge contract.
        spec: its description.

    Raises:
        BackendError: ONNX Runtime refuses the model, or would: it is bfloat16.
    """

    name = "onnxruntime"
    max_batch: int | None = None

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._library = optional.load("onnxruntime")
        if spec.precision == "bf16":
            raise BackendError(
                f"{spec.name} is bf16, in which ONNX Runtime computes no convolutions on a CPU: it is made for GPUs "
                "from sm80 on. Build an engine with gfl-edge build, take OpenVINO, or export it without --bf16"
            )
        options = self._library.SessionOptions()
        options.log_severity_level = 4  # errors reach the caller as exceptions
        if spec.quantized_layers and spec.precision == "fp16":
            # ONNX Runtime 1.31 makes int32 biases with FP16 scales, too small for FP16, which costs 0.7 AP
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session: Any = self._library.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exception types are private
            raise BackendError(f"ONNX Runtime cannot load {spec.name}: {_one_line(error)}") from error

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        check_batch(images, self.spec, self.max_batch)
        names = self.spec.output_names
        try:
            outputs = dict(zip(names, self._session.run(names, {INPUT_NAME: images}), strict=True))
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {self.spec.name}: {_one_line(error)}") from error
        check_outputs(outputs, self.spec, images)
        return outputs

    def describe(self) -> dict[str, str]:
        """See :meth:`gfl_edge.backends.base.Backend.describe`."""
        return {"library": "onnxruntime", "version": str(self._library.__version__), "device": "CPU"}

    def close(self) -> None:
        """See :meth:`gfl_edge.backends.base.Backend.close`."""
        self._session = None


class OpenVinoBackend:
    """OpenVINO on the CPU; one compiled network per batch size, since static shapes run faster.

    A model of dynamic size is compiled once with its shapes open: it would see too many to compile each.

    Args:
        model: ``onnx.ModelProto`` of the gfl_edge contract.
        spec: its description.

    Raises:
        BackendError: OpenVINO refuses the model.
    """

    name = "openvino"
    max_batch: int | None = None

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._library = optional.load("openvino")
        version = str(self._library.__version__).partition("-")[0]
        half_scales = spec.quantized_layers and spec.precision == "fp16"
        if half_scales and tuple(map(int, version.split(".")[:2])) < HALF_SCALES_FROM:
            needed = ".".join(map(str, HALF_SCALES_FROM))
            raise BackendError(
                f"OpenVINO {version} does not read {spec.name}: INT8 with FP16 scales, which need {needed} or newer. "
                f"Update it with: pip install --upgrade 'openvino>={needed}', or take --backend onnxruntime"
            )
        with signal_stack_kept():
            self._core: Any = self._library.Core()
        model = with_ordered_topk(model)
        inlined = optional.load("onnx.inliner").inline_local_functions(model)  # it knows no model-local functions
        self._content = inlined.SerializeToString()
        self._compiled: dict[int | None, Any] = {}
        self._request(1)

    def _request(self, images: int) -> Any:
        batch = images if self.spec.short_long is None else None
        if batch not in self._compiled:
            # On CPUs with bf16 or f16 units OpenVINO would otherwise lower the precision by itself
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
            try:
                network = self._core.read_model(self._content, b"")
                if batch is not None:
                    network.reshape({INPUT_NAME: [batch, *self.spec.input_hw, 3]})
                with signal_stack_kept():
                    self._compiled[batch] = self._core.compile_model(network, "CPU", settings).create_infer_request()
            except RuntimeError as error:
                raise BackendError(f"OpenVINO cannot load {self.spec.name}: {_one_line(error)}") from error
        return self._compiled[batch]

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        check_batch(images, self.spec, self.max_batch)
        request = self._request(len(images))
        try:
            request.infer({INPUT_NAME: np.ascontiguousarray(images)}, share_inputs=True)
            outputs = {name: request.get_tensor(name).data for name in self.spec.output_names}
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on {self.spec.name}: {_one_line(error)}") from error
        check_outputs(outputs, self.spec, images)
        return outputs

    def describe(self) -> dict[str, str]:
        """See :meth:`gfl_edge.backends.base.Backend.describe`."""
        version = self._library.__version__.partition("-")[0]
        with signal_stack_kept():
            device = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        return {"library": "openvino", "version": version, "device": str(device)}

    def close(self) -> None:
        """See :meth:`gfl_edge.backends.base.Backend.close`."""
        self._compiled.clear()


def _one_line(error: Exception) -> str:
    """What a library says, without the lines of its source that it passed."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from src/"))
