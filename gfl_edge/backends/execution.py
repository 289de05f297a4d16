"""An engine that is loaded by either flavor of TensorRT, and its execution context."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kept import keep, read_kept
from gfl_edge.engine.contract import TensorContract, output_problem, size_problem, tensor_problem
from gfl_edge.engine.flavor import LIBRARY_OF, heard, load_flavor, logger_of
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import BackendError, ContractError
from gfl_edge.files import cache_folder
from gfl_edge.spec import INPUT_NAME

if TYPE_CHECKING:
    import tensorrt as trt

_LOG = logging.getLogger(__name__)


class Execution:
    """An engine and its execution context, for one input shape at a time. Use it inside ``with device.active()``.

    Args:
        path: of the engine, for messages.
        content: of that file.
        sidecar: the engine's, of the flavor and version that load it.
        device: the GPU.

    Raises:
        BackendError: TensorRT refuses the engine.
    """

    def __init__(self, path: str | Path, content: bytes, sidecar: Sidecar, device: CudaDevice) -> None:
        self._path, self._sidecar, self._device = path, sidecar, device
        self._flavor = sidecar.flavor
        self._messages: deque[str] = deque(maxlen=3)  # TensorRT's last warnings and errors
        self.shape: tuple[int, ...] = ()  # of the input
        self._context: trt.IExecutionContext | None = None
        self._runtime_cache = _RuntimeCache(sidecar.engine_sha256, device.compute_capability)
        # The context keeps the engine alive, the engine the runtime
        self._engine: trt.ICudaEngine | None = self._deserialize(content)

    def _deserialize(self, content: bytes) -> trt.ICudaEngine:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = load_flavor(self._flavor)

        with heard(self._messages):
            try:
                runtime: trt.Runtime | None = trt.Runtime(logger_of(self._flavor))
            except TypeError:  # pybind's word for a null pointer, as with a driver too old for this TensorRT
                runtime = None
            engine = runtime.deserialize_cuda_engine(content) if runtime else None
        if engine is None:
            advice = f"Rebuild with: {self._sidecar.rebuild_command}"
            if any("driver version is insufficient" in message for message in self._messages):
                advice = f"Update the NVIDIA driver, which is for CUDA {self._device.driver_version} at most"
            raise self.failed("cannot load this engine", advice)
        return engine

    def start(
        self,
        contract: Mapping[str, TensorContract],
        addresses: Mapping[str, int],
        capture_on: int | None,
    ) -> bool:
        """Make the context, at the largest batch, and bind the memory of all tensors.

        Args:
            contract: of the tensors.
            addresses: of their memory, by name.
            capture_on: the stream from which runs are to be captured; None: they are not.

        Returns:
            Whether they can be captured. Where not, TensorRT-RTX makes graphs of its own.

        Raises:
            BackendError: TensorRT fails.
            ContractError: inputs, outputs or sizes of the engine are not those of the contract.
        """
        assert self._engine is not None
        self._refuse(tensor_problem(self._engine, contract))
        self._refuse(size_problem(self._engine, self._sidecar.spec, self._sidecar.max_batch))
        self._prepare(contract, addresses, capture_on is not None)
        if capture_on is None or self._flavor == "tensorrt" or self._is_capturable(capture_on):
            return capture_on is not None
        _LOG.warning(
            "%s: TensorRT-RTX cannot be captured into a CUDA graph with this engine, so that every frame costs the CPU "
            "some more time. Rebuild with: %s",
            self._path,
            self._sidecar.rebuild_command,
        )
        self._context = None  # and its memory, before the next takes as much
        self._prepare(contract, addresses, False)
        return False

    def _is_capturable(self, stream: int) -> bool:
        context: Any = self._open_context()
        return bool(context.is_stream_capturable(stream))

    def _prepare(self, contract: Mapping[str, TensorContract], addresses: Mapping[str, int], capture: bool) -> None:
        with heard(self._messages):
            self._context = self._create_context(capture)
            self.shape = ()
            self.set_shape((self._sidecar.max_batch, *contract[INPUT_NAME].item_shape))
            self._refuse(output_problem(self._context, contract, self._sidecar.max_batch))
            for name, address in addresses.items():
                if not self._context.set_tensor_address(name, address):
                    raise self.failed(f"does not take the buffer of {name}")
        self._messages.clear()  # what it said so far is no reason for what may fail later

    def _create_context(self, capture: bool) -> trt.IExecutionContext:
        engine = self._engine
        assert engine is not None
        # The run-time options come in a config, which TensorRT knows since 10.13 but not on JetPack 6
        options = () if self._flavor == "tensorrt" else (self._runtime_config(engine, capture),)
        context = engine.create_execution_context(*options)
        if context is None:
            raise self.failed("cannot prepare this engine to run", "Is enough GPU memory free?")
        return context

    def _runtime_config(self, engine: Any, capture: bool) -> Any:
        """Options of TensorRT-RTX, which compiles kernels for a shape while general ones run in their place.

        A graph would hold the general ones for ever, so it has to wait for the others; where sizes come and go that
        wait is too long, and TensorRT-RTX makes graphs of only the network by itself when the others are there.
        """
        library, config = load_flavor("rtx"), engine.create_runtime_config()
        if capture:
            eager = library.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        else:
            config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._runtime_cache.join(config)
        return config

    def _refuse(self, problem: str) -> None:
        if problem:
            raise ContractError(
                f"{self._path} {problem}, as its sidecar says. Rebuild with: {self._sidecar.rebuild_command}"
            )

    def failed(self, what: str, advice: str = "") -> BackendError:
        """The error for what TensorRT did not do, with what it said about it."""
        reason = "; ".join(self._messages) or "no reason given"
        library = f"{LIBRARY_OF[self._flavor]} {self._sidecar.version}"
        return BackendError(f"{self._path}: {library} {what} ({reason}). {advice}".strip())

    def set_shape(self, shape: tuple[int, ...], before_change: Callable[[], None] = lambda: None) -> None:
        """Set the input's shape; ``before_change`` is called before the context is touched, which is not always.

        Raises:
            BackendError: TensorRT does not take it.
        """
        if shape == self.shape:  # setting a shape makes TensorRT infer all others again
            return
        before_change()
        self.shape = ()
        with heard(self._messages):
            if not self._open_context().set_input_shape(INPUT_NAME, shape):
                raise self.failed(f"does not take an input of {list(shape)}")
        self.shape = shape

    def queue(self, stream: int) -> None:
        """Queue the network."""
        with heard(self._messages):
            if not self._open_context().execute_async_v3(stream):
                raise self.failed("cannot run this engine")

    def _open_context(self) -> trt.IExecutionContext:
        if self._context is None:
            raise BackendError(f"{self._path} is closed and cannot run any more. Load it again")
        return self._context

    def keep_kernels(self) -> None:
        """Keep on disk what TensorRT-RTX compiled so far, for the next start."""
        self._runtime_cache.save()

    def close(self) -> None:
        """Destroy context, engine and runtime. No work of theirs may be queued any more."""
        if self._context is not None:
            self.keep_kernels()
        self._context = None
        self._runtime_cache.leave()
        self._engine = None


class _RuntimeCache:
    """The kernels that TensorRT-RTX compiles when an engine is started, in the folder for such things.

    It belongs to one engine and one kind of GPU. TensorRT-RTX takes none of another version of itself, another GPU or a
    newer driver.
    """

    def __init__(self, engine_sha256: str, compute_capability: str) -> None:
        folder = cache_folder()
        name = f"rtx-{engine_sha256[:16]}-{compute_capability}.bin"
        self._path = folder / "kernels" / name if folder else None
        self._cache: Any = None
        self._config: Any = None  # has to live as long as the contexts that were made with it
        self._kept = ""  # digest of what is on disk

    def join(self, config: Any) -> None:
        """Have the contexts of ``config`` read and fill the cache."""
        if self._path is None:
            return
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            stored = read_kept(self._path)
            if stored is not None and self._cache.deserialize(stored):
                self._kept = hashlib.sha256(stored).hexdigest()
        config.set_runtime_cache(self._cache)
        self._config = config

    def save(self) -> None:
        """Write it where it has more than what was read."""
        if self._cache is None or self._path is None:
            return
        serialized = self._cache.serialize()
        if serialized is None:
            return
        content = bytes(serialized)
        digest = hashlib.sha256(content).hexdigest()
        if digest != self._kept:
            keep(self._path, content)
            self._kept = digest

    def leave(self) -> None:
        self._config = self._cache = None
