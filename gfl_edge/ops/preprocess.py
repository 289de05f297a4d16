"""From a camera frame to the network's input, and boxes back again. Shared by training, calibration and run time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.errors import FrameError
from gfl_edge.spec import MIN_INPUT_SIDE, SIZE_STEP, STRETCHES, ModelSpec, ResizeRule

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]

PADDING_BGR = (104, 116, 124)  # the ImageNet mean, to whole gray levels
MIN_SIDE = 2  # pixels; a frame that is one pixel wide or high cannot show an object
MAX_LETTERBOX_SIDE = 32766  # pixels, of a frame; OpenCV's maps hold 16 bits


@dataclass(frozen=True)
class Placement:
    """Where a frame lies inside the network's input: ``input = frame * scale_xy + offset_xy``, in pixels."""

    frame_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]

    def to_frame(self, boxes: Boxes) -> Boxes:
        """Map boxes ``[n, 4]`` xyxy from input pixels to frame pixels, clipped to the frame."""
        height, width = self.frame_hw
        offset = np.array(self.offset_xy * 2, np.float32)
        scale = np.array(self.scale_xy * 2, np.float32)
        limit = np.array((width, height) * 2, np.float32)
        return np.asarray(np.clip((boxes - offset) / scale, np.float32(0), limit), np.float32)

    def sigmas_to_frame(self, sigmas: Boxes) -> Boxes:
        """Map standard deviations ``[n, 4]`` of left, top, right and bottom from input pixels to frame pixels."""
        return np.asarray(sigmas / np.array(self.scale_xy * 2, np.float32), np.float32)


