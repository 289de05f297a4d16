"""Running an engine on the GPU: TensorRT and TensorRT-RTX."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gfl_edge.backends.checks import check_batch, check_shape
from gfl_edge.backends.gpu_stages import GpuFrames, GpuNms
from gfl_edge.backends.nms import NmsChoice, NmsPlace, place_on_gpu
from gfl_edge.cuda import CudaLibrary, open_device
from gfl_edge.cuda.events import START, Mark, StageEvents, unmarked
from gfl_edge.cuda.graphs import GraphCache
from gfl_edge.cuda.kernels import BGR, NV12, Kernels, nms_params
from gfl_edge.engine.contract import DTYPE_OF, engine_contract, output_problem, size_problem, tensor_problem
from gfl_edge.engine.flavor import LIBRARY_OF, Flavor, load_flavor, make_logger
from gfl_edge.engine.plugin import load_plugin
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import BackendError, ContractError, MissingDependencyError
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame, Placement, checked_size, place_frame, resize_into
from gfl_edge.spec import INPUT_NAME

if TYPE_CHECKING:
    import tensorrt as trt

_LOG = logging.getLogger(__name__)


class TensorRTBackend:
    """An engine on the GPU, for both flavors of TensorRT. Implements :class:`gfl_edge.backends.base.FrameBackend`.

    Memory is allocated once, for the largest batch; that of the frames grows with them. The arrays that are returned
    are views on it: the next call overwrites them, and they stay readable after :meth:`close`.

    After an engine without NMS the project's kernels do what is left to do, on the engine's stream, so that the
    outputs are detections. Where the kernels cannot be used, a warning says why, and the outputs are the engine's own.

    Attributes:
        nms_place: where NMS runs.
        stage_ms: milliseconds on the GPU of the last run, by stage: upload, resize, network, nms, download, those that
            there are. Empty before :meth:`time_stages`.

    Args:
        engine_path: engine, with its sidecar beside it.
        flavor: which TensorRT loads it; None: the one that built it.
        cuda: which library reaches the GPU, see :func:`gfl_edge.cuda.open_device`.
        nms: where NMS is to run, see :mod:`gfl_edge.backends.nms`; "host" leaves it to the caller.
        cuda_graphs: capture what a frame needs, from upload to download, and replay it. Where this is not done,
            TensorRT-RTX has graphs of its own of the network.

    Raises:
        ModelFileError: engine or sidecar is missing, or the engine is not the file that the sidecar describes.
        InputError: NMS where this engine cannot have it.
        ContractError: the sidecar is unreadable, or the engine's inputs and outputs are not those of its spec.
        EngineMismatchError: built by another flavor or version, or for another GPU.
        MissingDependencyError: TensorRT or the CUDA library is not installed.
        BackendError: no driver, no GPU, no memory, or TensorRT refuses the engine.
    """

    def __init__(
        self,
        engine_path: str | Path,
        flavor: Flavor | None = None,
        cuda: CudaLibrary = "auto",
        *,
        nms: NmsChoice = "auto",
        cuda_graphs: bool = True,
    ) -> None:
        self._path = engine_path
        self._sidecar = Sidecar.read(engine_path)
        content = self._sidecar.check_file(engine_path)
        self._flavor: Flavor = flavor or self._sidecar.flavor
        self.name: str = self._flavor
        self.spec = self._sidecar.spec
        self.nms_place: NmsPlace = place_on_gpu(self.spec, nms, str(engine_path))
        self.max_batch: int | None = self._sidecar.max_batch
        self._version = self._load_library()
        self._contract = engine_contract(self.spec)
        self._addresses: dict[str, int] = {}  # of the tensors on the device
        self._pinned: dict[str, NDArray[Any]] = {}  # flat, of those that are copied from or to the host
        self._nms: GpuNms | None = None
        self._frames: GpuFrames | None = None
        self._no_kernels = False  # they cannot be used
        self._kernels: Kernels | None = None
        self._shape: tuple[int, ...] = ()  # of the input that the execution context is set to
        self._context: trt.IExecutionContext | None = None
        self._messages: deque[str] = deque(maxlen=3)  # TensorRT's last warnings and errors
        self._resources = ExitStack()
        self._closed = False
        self._device = open_device(cuda)
        try:
            self._sidecar.check(engine_path, self._flavor, self._version, self._device.compute_capability)
            with self._device.active():
                self._make_stream(cuda_graphs)
                if self.nms_place == "kernels":
                    self._open_nms()
                self._load(content)
        except BaseException:
            self.close()
            raise

    def _load_library(self) -> str:
        """Import the flavor and return its version."""
        if self._flavor != self._sidecar.flavor:
            # Before the import, since "not installed" would send the user the wrong way
            target = next(iter(self._sidecar.targets), "")
            self._sidecar.check(self._path, self._flavor, self._sidecar.version, target)
        version = str(load_flavor(self._flavor).__version__)
        if self.spec.nms == "plugin":
            load_plugin(self._flavor, Path(self._path).parent)
        return version

    def _make_stream(self, cuda_graphs: bool) -> None:
        """Make what all work goes through; ``_resources`` gives everything back in reverse order."""
        self._stream = self._device.create_stream()
        self._resources.callback(self._device.destroy_stream, self._stream)
        compiles_late = self._flavor == "rtx" and self.spec.short_long is not None  # see _runtime_config
        self._graphs = GraphCache(self._device, self._stream, enabled=cuda_graphs and not compiles_late)
        self.stage_ms: dict[str, float] = {}
        self._stage_events: StageEvents | None = None
        self._mark: Mark = unmarked
        # What is made later, at first use, goes after the context, which waits for the work that is still queued
        self._late_resources = self._resources.enter_context(ExitStack())
        self._resources.callback(self._graphs.clear)

    def _open_nms(self) -> None:
        """Make the NMS after the engine, or warn that it is left to the host."""
        try:
            nms_params(self.spec, self._sidecar.max_batch, self.spec.size_range[1])
        except BackendError as error:
            _LOG.warning("%s: NMS runs on the host, since %s", self._path, str(error))
            self.nms_place = "host"
            return
        kernels = self._open_kernels("NMS and resizing run")
        if kernels is None:
            self.nms_place = "host"
        else:
            self._nms = GpuNms(self._device, kernels, self.spec, self._sidecar.max_batch)
            self._late_resources.callback(self._nms.close)

    def _open_kernels(self, what: str) -> Kernels | None:
        """The kernels, loaded at the first call; None, and one warning, where they cannot be used."""
        if self._kernels is None and not self._no_kernels:
            try:
                self._kernels = Kernels(self._device)
            except (BackendError, MissingDependencyError) as error:
                self._no_kernels = True
                _LOG.warning(
                    "%s: %s on the host, since the CUDA kernels cannot be used: %s", self._path, what, str(error)
                )
            else:
                self._late_resources.callback(self._kernels.close)
        return self._kernels

    def _load(self, content: bytes) -> None:
        """Make the memory of all tensors and the execution context, which keeps the engine alive, and bind the two."""
        self._resources.callback(self._pinned.clear)
        for name, tensor in self._contract.items():
            count, dtype = self._sidecar.max_batch * math.prod(tensor.item_shape), np.dtype(DTYPE_OF[tensor.dtype])
            if name == INPUT_NAME or self._nms is None:  # it is copied from or to the host
                self._pinned[name] = self._device.pinned_empty((count,), dtype)
            self._addresses[name] = self._device.malloc(count * dtype.itemsize)
            self._resources.callback(self._device.free, self._addresses[name])

        engine = self._deserialize(content)
        self._check(tensor_problem(engine, self._contract))
        self._check(size_problem(engine, self.spec, self._sidecar.max_batch))
        self._resources.callback(self._drop_context)
        self._context = context = self._create_context(engine)
        self._set_shape(context, (self._sidecar.max_batch, *self._contract[INPUT_NAME].item_shape))
        self._check(output_problem(context, self._contract, self._sidecar.max_batch))
        for name, address in self._addresses.items():
            if not context.set_tensor_address(name, address):
                raise self._failed(f"does not take the buffer of {name}")
        self._messages.clear()  # what it said so far is no reason for what may fail later

    def _deserialize(self, content: bytes) -> trt.ICudaEngine:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = load_flavor(self._flavor)

        try:  # the runtime keeps the logger alive, and the engine the runtime
            runtime: trt.Runtime | None = trt.Runtime(make_logger(self._flavor, self._messages))
        except TypeError:  # pybind's word for a null pointer, as with a driver too old for this TensorRT
            runtime = None
        engine = runtime.deserialize_cuda_engine(content) if runtime else None
        if engine is None:
            advice = f"Rebuild with: {self._sidecar.rebuild_command}"
            if any("driver version is insufficient" in message for message in self._messages):
                advice = f"Update the NVIDIA driver, which is for CUDA {self._device.driver_version} at most"
            raise self._failed("cannot load this engine", advice)
        return engine

    def _create_context(self, engine: trt.ICudaEngine) -> trt.IExecutionContext:
        if self._flavor == "tensorrt":
            return self._not_none(engine.create_execution_context())
        # The run-time options come in a config, which TensorRT knows since 10.13 but not on JetPack 6
        context = self._not_none(engine.create_execution_context(self._runtime_config(engine)))
        if self._graphs.enabled and not cast(Any, context).is_stream_capturable(self._stream):
            _LOG.debug("%s: TensorRT-RTX cannot be captured, so CUDA graphs hold only the network", self._path)
            self._graphs.enabled = False
            del context  # and its memory, before the next takes as much
            return self._create_context(engine)
        return context

    def _not_none(self, context: trt.IExecutionContext | None) -> trt.IExecutionContext:
        if context is None:
            raise self._failed("cannot prepare this engine to run", "Is enough GPU memory free?")
        return context

    def _runtime_config(self, engine: Any) -> Any:
        """Options of TensorRT-RTX, which compiles kernels for a shape while general ones run in their place.

        A graph would hold the general ones for ever, so it has to wait for the others; where sizes come and go that
        wait is too long, and TensorRT-RTX makes graphs of only the network by itself when the others are there.
        """
        library, config = load_flavor("rtx"), engine.create_runtime_config()
        if self._graphs.enabled:
            eager = library.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        else:
            config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config

    def _check(self, problem: str) -> None:
        """Raise ContractError if there is a problem with the engine."""
        if problem:
            raise ContractError(
                f"{self._path} {problem}, as its sidecar says. Rebuild with: {self._sidecar.rebuild_command}"
            )

    def _failed(self, what: str, advice: str = "") -> BackendError:
        reason = "; ".join(self._messages) or "no reason given"
        return BackendError(
            f"{self._path}: {LIBRARY_OF[self._flavor]} {self._version} {what} ({reason}). {advice}".strip()
        )

    def _set_shape(self, context: trt.IExecutionContext, shape: tuple[int, ...]) -> None:
        if shape != self._shape:  # setting a shape makes TensorRT infer all others again
            self._graphs.clear()  # graphs are valid as long as the context that they were captured from is not touched
            self._shape = ()
            if not context.set_input_shape(INPUT_NAME, shape):
                raise self._failed(f"does not take an input of {list(shape)}")
            self._shape = shape

    def _open_context(self) -> trt.IExecutionContext:
        if self._context is None:
            raise BackendError(f"{self._path} is closed and cannot run any more. Load it again")
        return self._context

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        context = self._open_context()
        check_batch(images, self.spec, self.max_batch)
        with self._device.active():
            self._set_shape(context, images.shape)
            np.copyto(self._host(INPUT_NAME, images.shape), images)
            return self._run(INPUT_NAME, self._upload_images)

    def run_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[Outputs, list[Placement]]:
        """See :meth:`gfl_edge.backends.base.FrameBackend.run_frames`."""
        context = self._open_context()
        shape = (len(frames), *input_hw, 3)
        check_shape(shape, self.spec, self.max_batch)
        sizes = [checked_size(frame) for frame in frames]
        formats = [NV12 if isinstance(frame, Nv12Frame) else BGR for frame in frames]
        with self._device.active():
            self._set_shape(context, shape)
            if self._frames is None and (kernels := self._open_kernels("resizing runs")):
                self._frames = GpuFrames(self._device, kernels, self.spec, self._settle)
                self._late_resources.callback(self._frames.close)
            stage = self._frames
            if stage is None:  # they are resized on the host
                slots = self._host(INPUT_NAME, shape)
                rule, short_long = self.spec.resize, self.spec.short_long
                placed = [resize_into(frame, slot, rule, short_long) for frame, slot in zip(frames, slots, strict=True)]
                return self._run(INPUT_NAME, self._upload_images), placed
            stage.take(frames)
            placements = [place_frame(size, input_hw, self.spec.resize, self.spec.short_long) for size in sizes]
            target = self._addresses[INPUT_NAME]
            send = lambda: stage.queue(placements, formats, input_hw, target, self._stream, self._mark)  # noqa: E731
            return self._run((tuple(sizes), tuple(formats)), send), placements

    def time_stages(self) -> None:
        """Time the stages of every run from now on, which costs the GPU some microseconds each."""
        self._open_context()
        if self._stage_events is None:
            with self._device.active():
                self._settle()  # the graphs so far have no events
            self._stage_events = StageEvents(self._device, self._stream)
            self._late_resources.callback(self._stage_events.close)
            self._mark = self._stage_events.mark

    def _settle(self) -> None:
        """Wait for what a failed run may have left on the stream, and let go of the graphs."""
        self._device.synchronize(self._stream)
        self._graphs.clear()

    def _run(self, key: Hashable, send: Callable[[], None]) -> Outputs:
        """Run the batch that ``send`` queues; ``key`` stands for all of its calls and their parameters."""
        self._graphs.run(key, lambda: self._queue(send))
        self._device.synchronize(self._stream)
        if self._stage_events is not None:
            sent = ("upload",) if key == INPUT_NAME else ("upload", "resize")
            self.stage_ms = self._stage_events.read((*sent, "network", *(("nms",) if self._nms else ()), "download"))
        if self._nms is not None:
            return self._nms.outputs(self._shape[0])
        return {name: self._host(name, shape) for name, shape in self._output_shapes().items()}

    def _queue(self, send: Callable[[], None]) -> None:
        """Queue everything from upload to download."""
        self._mark(START)
        send()
        if not self._open_context().execute_async_v3(self._stream):
            raise self._failed("cannot run this engine")
        self._mark("network")
        if self._nms is not None:
            batch, height, width, _ = self._shape
            self._nms.queue(batch, (height, width), self._addresses, self._stream, self._mark)
            return
        for name, shape in self._output_shapes().items():
            self._device.copy_to_host(self._host(name, shape), self._addresses[name], self._stream)
        self._mark("download")

    def _upload_images(self) -> None:
        pinned = self._host(INPUT_NAME, self._shape)
        self._device.copy_to_device(self._addresses[INPUT_NAME], pinned, self._stream)
        self._mark("upload")

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the engine's outputs, by name, at the size that is set."""
        batch, height, width, _ = self._shape
        contract = engine_contract(self.spec, (height, width))
        return {name: (batch, *tensor.item_shape) for name, tensor in contract.items() if name != INPUT_NAME}

    def _host(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The part of a tensor's pinned memory that ``shape`` takes, as such."""
        return self._pinned[name][: math.prod(shape)].reshape(shape)

    def describe(self) -> dict[str, str]:
        """See :meth:`gfl_edge.backends.base.Backend.describe`."""
        return {
            "library": LIBRARY_OF[self._flavor],
            "version": self._version,
            "device": f"{self._device.name} ({self._device.compute_capability})",
            "driver": f"CUDA {self._device.driver_version}",
            "cuda": self._device.library,
        }

    def close(self) -> None:
        """See :meth:`gfl_edge.backends.base.Backend.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._device.active():
                self._resources.close()
        except BackendError as error:  # this often runs because of an earlier error, which must not be hidden
            _LOG.warning("closing %s: %s", self._path, error)
        self._device.close()

    def _drop_context(self) -> None:
        """Destroy context, engine and runtime, after the work that a failed run may have left on the stream."""
        try:
            self._settle()
        finally:
            self._context = None
