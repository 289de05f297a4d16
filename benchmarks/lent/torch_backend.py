"""A PyTorch network with this project's kernels before and after it, as :class:`gfl_edge.backends.tensorrt` has them.

PyTorch uses the GPU's primary context, as gfl_edge does, so that addresses and streams of the one are good for the
other. All work goes through a stream of PyTorch's, and from the network to the download it is one CUDA graph, which
PyTorch captures: its allocator has to know, and our kernels are launched on the same stream meanwhile.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.lent.torch_network import RawNetwork
from gfl_edge.backends.checks import check_batch, check_shape
from gfl_edge.backends.gpu_stages import GpuFrames, GpuNms
from gfl_edge.backends.nms import NmsPlace
from gfl_edge.cuda.captures import capturing
from gfl_edge.cuda.events import START, StageEvents
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import BGR, Kernels
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame, Placement, checked_size, place_frame
from gfl_edge.spec import ModelSpec

SETTLING_RUNS = 4  # before a graph is captured: libraries choose algorithms and take memory meanwhile
IMAGES, CLASSES, EDGES = "images", "cls_logits", "reg_logits"


class Placed(Protocol):
    """A network that reads and writes memory of the GPU.

    Attributes:
        addresses: of the memory of ``images`` and the raw maps.
        stream: on which it is queued.
    """

    addresses: dict[str, int]
    stream: int

    def queue(self) -> None:
        """Queue the network."""
        ...

    def capture(self, queue: Callable[[], None]) -> Callable[[], None] | None:
        """What queues a graph of what ``queue`` does; None where it cannot be captured."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class OnCuda:
    """The network on the GPU itself.

    Args:
        network: there.
        spec: its description.
        own_stream: False: all goes through the default stream, which cannot be captured, for operators that know no
            other.
    """

    def __init__(self, network: RawNetwork, spec: ModelSpec, own_stream: bool) -> None:
        self._network, self._own_stream = network, own_stream
        own: Any = torch.cuda.Stream
        self._stream = own() if own_stream else torch.cuda.default_stream()
        self.stream = int(self._stream.cuda_stream)
        self._tensors = {
            name: torch.zeros(shape, dtype=torch.uint8 if name == IMAGES else network.dtype, device="cuda")
            for name, shape in shapes(spec).items()
        }
        self.addresses = {name: tensor.data_ptr() for name, tensor in self._tensors.items()}
        torch.cuda.synchronize()  # what made weights and tensors ran on another stream

    def queue(self) -> None:
        """See Placed."""
        with torch.cuda.stream(self._stream), torch.no_grad():
            for name, found in zip((CLASSES, EDGES), self._network(self._tensors[IMAGES]), strict=True):
                self._tensors[name].copy_(found)

    def capture(self, queue: Callable[[], None]) -> Callable[[], None] | None:
        """See Placed."""
        if not self._own_stream:
            return None
        gc.collect()  # what is freed meanwhile could void the capture
        graph = torch.cuda.CUDAGraph()
        with capturing(), torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            queue()

        def replay() -> None:
            with torch.cuda.stream(self._stream):
                graph.replay()

        return replay

    def close(self) -> None:
        """See Placed."""
        torch.cuda.synchronize()
        self._tensors.clear()