@dataclass(frozen=True, eq=False)
class Nv12Frame:
    """A frame as cameras and video decoders give it, at half the bytes of BGR: BT.601, limited range.

    Attributes:
        planes: uint8 ``[h * 3 / 2, w]``, the Y plane over the rows of interleaved U and V; h and w are even.

    Raises:
        FrameError: planes of another type or shape.
    """

    planes: Image

    def __post_init__(self) -> None:
        if not isinstance(self.planes, np.ndarray) or self.planes.dtype != np.uint8 or self.planes.ndim != 2:
            found = getattr(self.planes, "dtype", type(self.planes).__name__), list(np.shape(self.planes))
            raise FrameError("planes are {} {}, expected uint8 [h * 3 / 2, w] of NV12".format(*found))
        rows, width = self.planes.shape
        if rows % 3 or width % 2 or min(rows, width) < MIN_SIDE:
            raise FrameError(
                f"planes are uint8 [{rows}, {width}], expected [h * 3 / 2, w] with even h and w. "
                "Cut padding off the rows first: planes[:, :w]"
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        rows, width = self.planes.shape
        return rows // 3 * 2, width

    def to_bgr(self) -> Image:
        """The frame as uint8 ``[h, w, 3]`` BGR."""
        cv2 = optional.load("cv2")
        return np.asarray(cv2.cvtColor(self.planes, cv2.COLOR_YUV2BGR_NV12))


AnyFrame = Image | Nv12Frame


def as_bgr(frame: AnyFrame) -> Image:
    """A frame as uint8 ``[h, w, 3]`` BGR; itself if it is."""
    return frame.to_bgr() if isinstance(frame, Nv12Frame) else frame


def checked_size(frame: AnyFrame) -> tuple[int, int]:
    """Height and width of a frame in pixels; raises FrameError if it is neither NV12 nor an 8-bit BGR image."""
    if isinstance(frame, Nv12Frame):
        return frame.size_hw
    height, width = check_frame(frame).shape[:2]
    return height, width


def check_frame(frame: Any) -> Image:
    """Return ``frame`` if it is an 8-bit BGR image, uint8 ``[H, W, 3]``.

    Raises:
        FrameError: says what was found and how to convert it.
    """
    if not isinstance(frame, np.ndarray):
        advice = ". cv2.imread gives None of a file that it cannot read: is its path right?" if frame is None else ""
        raise FrameError(f"frame is a {type(frame).__name__}: expected a NumPy array, uint8 [H, W, 3] BGR{advice}")
    found = f"frame is {frame.dtype} {list(frame.shape)}, expected uint8 [H, W, 3] BGR"
    if frame.dtype == np.uint16:
        raise FrameError(f"{found}: 16-bit image; convert with (frame // 257).astype(numpy.uint8)")
    if frame.dtype != np.uint8:
        raise FrameError(f"{found}: convert to 8 bits, 0..255, first")
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1):
        raise FrameError(f"{found}: gray image; convert with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)")
    if frame.ndim == 3 and frame.shape[2] == 4:
        raise FrameError(f"{found}: four channels; convert with cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise FrameError(f"{found}: pass one frame at a time, channels last")
    if min(frame.shape[:2]) < MIN_SIDE:
        raise FrameError(f"{found}: at least {MIN_SIDE} pixels high and wide")
    return frame


def input_size(frame_hw: tuple[int, int], spec: ModelSpec) -> tuple[int, int]:
    """The input (height, width) that a frame of ``frame_hw`` pixels is run at: the model's own where it is fixed."""
    return spec.input_hw if spec.short_long is None else fitted_input(frame_hw, spec.short_long)


def single_input(frame: Image, spec: ModelSpec) -> Image:
    """A frame of uint8 ``[h, w, 3]`` BGR as the input of a batch of one, uint8 ``[1, H, W, 3]``.

    Raises:
        FrameError: not an 8-bit BGR image.
    """
    height, width = check_frame(frame).shape[:2]
    batch = np.empty((1, *input_size((height, width), spec), 3), np.uint8)
    resize_into(frame, batch[0], spec.resize, spec.short_long)
    return batch


def fitted_input(frame_hw: tuple[int, int], short_long: tuple[int, int]) -> tuple[int, int]:
    """The input (height, width) for a frame of ``frame_hw`` pixels where the size is dynamic.

    The frame is brought to ``short_long`` with its aspect ratio, as in the paper, and the input is the next multiple of
    32 in both directions.
    """
    placement = place(frame_hw, frame_hw, "fit", limit_hw(frame_hw, short_long))
    sides = (side * scale for side, scale in zip(frame_hw, placement.scale_xy[::-1], strict=True))
    height, width = (max(MIN_INPUT_SIDE, -(-round(side) // SIZE_STEP) * SIZE_STEP) for side in sides)
    return height, width


def limit_hw(frame_hw: tuple[int, int], short_long: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that a frame may have at most: the long side along its own."""
    short, long = short_long
    return (short, long) if frame_hw[0] <= frame_hw[1] else (long, short)


def place(
    frame_hw: tuple[int, int], input_hw: tuple[int, int], rule: ResizeRule, limit_hw: tuple[int, int] | None = None
) -> Placement:
    """Where a frame of ``frame_hw`` pixels goes in an input of ``input_hw`` pixels.

    ``stretch`` and ``stretch-cubic`` fill the input; ``letterbox`` keeps the aspect ratio and centers the frame;
    ``fit`` keeps it up to whole pixels, within ``limit_hw`` where that is given, and puts the frame into the upper left
    corner.
    """
    (height, width), (input_height, input_width) = frame_hw, input_hw
    if rule in STRETCHES:
        return Placement(frame_hw, (input_width / width, input_height / height), (0.0, 0.0))
    if rule == "fit":
        limit_height, limit_width = limit_hw or input_hw
        ratio = min(limit_width / width, limit_height / height)
        new_width, new_height = (max(1, int(side * ratio + 0.5)) for side in (width, height))
        return Placement(frame_hw, (new_width / width, new_height / height), (0.0, 0.0))
    ratio = min(input_width / width, input_height / height)
    offset = ((input_width - width * ratio) / 2, (input_height - height * ratio) / 2)
    return Placement(frame_hw, (ratio, ratio), offset)


def place_frame(
    frame_hw: tuple[int, int], input_hw: tuple[int, int], rule: ResizeRule, short_long: tuple[int, int] | None = None
) -> Placement:
    """Where :func:`resize_into` puts a frame; see there for the arguments."""
    return place(frame_hw, input_hw, rule, limit_hw(frame_hw, short_long) if short_long else None)


def resize_into(frame: AnyFrame, out: Image, rule: ResizeRule, short_long: tuple[int, int] | None = None) -> Placement:
    """Resize ``frame`` (BGR or NV12) into ``out`` (uint8 ``[H, W, 3]``, contiguous, overwritten).

    Bilinearly, except by ``stretch-cubic``, as PicoDet is evaluated (PaddleDetection, configs/picodet: interp 2).

    A letterboxed frame lies on black at a sub-pixel offset, pixel index times scale plus offset, as NanoDet was trained
    (RangiLyu/nanodet, nanodet/data/transform/warp.py: get_resize_matrix and cv2.warpPerspective). A fitted frame lies
    on the mean color, which normalization takes to zero (mmdetection pads with zeros after normalizing).

    Args:
        frame: uint8 ``[h, w, 3]`` BGR, or NV12.
        out: where it goes.
        rule: how.
        short_long: with "fit", the pixels that its sides may have at most; None: as many as fit into ``out``.

    Raises:
        FrameError: not an 8-bit BGR image.
    """
    frame = frame.to_bgr() if isinstance(frame, Nv12Frame) else check_frame(frame)
    cv2 = optional.load("cv2")
    height, width = out.shape[:2]
    frame_hw = (frame.shape[0], frame.shape[1])
    placement = place_frame(frame_hw, (height, width), rule, short_long)
    (scale_x, scale_y), (left, top) = placement.scale_xy, placement.offset_xy
    if rule in STRETCHES:
        cv2.resize(frame, (width, height), dst=out, interpolation=interpolation(rule))
    elif rule == "fit":
        new_height, new_width = round(frame_hw[0] * scale_y), round(frame_hw[1] * scale_x)
        out[...] = PADDING_BGR
        out[:new_height, :new_width] = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    else:
        if max(frame_hw) > MAX_LETTERBOX_SIDE:
            found = f"frame is {frame_hw[1]} x {frame_hw[0]} pixels, and a letterbox takes {MAX_LETTERBOX_SIDE} a side"
            raise FrameError(f"{found} at most. Cut it into parts, or make it smaller first")
        step_x, step_y = 1 / scale_x, 1 / scale_y
        maps = letterbox_maps(frame_hw, (height, width), (step_x, step_y), (-left * step_x, -top * step_y))
        cv2.remap(frame, *maps, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_CONSTANT)
    return placement


def interpolation(rule: ResizeRule) -> int:
    """OpenCV's constant for what ``rule`` computes between pixels."""
    cv2 = optional.load("cv2")
    return int(cv2.INTER_CUBIC if rule == "stretch-cubic" else cv2.INTER_LINEAR)


@lru_cache(maxsize=4)
def letterbox_maps(
    frame_hw: tuple[int, int], out_hw: tuple[int, int], steps_xy: tuple[float, float], starts_xy: tuple[float, float]
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """The pixel of a frame for each output pixel, index times step plus start, in 32nds of a pixel, for cv2.remap.

    Every version of OpenCV, the CUDA kernels and those with whom the networks were trained so read the same places:
    cv2.warpAffine rounds like this up to OpenCV 4, and no longer in 5.

    Returns:
        Whole pixels int16 ``[H, W, 2]`` (x, y), and fractions uint16 ``[H, W]``, 32 times that of y plus that of x.
    """
    (height, width), (out_height, out_width) = frame_hw, out_hw
    x = _places_32nds(out_width, steps_xy[0], starts_xy[0], width)
    y = _places_32nds(out_height, steps_xy[1], starts_xy[1], height)
    whole = np.empty((out_height, out_width, 2), np.int16)  # written once: images of a folder differ in size
    whole[..., 0], whole[..., 1] = x >> 5, (y >> 5)[:, None]
    return whole, np.add.outer(((y & 31) * 32).astype(np.uint16), (x & 31).astype(np.uint16))


def _places_32nds(count: int, step: float, start: float, size: int) -> NDArray[np.int64]:
    """Of ``count`` pixels along one axis, by way of 1024ths; far outside is as good as just outside."""
    fine = np.rint(np.arange(count) * step * 1024) + np.rint(start * 1024)
    return np.asarray((np.clip(fine, -2048, 1024 * (size + 2)).astype(np.int64) + 16) >> 5)
