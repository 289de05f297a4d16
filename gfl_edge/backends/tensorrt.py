"""Running an engine on the GPU: TensorRT and TensorRT-RTX."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.backends.base import Performance
from gfl_edge.backends.checks import check_batch, check_shape
from gfl_edge.backends.execution import Execution
from gfl_edge.backends.gpu_slots import Slot, on_host
from gfl_edge.backends.gpu_stages import GpuFrames, GpuNms
from gfl_edge.backends.nms import NmsChoice, NmsPlace, place_on_gpu
from gfl_edge.cuda import CudaLibrary, open_device
from gfl_edge.cuda.captures import after_capture
from gfl_edge.cuda.events import SENT, START
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import BGR, NV12, Kernels, nms_params, resizes
from gfl_edge.engine.contract import DTYPE_OF, engine_contract
from gfl_edge.engine.flavor import LIBRARY_OF, Flavor, load_flavor
from gfl_edge.engine.plugin import load_plugin
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame, Placement, checked_size, place_frame, resize_into
from gfl_edge.spec import INPUT_NAME

_LOG = logging.getLogger(__name__)

IN_FLIGHT = 2  # for throughput: one is in the network, the next is copied to the GPU


class TensorRTBackend:
    """An engine on the GPU, for both flavors of TensorRT.

    Implements :class:`gfl_edge.backends.base.OverlappingFrameBackend`. Memory is allocated once, for the largest batch;
    that of the frames grows with them. The arrays that are returned are views on it: the next call overwrites them, and
    they stay readable after :meth:`close`.

    After an engine without NMS the project's kernels do what is left to do, on the engine's stream, so that the
    outputs are detections. Where the kernels cannot be used, a warning says why, and the outputs are the engine's own.

    Attributes:
        nms_place: where NMS runs.
        in_flight: how many runs may be under way.
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
        performance: "throughput" copies the next frames to the GPU while it works on those before.

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
        performance: Performance = "latency",
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
        self._pinned: dict[str, NDArray[Any]] = {}  # flat: the input, where it was resized on the host
        self.in_flight = IN_FLIGHT if performance == "throughput" else 1
        self._slots: list[Slot] = []
        self._free: SimpleQueue[Slot] = SimpleQueue()
        self._queueing = threading.Lock()  # of the stream, and of what is set before
        self._kernels: Kernels | None = None
        self._no_kernels = self._told_of_resizing = False
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
        self._stream = self._sending = self._device.create_stream()
        self._resources.callback(self._device.destroy_stream, self._stream)
        if self.in_flight > 1:
            self._sending = self._device.create_stream()
            self._resources.callback(self._device.destroy_stream, self._sending)
        self.stage_ms: dict[str, float] = {}
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
        if self._open_kernels("NMS and resizing run") is None:
            self.nms_place = "host"

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
            if name == INPUT_NAME:
                self._pinned[name] = self._device.pinned_empty((count,), dtype)
            self._addresses[name] = self._device.malloc(count * dtype.itemsize)
            self._resources.callback(self._device.free, self._addresses[name])

        compiles_late = self._flavor == "rtx" and self.spec.short_long is not None  # see Execution._runtime_config
        wanted = cuda_graphs and self._device.captures and not compiles_late
        self._execution = Execution(self._path, content, self._sidecar, self._device)
        self._resources.callback(self._execution.close)
        captured = self._execution.start(self._contract, self._addresses, self._stream if wanted else None)
        for _ in range(self.in_flight):
            self._make_slot(captured)
        self._resources.callback(self._device.synchronize, self._stream)  # what a failed run may have left there
        self._resources.callback(self._device.synchronize, self._sending)

    def _make_slot(self, captured: bool) -> None:
        """Make the place of a run."""
        nms, pinned = None, {}
        if self.nms_place == "kernels":
            assert self._kernels is not None
            nms = GpuNms(self._device, self._kernels, self.spec, self._sidecar.max_batch)
        else:  # the engine's outputs are copied to the host
            for name, tensor in self._contract.items():
                if name != INPUT_NAME:
                    shape = (self._sidecar.max_batch * math.prod(tensor.item_shape),)
                    pinned[name] = self._device.pinned_empty(shape, DTYPE_OF[tensor.dtype])
        slot = Slot(self._device, self._stream, self._sending, captured, nms, pinned)
        self._late_resources.callback(slot.close)
        self._resources.callback(slot.graph.clear)
        self._slots.append(slot)
        self._free.put(slot)

    def _check_open(self) -> None:
        if not self._release.alive:
            raise BackendError(f"{self._path} is closed and cannot run any more. Load it again")

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        check_batch(images, self.spec, self.max_batch)
        return _over(self._begin(images.shape, partial(self._queue_images, images)))

    def run_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[Outputs, list[Placement]]:
        """See :meth:`gfl_edge.backends.base.FrameBackend.run_frames`."""
        begun, placements = self.begin_frames(frames, input_hw)
        return _over(begun), placements

    def begin_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[_BegunSlot, list[Placement]]:
        """See :meth:`gfl_edge.backends.base.OverlappingFrameBackend.begin_frames`."""
        shape = (len(frames), *input_hw, 3)
        self._check_open()
        check_shape(shape, self.spec, self.max_batch)
        rule, short_long = self.spec.resize, self.spec.short_long
        placements = [place_frame(checked_size(frame), input_hw, rule, short_long) for frame in frames]
        return self._begin(shape, partial(self._queue_frames, frames, placements)), placements

    def _begin(self, shape: tuple[int, ...], queue_input: Callable[[Slot], None]) -> _BegunSlot:
        """Begin a run on what ``queue_input`` brings into the network's input of that shape."""
        self._check_open()
        slot = self._free.get()
        try:
            with self._queueing, self._device.active():
                self._check_open()
                self._execution.set_shape(shape, self._settle)
                queue_input(slot)
                slot.run(partial(self._queue, slot))
        except BaseException:
            self._free.put(slot)
            raise
        return _BegunSlot(self, slot, self._output_shapes(shape))

    def _settle(self) -> None:
        """Wait for what is queued, and forget the graphs, since what they hold is about to change."""
        self._device.synchronize(self._stream)
        for slot in self._slots:
            slot.graph.clear()

    def _queue_images(self, images: NDArray[np.uint8], slot: Slot) -> None:
        self._send(slot, images.shape, lambda target: np.copyto(target, images))

    def _queue_frames(self, frames: Sequence[AnyFrame], placements: Sequence[Placement], slot: Slot) -> None:
        shape = self._execution.shape
        stage = self._open_frames(slot)
        if stage is None:
            self._send(slot, shape, partial(self._resize_on_host, frames))
            return
        stage.take(frames)
        formats = [NV12 if isinstance(frame, Nv12Frame) else BGR for frame in frames]
        slot.mark(START)
        target, input_hw = self._addresses[INPUT_NAME], (shape[1], shape[2])
        stage.queue(placements, formats, input_hw, target, self._stream, slot.mark, slot.sending, slot.join)
        slot.sent = (SENT, "resize")

    def _resize_on_host(self, frames: Sequence[AnyFrame], inputs: NDArray[np.uint8]) -> None:
        for frame, each in zip(frames, inputs, strict=True):
            resize_into(frame, each, self.spec.resize, self.spec.short_long)

    def _send(self, slot: Slot, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], None]) -> None:
        """Bring what ``fill`` writes into the network's input; there is one of it, so that runs do not overlap."""
        if self.in_flight > 1:
            self._device.synchronize(self._stream)
        inputs = on_host(self._pinned[INPUT_NAME], shape)
        fill(inputs)
        slot.mark(START)
        self._device.copy_to_device(self._addresses[INPUT_NAME], inputs, slot.sending)
        slot.mark(SENT)
        slot.join()
        slot.sent = (SENT,)

    def _open_frames(self, slot: Slot) -> GpuFrames | None:
        """What resizes frames, made at the first call; None where the kernels cannot be used, or lack the rule."""
        if not resizes(self.spec):
            if not self._told_of_resizing:
                self._told_of_resizing = True
                _LOG.info("%s: resizing (%s) runs on the host: the kernels are bilinear", self._path, self.spec.resize)
            return None
        if slot.frames is None and (kernels := self._open_kernels("resizing runs")):
            wait = partial(self._device.synchronize, self._stream)  # for what a failed run may have left there
            slot.frames = GpuFrames(self._device, kernels, self.spec, wait)
        return slot.frames

    def time_stages(self) -> None:
        """Time the stages of every run from now on, which costs the GPU some microseconds each."""
        self._check_open()
        with self._queueing, self._device.active():
            self._device.synchronize(self._stream)
            for slot in self._slots:
                slot.measure()

    def _queue(self, slot: Slot) -> None:
        """Queue everything from the network to the download."""
        self._execution.queue(self._stream)
        slot.mark("network")
        batch, height, width, _ = self._execution.shape
        if slot.nms is not None:
            slot.nms.queue(batch, (height, width), self._addresses, self._stream, slot.mark)
            return
        for name, shape in self._output_shapes(self._execution.shape).items():
            self._device.copy_to_host(on_host(slot.pinned[name], shape), self._addresses[name], self._stream)
        slot.mark("download")

    def _output_shapes(self, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Of the engine's outputs, by name, for an input of that shape."""
        batch, height, width, _ = input_shape
        contract = engine_contract(self.spec, (height, width))
        return {name: (batch, *tensor.item_shape) for name, tensor in contract.items() if name != INPUT_NAME}

    def _finish(self, slot: Slot) -> None:
        """Wait for the end of a run."""
        self._check_open()
        with self._device.active():
            slot.wait()
            if not self._has_run:  # everything is compiled now
                self._has_run = True
                self._execution.keep_kernels()
            self.stage_ms = slot.stage_ms()

    def _give_back(self, slot: Slot, is_over: bool) -> None:
        """Let another run have the place of one, after its end."""
        if not is_over and self._release.alive:
            try:
                with self._device.active():
                    slot.wait()
            except BackendError as error:
                _LOG.debug("a run of %s failed: %s", self._path, error)
        self._free.put(slot)

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


class _BegunSlot:
    """Implements :class:`gfl_edge.backends.base.Begun`."""

    def __init__(self, backend: TensorRTBackend, slot: Slot, shapes: dict[str, tuple[int, ...]]) -> None:
        self._backend, self._slot, self._shapes = backend, slot, shapes
        self._is_over = self._is_released = False

    def outputs(self) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Begun.outputs`."""
        if not self._is_over:
            self._backend._finish(self._slot)
            self._is_over = True
        return self._slot.outputs(self._shapes)

    def release(self) -> None:
        """See :meth:`gfl_edge.backends.base.Begun.release`."""
        if not self._is_released:
            self._is_released = True
            self._backend._give_back(self._slot, self._is_over)


def _over(begun: _BegunSlot) -> Outputs:
    """What a run gives, once it is over; the next may have its place, and overwrites it."""
    try:
        return begun.outputs()
    finally:
        begun.release()


def _release(device: CudaDevice, resources: ExitStack, path: str | Path) -> None:
    def release() -> None:
        try:
            with device.active():
                resources.close()
        except BackendError as error:  # this often runs because of an earlier error, which must not be hidden
            _LOG.warning("closing %s: %s", path, error)

    after_capture(release)
