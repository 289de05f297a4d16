"""Running an ONNX file on the CPU: OpenVINO, the fast default, and ONNX Runtime, the reference.

For latency all cores compute one batch. For throughput each core computes one of its own, which takes longer for each
and less for all, since cores do not wait for each other at every layer.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.backends.base import Performance
from gfl_edge.backends.checks import check_batch, check_outputs
from gfl_edge.backends.signal_stack import signal_stack_kept
from gfl_edge.backends.tied_scores import with_ordered_topk
from gfl_edge.errors import BackendError, InputError
from gfl_edge.ops.onnx_graph import fixed_batch
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.spec import INPUT_NAME, ModelSpec

CORES_VARIABLE = "GFL_EDGE_CORES"
HALF_SCALES_FROM = (2025, 3)  # version of OpenVINO
WAITING = 1  # run that is begun while every core is busy, so that none is idle while the caller prepares the next


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU.

    Args:
        model: ``onnx.ModelProto`` of the gfl_edge contract.
        spec: its description.
        performance: what to be fast at.

    Raises:
        BackendError: ONNX Runtime refuses the model, or would: it is bfloat16.
    """

    name = "onnxruntime"

    def __init__(self, model: Any, spec: ModelSpec, performance: Performance = "latency") -> None:
        self.spec = spec
        self.max_batch = fixed_batch(model)
        self._library = optional.load("onnxruntime")
        if spec.precision == "bf16":
            raise BackendError(
                f"{spec.name} is bf16, in which ONNX Runtime computes no convolutions on a CPU: it is made for GPUs "
                "from sm80 on. Build an engine with gfl-edge build, take OpenVINO, or export it without --bf16"
            )
        options = self._library.SessionOptions()
        options.log_severity_level = 4  # errors reach the caller as exceptions
        if performance == "throughput":
            options.intra_op_num_threads = 1
        elif os.environ.get(CORES_VARIABLE):
            options.intra_op_num_threads = cores()
        if spec.quantized_layers and spec.precision == "fp16":
            # ONNX Runtime 1.31 makes int32 biases with FP16 scales, too small for FP16, which costs 0.7 AP
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session: Any = self._library.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exception types are private
            raise BackendError(f"ONNX Runtime cannot load {spec.name}: {_one_line(error)}") from error
        threads = cores() if performance == "throughput" else 1
        self.in_flight = threads + WAITING if performance == "throughput" else 1
        self._places = threading.Semaphore(self.in_flight)
        self._threads = ThreadPoolExecutor(threads, "gfl_edge onnxruntime")

    def begin(self, images: NDArray[np.uint8]) -> _BegunCall:
        """See :meth:`gfl_edge.backends.base.OverlappingBackend.begin`."""
        check_batch(images, self.spec, self.max_batch)
        self._places.acquire()
        return _BegunCall(self._threads.submit(self.run, images), self._places)

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
        self._threads.shutdown()
        self._session = None


