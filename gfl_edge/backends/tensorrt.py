"""Running an engine on the GPU: TensorRT and TensorRT-RTX."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.backends.checks import check_batch, check_shape
from gfl_edge.backends.execution import Execution
from gfl_edge.backends.gpu_stages import GpuFrames, GpuNms
from gfl_edge.backends.nms import NmsChoice, NmsPlace, place_on_gpu
from gfl_edge.cuda import CudaLibrary, open_device
from gfl_edge.cuda.captures import after_capture
from gfl_edge.cuda.events import START, Mark, StageEvents, unmarked
from gfl_edge.cuda.graphs import RepeatedWork
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import BGR, NV12, Kernels, nms_params
from gfl_edge.engine.contract import DTYPE_OF, engine_contract
from gfl_edge.engine.flavor import LIBRARY_OF, Flavor, load_flavor
from gfl_edge.engine.plugin import load_plugin
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame, Placement, checked_size, place_frame, resize_into
from gfl_edge.spec import INPUT_NAME

_LOG = logging.getLogger(__name__)


class TensorRTBackend:
    """An engine on the GPU, for both flavors of TensorRT. Implements :class:`gfl_edge.backends.base.FrameBackend`.

    Memory is allocated once, for the largest batch; that of the frames grows with them. The arrays that are returned
    are views on it: the next call overwrites them, and they stay readable after :meth:`close`.

    After an engine without NMS the project's kernels do what is left to do, on the engine's stream, so that the
    outputs are detections. Where the kernels cannot be used, a warning says why, and the outputs are the engine's own.

    Attributes:
        nms_place: where NMS runs.
        pci_bus_id: of the GPU, "0000:0B:00.0".
        stage_ms: milliseconds on the GPU of the last run, by stage: upload, resize, network, nms, download, those that
            there are. Empty before :meth:`time_stages`.

    Args:
        engine_path: engine, with its sidecar beside it.
        flavor: which TensorRT loads it; None: the one that built it.
        cuda: which library reaches the GPU, see :func:`gfl_edge.cuda.open_device`.
        nms: where NMS is to run, see :mod:`gfl_edge.backends.nms`; "host" leaves it to the caller.
        cuda_graphs: capture what follows resizing, from the network to the download, and replay it. Where this is not
            done, TensorRT-RTX has graphs of its own of the network.

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
        self._kernels: Kernels | None = None
        self._no_kernels = False
        self._has_run = False
        self._device = open_device(cuda)
        self.pci_bus_id = self._device.pci_bus_id
        self._resources = ExitStack()
        # Not a method: what it refers to would live as long as it does
        self._release = weakref.finalize(self, _release, self._device, self._resources, engine_path)
        # At the end of the process the driver frees everything, while threads of a camera may still run
        self._release.atexit = False
        try:
            self._sidecar.check(engine_path, self._flavor, self._version, self._device.compute_capability)
            self._sidecar.warn_of_device(engine_path, self._device.name)
            with self._device.active():
                self._make_stream()
                if self.nms_place == "kernels":
                    self._open_nms()
                self._load(content, cuda_graphs)
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

    def _make_stream(self) -> None:
        """Make what all work goes through; ``_resources`` gives everything back in reverse order."""
        self._stream = self._device.create_stream()
        self._resources.callback(self._device.destroy_stream, self._stream)
        self.stage_ms: dict[str, float] = {}
        self._stage_events: StageEvents | None = None
        self._mark: Mark = unmarked
        # What is made later, at first use, goes after the context, which waits for the work that is still queued
        self._late_resources = self._resources.enter_context(ExitStack())

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

    def _load(self, content: bytes, cuda_graphs: bool) -> None:
        """Make the memory of all tensors and the execution context, and bind the two."""
        self._resources.callback(self._pinned.clear)
        for name, tensor in self._contract.items():
            count, dtype = self._sidecar.max_batch * math.prod(tensor.item_shape), np.dtype(DTYPE_OF[tensor.dtype])
            if name == INPUT_NAME or self._nms is None:  # it is copied from or to the host
                self._pinned[name] = self._device.pinned_empty((count,), dtype)
            self._addresses[name] = self._device.malloc(count * dtype.itemsize)
            self._resources.callback(self._device.free, self._addresses[name])

        compiles_late = self._flavor == "rtx" and self.spec.short_long is not None  # see Execution._runtime_config
        wanted = cuda_graphs and self._device.captures and not compiles_late
        self._execution = Execution(self._path, content, self._sidecar, self._device)
        self._resources.callback(self._execution.close)
        captured = self._execution.start(self._contract, self._addresses, self._stream if wanted else None)
        self._graph = RepeatedWork(self._device, self._stream, captured)
        self._resources.callback(self._graph.clear)
        self._resources.callback(self._device.synchronize, self._stream)  # what a failed run may have left there

    def _check_open(self) -> None:
        if not self._release.alive:
            raise BackendError(f"{self._path} is closed and cannot run any more. Load it again")

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        self._check_open()
        check_batch(images, self.spec, self.max_batch)
        with self._device.active():
            self._execution.set_shape(images.shape, self._graph.clear)
            np.copyto(self._host(INPUT_NAME, images.shape), images)
            return self._run_images()

    def run_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[Outputs, list[Placement]]:
        """See :meth:`gfl_edge.backends.base.FrameBackend.run_frames`."""
        self._check_open()
        shape = (len(frames), *input_hw, 3)
        check_shape(shape, self.spec, self.max_batch)
        sizes = [checked_size(frame) for frame in frames]
        formats = [NV12 if isinstance(frame, Nv12Frame) else BGR for frame in frames]
        with self._device.active():
            self._execution.set_shape(shape, self._graph.clear)
            stage = self._open_frames()
            if stage is None:  # they are resized on the host
                slots = self._host(INPUT_NAME, shape)
                rule, short_long = self.spec.resize, self.spec.short_long
                placed = [resize_into(frame, slot, rule, short_long) for frame, slot in zip(frames, slots, strict=True)]
                return self._run_images(), placed
            stage.take(frames)
            placements = [place_frame(size, input_hw, self.spec.resize, self.spec.short_long) for size in sizes]
            self._mark(START)
            stage.queue(placements, formats, input_hw, self._addresses[INPUT_NAME], self._stream, self._mark)
            return self._run(("upload", "resize")), placements

    def _open_frames(self) -> GpuFrames | None:
        """What resizes frames, made at the first call; None where the kernels cannot be used."""
        if self._frames is None and (kernels := self._open_kernels("resizing runs")):
            wait = partial(self._device.synchronize, self._stream)  # for what a failed run may have left there
            self._frames = GpuFrames(self._device, kernels, self.spec, wait)
            self._late_resources.callback(self._frames.close)
        return self._frames

    def time_stages(self) -> None:
        """Time the stages of every run from now on, which costs the GPU some microseconds each."""
        self._check_open()
        if self._stage_events is None:
            with self._device.active():
                self._device.synchronize(self._stream)
                self._graph.clear()  # it has no events
            self._stage_events = StageEvents(self._device, self._stream)
            self._late_resources.callback(self._stage_events.close)
            self._mark = self._stage_events.mark

    def _run_images(self) -> Outputs:
        """Run the batch that lies in pinned memory."""
        self._mark(START)
        pinned = self._host(INPUT_NAME, self._execution.shape)
        self._device.copy_to_device(self._addresses[INPUT_NAME], pinned, self._stream)
        self._mark("upload")
        return self._run(("upload",))

    def _run(self, sent: tuple[str, ...]) -> Outputs:
        """Run the batch that is on its way into the input; ``sent`` are the stages so far.

        They are not in the graph, which so holds for frames of every size.
        """
        self._graph.run(self._queue)
        self._device.synchronize(self._stream)
        if not self._has_run:  # everything is compiled now
            self._has_run = True
            self._execution.keep_kernels()
        if self._stage_events is not None:
            self.stage_ms = self._stage_events.read((*sent, "network", *(("nms",) if self._nms else ()), "download"))
        if self._nms is not None:
            return self._nms.outputs(self._execution.shape[0])
        return {name: self._host(name, shape) for name, shape in self._output_shapes().items()}

    def _queue(self) -> None:
        """Queue everything from the network to the download."""
        self._execution.queue(self._stream)
        self._mark("network")
        if self._nms is not None:
            batch, height, width, _ = self._execution.shape
            self._nms.queue(batch, (height, width), self._addresses, self._stream, self._mark)
            return
        for name, shape in self._output_shapes().items():
            self._device.copy_to_host(self._host(name, shape), self._addresses[name], self._stream)
        self._mark("download")

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the engine's outputs, by name, at the size that is set."""
        batch, height, width, _ = self._execution.shape
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
        """See :meth:`gfl_edge.backends.base.Backend.close`; it also happens when nothing refers to this any more."""
        self._release()


def _release(device: CudaDevice, resources: ExitStack, path: str | Path) -> None:
    def release() -> None:
        try:
            with device.active():
                resources.close()
        except BackendError as error:  # this often runs because of an earlier error, which must not be hidden
            _LOG.warning("closing %s: %s", path, error)

    after_capture(release)