class OnHost:
    """The network on the CPU, with its inputs and outputs on the GPU: for dry runs. Use it in ``device.active()``."""

    def __init__(self, network: RawNetwork, spec: ModelSpec, device: CudaDevice) -> None:
        self._network, self._device = network, device
        self.stream = device.create_stream()
        dtype = np.float16 if network.dtype == torch.float16 else np.float32
        self._pinned = {
            name: device.pinned_empty(shape, np.uint8 if name == IMAGES else dtype)
            for name, shape in shapes(spec).items()
        }
        self.addresses = {name: device.malloc(array.nbytes) for name, array in self._pinned.items()}

    def queue(self) -> None:
        """See Placed; waits for the GPU."""
        self._device.copy_to_host(self._pinned[IMAGES], self.addresses[IMAGES], self.stream)
        self._device.synchronize(self.stream)
        with torch.no_grad():
            maps = self._network(torch.from_numpy(self._pinned[IMAGES]))
        for name, found in zip((CLASSES, EDGES), maps, strict=True):
            self._pinned[name][...] = found.numpy()
            self._device.copy_to_device(self.addresses[name], self._pinned[name], self.stream)

    def capture(self, queue: Callable[[], None]) -> None:
        """See Placed."""

    def close(self) -> None:
        """See Placed."""
        for address in self.addresses.values():
            self._device.free(address)
        self._device.destroy_stream(self.stream)


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Of images and raw maps of a batch of one."""
    anchors = spec.num_anchors
    return {
        IMAGES: (1, *spec.input_hw, 3),
        CLASSES: (1, anchors, spec.num_classes),
        EDGES: (1, anchors, 4 * (spec.reg_max + 1)),
    }


class TorchBackend:
    """Implements :class:`gfl_edge.backends.base.FrameBackend`, for one frame at a time.

    Args:
        network: on the GPU, or on the CPU for a dry run.
        spec: its description, of a fixed size and with raw maps.
        device: the GPU.
        own_stream: see :class:`OnCuda`.

    Attributes:
        stage_ms: milliseconds on the GPU of the last run, by stage.
        graph: whether runs are replays of a graph, "yes", or why not.
    """

    name = "torch"
    max_batch: int | None = 1
    nms_place: NmsPlace = "kernels"

    def __init__(self, network: RawNetwork, spec: ModelSpec, device: CudaDevice, own_stream: bool = True) -> None:
        self.spec, self._device, self.pci_bus_id = spec, device, device.pci_bus_id
        self._resources, self.stage_ms = ExitStack(), dict[str, float]()
        self._runs = 0
        self._replay: Callable[[], None] | None = None
        self.graph = "not yet"
        try:
            with device.active():
                on_gpu = next(network.parameters()).is_cuda
                self._placed: Placed = OnCuda(network, spec, own_stream) if on_gpu else OnHost(network, spec, device)
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        keep, device, stream = self._resources.callback, self._device, self._placed.stream
        keep(self._placed.close)
        kernels = Kernels(device)
        keep(kernels.close)
        self._events = StageEvents(device, stream)
        keep(self._events.close)
        self._nms = GpuNms(device, kernels, self.spec, 1)
        keep(self._nms.close)
        self._frames = GpuFrames(device, kernels, self.spec, partial(device.synchronize, stream))
        keep(self._frames.close)
        self._pinned = device.pinned_empty(shapes(self.spec)[IMAGES], np.uint8)
        keep(device.synchronize, stream)

    def time_stages(self) -> None:
        """They always are."""

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See :meth:`gfl_edge.backends.base.Backend.run`."""
        check_batch(images, self.spec, 1)
        with self._device.active():
            np.copyto(self._pinned, images)
            self._events.mark(START)
            self._device.copy_to_device(self._placed.addresses[IMAGES], self._pinned, self._placed.stream)
            self._events.mark("upload")
            return self._run(("upload",))

    def run_frames(self, frames: Sequence[AnyFrame], input_hw: tuple[int, int]) -> tuple[Outputs, list[Placement]]:
        """See :meth:`gfl_edge.backends.base.FrameBackend.run_frames`; BGR alone."""
        assert not any(isinstance(frame, Nv12Frame) for frame in frames)
        check_shape((len(frames), *input_hw, 3), self.spec, 1)
        placements = [place_frame(checked_size(frame), input_hw, self.spec.resize) for frame in frames]
        with self._device.active():
            self._frames.take(frames)
            self._events.mark(START)
            target, stream = self._placed.addresses[IMAGES], self._placed.stream
            self._frames.queue(placements, [BGR], input_hw, target, stream, self._events.mark)
            return self._run(("upload", "resize")), placements

    def _run(self, sent: tuple[str, ...]) -> Outputs:
        if self._runs == SETTLING_RUNS:
            self._capture()
        (self._replay or self._queue)()
        self._device.synchronize(self._placed.stream)
        self._runs += 1
        self.stage_ms = self._events.read((*sent, "network", "nms", "download"))
        return self._nms.outputs(1)

    def _queue(self) -> None:
        """Queue everything from the network to the download."""
        self._placed.queue()
        self._events.mark("network")
        self._nms.queue(1, self.spec.input_hw, self._placed.addresses, self._placed.stream, self._events.mark)

    def _capture(self) -> None:
        self._device.synchronize(self._placed.stream)
        try:
            self._replay = self._placed.capture(self._queue)
        except Exception as error:  # of PyTorch, which raises many kinds, and ours
            self.graph = f"no: {error}"
        else:
            self.graph = "no: the network does not run on a stream of its own" if self._replay is None else "yes"

    def read(self, name: str) -> NDArray[Any]:
        """A copy of what lies in the memory of the input, or of a raw map, after a run."""
        dtype = np.uint8 if name == IMAGES else np.float16 if self.spec.precision == "fp16" else np.float32
        with self._device.active():
            found = self._device.pinned_empty(shapes(self.spec)[name], dtype)
            self._device.copy_to_host(found, self._placed.addresses[name], self._placed.stream)
            self._device.synchronize(self._placed.stream)
        return found.copy()

    def describe(self) -> dict[str, str]:
        """See :meth:`gfl_edge.backends.base.Backend.describe`."""
        return {
            "library": "PyTorch",
            "version": torch.__version__,
            "device": f"{self._device.name} ({self._device.compute_capability})",
            "driver": f"CUDA {self._device.driver_version}",
            "cuda": self._device.library,
        }

    def close(self) -> None:
        """See :meth:`gfl_edge.backends.base.Backend.close`."""
        self._replay = None
        with self._device.active():
            self._resources.close()