class _BegunCall:
    """A call in another thread; see :class:`gfl_edge.backends.base.Begun`."""

    def __init__(self, call: Future[Outputs], places: threading.Semaphore) -> None:
        self._call, self._places, self._held = call, places, True

    def outputs(self) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Begun.outputs`."""
        return self._call.result()

    def release(self) -> None:
        """See :meth:`gfl_edge.backends.base.Begun.release`."""
        if self._held:
            self._held = False
            self._call.exception()  # waits
            self._places.release()

    def __del__(self) -> None:
        """What nobody waits for any more, since a camera was stopped, is released."""
        self.release()


class OpenVinoBackend:
    """OpenVINO on the CPU; one compiled network per batch size, since static shapes run faster.

    A model of dynamic size is compiled once with its shapes open: it would see too many to compile each.

    Args:
        model: ``onnx.ModelProto`` of the gfl_edge contract.
        spec: its description.
        performance: what to be fast at.

    Raises:
        BackendError: OpenVINO refuses the model.
    """

    name = "openvino"

    def __init__(self, model: Any, spec: ModelSpec, performance: Performance = "latency") -> None:
        self.spec = spec
        self.max_batch = fixed_batch(model)
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
        self._settings = {
            "PERFORMANCE_HINT": performance.upper(),
            # On CPUs with bf16 or f16 units OpenVINO would otherwise lower the precision by itself
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if os.environ.get(CORES_VARIABLE):
            self._settings["INFERENCE_NUM_THREADS"] = str(cores())
            # Each of several processes would keep its threads on the first cores, all on the same ones
            self._settings["ENABLE_CPU_PINNING"] = "NO"
        self.in_flight = 1
        self._all_requests: list[Any] = []
        self._requests: dict[int | None, SimpleQueue[Any]] = {}  # that are free, by batch size
        self._requests_for(1)

    def _requests_for(self, images: int) -> SimpleQueue[Any]:
        """Those that are free, for that batch size."""
        batch = images if self.spec.short_long is None else None
        if batch in self._requests:
            return self._requests[batch]
        try:
            network = self._core.read_model(self._content, b"")
            if batch is not None:
                network.reshape({INPUT_NAME: [batch, *self.spec.input_hw, 3]})
            with signal_stack_kept():
                compiled = self._core.compile_model(network, "CPU", self._settings)
                if not self._requests and self._settings["PERFORMANCE_HINT"] == "THROUGHPUT":
                    self.in_flight = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + WAITING
                requests = [compiled.create_infer_request() for _ in range(self.in_flight)]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load {self.spec.name}: {_one_line(error)}") from error
        self._all_requests += requests
        self._requests[batch] = SimpleQueue()
        for request in requests:
            self._requests[batch].put(request)
        return self._requests[batch]

    def begin(self, images: NDArray[np.uint8]) -> _BegunRequest:
        """See :meth:`gfl_edge.backends.base.OverlappingBackend.begin`."""
        check_batch(images, self.spec, self.max_batch)
        return _BegunRequest(self._requests_for(len(images)), np.ascontiguousarray(images), self.spec)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        check_batch(images, self.spec, self.max_batch)
        free = self._requests_for(len(images))
        request = free.get()
        try:
            request.infer({INPUT_NAME: np.ascontiguousarray(images)}, share_inputs=True)
            return _outputs_of(request, self.spec, images)
        except RuntimeError as error:
            raise _failure(self.spec, error) from error
        finally:
            free.put(request)

    def describe(self) -> dict[str, str]:
        """See :meth:`gfl_edge.backends.base.Backend.describe`."""
        version = self._library.__version__.partition("-")[0]
        with signal_stack_kept():
            device = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        return {"library": "openvino", "version": version, "device": str(device)}

    def close(self) -> None:
        """See :meth:`gfl_edge.backends.base.Backend.close`."""
        for request in self._all_requests:
            with contextlib.suppress(RuntimeError):  # whoever asked for its outputs was told
                request.wait()
        self._all_requests.clear()
        self._requests.clear()


class _BegunRequest:
    """An inference request of OpenVINO that was started; see :class:`gfl_edge.backends.base.Begun`.

    Args:
        free: requests that may be taken, to which this one returns.
        images: must not change before.
        spec: of the model.
    """

    def __init__(self, free: SimpleQueue[Any], images: NDArray[np.uint8], spec: ModelSpec) -> None:
        self._free, self._images, self._spec = free, images, spec
        self._request: Any = free.get()
        try:
            self._request.start_async({INPUT_NAME: images}, share_inputs=True)
        except RuntimeError as error:
            self.release()
            raise _failure(spec, error) from error

    def outputs(self) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Begun.outputs`."""
        try:
            self._request.wait()
            return _outputs_of(self._request, self._spec, self._images)
        except RuntimeError as error:
            raise _failure(self._spec, error) from error

    def release(self) -> None:
        """See :meth:`gfl_edge.backends.base.Begun.release`."""
        if self._request is not None:
            request, self._request = self._request, None
            with contextlib.suppress(RuntimeError):  # whoever asked for the outputs was told
                request.wait()
            self._free.put(request)

    def __del__(self) -> None:
        """What nobody waits for any more, since a camera was stopped, is released."""
        self.release()


def _outputs_of(request: Any, spec: ModelSpec, images: NDArray[np.uint8]) -> Outputs:
    """Views of what an ended request of OpenVINO computed."""
    outputs = {name: request.get_tensor(name).data for name in spec.output_names}
    check_outputs(outputs, spec, images)
    return outputs


def _failure(spec: ModelSpec, error: RuntimeError) -> BackendError:
    return BackendError(f"OpenVINO failed on {spec.name}: {_one_line(error)}")


def cores() -> int:
    """How many cores this process may use: those that the system gives it, or ``GFL_EDGE_CORES`` of them.

    Raises:
        InputError: the variable is no whole number above 0.
    """
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get(CORES_VARIABLE) or str(given)
    if not named.isdecimal() or int(named[:20]) == 0:
        raise InputError(f"{CORES_VARIABLE} is {named[:40]!r}: expected a whole number of cores, such as {given}")
    return min(given, int(named[:20]))


def _one_line(error: Exception) -> str:
    """What a library says, without the lines of its source that it passed."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from src/"))
