"""The stages around an engine on its GPU: frames in, detections out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gfl_edge.cuda.events import SENT, Mark, unmarked
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import NV12, Kernels, NmsInputs, NmsOutputs, Workspace, nms_params, resize_params
from gfl_edge.cuda.memory import MirroredMemory, offsets
from gfl_edge.ops.postprocess import Outputs
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame, Placement
from gfl_edge.spec import SIGMAS, ModelSpec

_ALIGNMENT = 256  # bytes, of every frame and every output


class GpuNms:
    """Decode and NMS after an engine without; its memory is enough for the largest batch of the largest size.

    Use it inside ``with device.active()``.

    Raises:
        BackendError: the kernels have no room for such a model, or the GPU has none for their memory.
    """

    def __init__(self, device: CudaDevice, kernels: Kernels, spec: ModelSpec, max_batch: int) -> None:
        self._device, self._kernels, self._spec = device, kernels, spec
        nbytes = Workspace.of(nms_params(spec, max_batch, spec.size_range[1])).nbytes
        self._detections = MirroredMemory(device, self._offsets(max_batch)[-1])
        try:
            self._workspace = device.malloc(nbytes)
        except BaseException:
            self._detections.close()
            raise

    def queue(
        self, batch: int, input_hw: tuple[int, int], tensors: Mapping[str, int], stream: int, mark: Mark = unmarked
    ) -> None:
        """Queue everything from the engine's outputs, given by their addresses, to the detections on the host.

        ``mark`` is called with "nms" and "download" where these end.
        """
        *starts, end = self._offsets(batch)
        outputs = NmsOutputs(*(self._detections.address + start for start in starts))
        if self._spec.nms == "raw":
            inputs = NmsInputs(tensors["cls_logits"], reg_logits=tensors["reg_logits"])
        else:
            sigmas = tensors[SIGMAS] if self._spec.edge_sigma else 0
            inputs = NmsInputs(tensors["scores"], boxes=tensors["boxes"], sigmas=sigmas)
        params = nms_params(self._spec, batch, input_hw)
        self._kernels.nms(params, inputs, outputs, self._workspace, stream)
        mark("nms")
        self._detections.download(end, stream)
        mark("download")

    def outputs(self, batch: int) -> Outputs:
        """Where the detections are once the stream is done, by the names that a model with NMS gives them."""
        most = self._spec.max_detections
        shapes = ((batch, 1), (batch, most, 4), (batch, most), (batch, most), (batch, most, 4))
        dtypes = (np.int32, np.float32, np.float32, np.int32, np.float32)
        parts = zip(self._spec.detection_names, shapes, dtypes, self._offsets(batch), strict=False)
        return {name: self._detections.host(shape, dtype, offset) for name, shape, dtype, offset in parts}

    def _offsets(self, batch: int) -> list[int]:
        """Of the outputs one after another, so that one copy takes them all; and, last, their end."""
        rows = batch * self._spec.max_detections
        sigmas = [16 * rows] if self._spec.edge_sigma else []
        return offsets([4 * batch, 16 * rows, 4 * rows, 4 * rows, *sigmas], _ALIGNMENT)

    def close(self) -> None:
        """Free the memory."""
        self._device.free(self._workspace)
        self._detections.close()


class GpuFrames:
    """Frames on their way to the GPU and, there, into the network's input. Use it inside ``with device.active()``.

    Args:
        device: the GPU.
        kernels: that resize.
        spec: the model's description.
        before_moving: called before memory goes, in which the frames were so far, for a larger one.
    """

    def __init__(
        self, device: CudaDevice, kernels: Kernels, spec: ModelSpec, before_moving: Callable[[], None]
    ) -> None:
        self._device, self._kernels, self._spec = device, kernels, spec
        self._before_moving = before_moving
        self._memory: MirroredMemory | None = None

    def take(self, frames: Sequence[AnyFrame]) -> None:
        """Copy frames into pinned memory, which grows when they are larger than all before.

        Raises:
            BackendError: no room for them.
        """
        arrays = [frame.planes if isinstance(frame, Nv12Frame) else frame for frame in frames]
        *starts, end = offsets([array.nbytes for array in arrays], _ALIGNMENT)
        if self._memory is None or self._memory.nbytes < end:
            self._before_moving()
            self.close()
            self._memory = MirroredMemory(self._device, end)
        for array, start in zip(arrays, starts, strict=True):
            np.copyto(self._memory.host(array.shape, np.uint8, start), array)

    def queue(
        self,
        placements: Sequence[Placement],
        formats: Sequence[int],
        input_hw: tuple[int, int],
        target: int,
        stream: int,
        mark: Mark = unmarked,
        sending: int | None = None,
        join: Callable[[], None] = lambda: None,
    ) -> None:
        """Queue the copy of the frames that were taken, and their resize into the input at address ``target``.

        Args:
            placements: where each frame lies in the input.
            formats: the kernels' numbers of the frames' pixel formats.
            input_hw: of the input, in pixels.
            target: its address.
            stream: where the resize is queued.
            mark: is called with "upload" and "resize" where these end.
            sending: where the copy is queued; None: there, too.
            join: lets ``stream`` wait for what is on ``sending``.
        """
        assert self._memory is not None
        pixels = [math.prod(placement.frame_hw) for placement in placements]
        nbytes = [3 * count // 2 if kind == NV12 else 3 * count for count, kind in zip(pixels, formats, strict=True)]
        *starts, end = offsets(nbytes, _ALIGNMENT)
        self._memory.upload(end, stream if sending is None else sending)
        mark(SENT)
        join()
        slot_bytes = 3 * input_hw[0] * input_hw[1]
        for index, (placement, kind, start) in enumerate(zip(placements, formats, starts, strict=True)):
            params = resize_params(self._spec, placement, input_hw, kind)
            self._kernels.resize(params, self._memory.address + start, target + index * slot_bytes, stream)
        mark("resize")

    def close(self) -> None:
        """Free the memory; frames may be taken again."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None
