"""The kernels of plugins/ at run time: their source, their parameters, and the launches that make up one call.

What each of them does, and on how many threads, stands in ``gfl_kernels.cuh`` under "Launch plan".
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gfl_edge.cuda.compiler import compiled, open_compiler
from gfl_edge.cuda.interface import CudaDevice, Launch
from gfl_edge.cuda.memory import offsets
from gfl_edge.cuda.source import CudaSource
from gfl_edge.errors import BackendError
from gfl_edge.ops.preprocess import PADDING_BGR, Placement
from gfl_edge.spec import ModelSpec

MAX_LEVELS = 8  # GFL_MAX_LEVELS
MAX_CANDIDATES = 4096  # GFL_MAX_CANDIDATES
MAX_BINS = 32  # of an edge's distribution
FLOAT32, FLOAT16 = 0, 1  # GflDtype
SCORES, LOGITS = 0, 1  # GflScoreKind
BGR, NV12 = 0, 2  # GflPixelFormat

_PART = 256  # bytes that every part of the workspace is aligned to
# Name that #include has -> path in plugins/
_FILES = {
    "gfl_kernels.h": "include/gfl_kernels.h",
    **{
        f"gfl_{name}.cuh": f"src/gfl_{name}.cuh"
        for name in ("kernels", "common", "candidates", "rank", "boxes", "nms", "sigma", "resize")
    },
}


class NmsParams(ctypes.Structure):
    """``GflNmsParams``; see ``gfl_kernels.h`` for the fields."""

    _fields_ = (
        ("batch", ctypes.c_int32),
        ("num_anchors", ctypes.c_int32),
        ("num_classes", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("score_kind", ctypes.c_int32),
        ("class_agnostic", ctypes.c_int32),
        ("per_level", ctypes.c_int32),
        ("max_candidates", ctypes.c_int32),
        ("max_detections", ctypes.c_int32),
        ("score_threshold", ctypes.c_float),
        ("iou_threshold", ctypes.c_float),
        ("input_height", ctypes.c_int32),
        ("input_width", ctypes.c_int32),
        ("reg_max", ctypes.c_int32),
        ("point_offset", ctypes.c_float),
        ("num_levels", ctypes.c_int32),
        ("strides", ctypes.c_int32 * MAX_LEVELS),
    )


class ResizeParams(ctypes.Structure):
    """``GflResizeParams``; see ``gfl_kernels.h`` for the fields."""

    _fields_ = (
        ("step_x", ctypes.c_double),
        ("step_y", ctypes.c_double),
        ("start_x", ctypes.c_double),
        ("start_y", ctypes.c_double),
        ("format", ctypes.c_int32),
        ("frame_height", ctypes.c_int32),
        ("frame_width", ctypes.c_int32),
        ("pitch", ctypes.c_int32),
        ("uv_pitch", ctypes.c_int32),
        ("out_height", ctypes.c_int32),
        ("out_width", ctypes.c_int32),
        ("content_height", ctypes.c_int32),
        ("content_width", ctypes.c_int32),
        ("black_border", ctypes.c_int32),
        ("padding_bgr", ctypes.c_uint8 * 4),
    )


@dataclass(frozen=True)
class NmsInputs:
    """``GflNmsInputs``: addresses on the device, 0 where there is none. Either ``reg_logits`` or ``boxes`` is given.

    With ``boxes``, ``sigmas`` are given where ``det_sigmas`` is to be filled.
    """

    scores: int
    quality: int = 0
    reg_logits: int = 0
    boxes: int = 0
    sigmas: int = 0


@dataclass(frozen=True)
class NmsOutputs:
    """``GflNmsOutputs``: addresses on the device; ``det_sigmas`` is 0 where nobody asks for them."""

    num_dets: int
    det_boxes: int
    det_scores: int
    det_classes: int
    det_sigmas: int = 0


def _parameters(name: str, params: type[ctypes.Structure], *pointers: str) -> type[ctypes.Structure]:
    """The type of a kernel's parameters: a structure by value, and addresses."""
    fields = (("params", params), *((pointer, ctypes.c_uint64) for pointer in pointers))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


# By kernel, in the order of its parameters
PARAMETERS = {
    "gfl_filter_kernel": _parameters(
        "Filter", NmsParams, "scores", "quality", "narrowed", "segment_counts", "bin_counts", "keys"
    ),
    "gfl_rank_kernel": _parameters(
        "Rank",
        NmsParams,
        *("segment_counts", "bin_counts", "keys", "narrowed", "reg_logits", "boxes"),
        *("num_candidates", "top_boxes", "top_scores", "top_classes"),
    ),
    "gfl_suppress_kernel": _parameters(
        "Suppress",
        NmsParams,
        *("num_candidates", "top_boxes", "top_scores", "top_classes"),
        *("num_dets", "det_boxes", "det_scores", "det_classes"),
    ),
    "gfl_sigma_kernel": _parameters(
        "Sigma",
        NmsParams,
        *("bin_counts", "keys", "reg_logits", "boxes", "sigmas"),
        *("num_dets", "det_boxes", "det_scores", "det_classes", "det_sigmas"),
    ),
    "gfl_resize_kernel": _parameters("Resize", ResizeParams, "frame", "uv", "out"),
}


def kernel_source() -> CudaSource:
    """The kernels' source, from the installed package or from the checkout's plugins/."""
    package = Path(__file__).resolve().parent
    headers = {}
    for name, in_plugins in _FILES.items():
        installed, checkout = package / "source" / name, package.parent.parent / "plugins" / in_plugins
        path = next((path for path in (installed, checkout) if path.is_file()), None)
        if path is None:
            raise BackendError(
                f"the kernels' source is missing: neither {installed} nor {checkout}. Install gfl-edge again"
            )
        headers[name] = path.read_text(encoding="utf-8")
    return CudaSource("gfl_kernels.cu", '#include "gfl_kernels.cuh"\n', headers)


@cache
def _constants() -> Mapping[str, int]:
    """The numbers that the source defines: threads per block and such."""
    headers = kernel_source().headers
    text = headers["gfl_common.cuh"] + headers["gfl_sigma.cuh"]
    defines = re.findall(r"^#define GFL_(\w+) (\d+)\b", text, re.MULTILINE)
    return {name: int(number) for name, number in defines}


def nms_params(spec: ModelSpec, batch: int, input_hw: tuple[int, int]) -> NmsParams:
    """Parameters of the NMS after a model whose spec says "none" or "raw".

    Raises:
        BackendError: the kernels have no room for such a model; says what they have.
    """
    limits = (
        ("strides", len(spec.strides), MAX_LEVELS),
        ("max_candidates", spec.max_candidates, MAX_CANDIDATES),
        ("reg_max", spec.reg_max, MAX_BINS - 1),
    )
    for field, found, most in limits:
        if found > most:
            raise BackendError(f"{spec.name} has {field} {found}, and the NMS kernels take {most} at most")
    return NmsParams(
        batch=batch,
        num_anchors=spec.anchors_at(input_hw),
        num_classes=spec.num_classes,
        dtype=FLOAT16 if spec.nms == "raw" and spec.precision == "fp16" else FLOAT32,
        score_kind=LOGITS if spec.nms == "raw" else SCORES,
        max_candidates=spec.max_candidates,
        max_detections=spec.max_detections,
        score_threshold=spec.score_threshold,
        iou_threshold=spec.iou_threshold,
        input_height=input_hw[0],
        input_width=input_hw[1],
        reg_max=spec.reg_max,
        point_offset=spec.point_offset,
        num_levels=len(spec.strides),
        strides=(ctypes.c_int32 * MAX_LEVELS)(*spec.strides),
    )


def resizes(spec: ModelSpec) -> bool:
    """Whether the kernel resizes as the model needs it: bilinearly."""
    return spec.resize != "stretch-cubic"


def resize_params(
    spec: ModelSpec, placement: Placement, input_hw: tuple[int, int], pixel_format: int = BGR
) -> ResizeParams:
    """Parameters that resize a dense frame into an input as :func:`gfl_edge.ops.preprocess.resize_into` does.

    Args:
        spec: whose resize rule it is.
        placement: of the frame, see :func:`gfl_edge.ops.preprocess.place_frame`.
        input_hw: of the input, in pixels.
        pixel_format: of the frame, ``BGR`` or ``NV12``.

    Raises:
        BackendError: the kernel has no such rule; see :func:`resizes`.
    """
    if not resizes(spec):
        raise BackendError(f"the kernels resize bilinearly, {spec.name} needs {spec.resize}. Resize on the host")
    height, width = placement.frame_hw
    (scale_x, scale_y), (left, top) = placement.scale_xy, placement.offset_xy
    content_hw = input_hw
    if spec.resize == "fit":
        content_hw = (round(height * scale_y), round(width * scale_x))
    step_x, step_y = 1 / scale_x, 1 / scale_y
    start_x = start_y = -0.5  # cv2.resize aligns the images' edges
    if spec.resize == "letterbox":
        start_x, start_y = -left * step_x, -top * step_y  # a letterbox their pixels of index 0
    return ResizeParams(
        format=pixel_format,
        frame_height=height,
        frame_width=width,
        pitch=width if pixel_format == NV12 else 3 * width,
        uv_pitch=width if pixel_format == NV12 else 0,
        out_height=input_hw[0],
        out_width=input_hw[1],
        content_height=content_hw[0],
        content_width=content_hw[1],
        step_x=step_x,
        step_y=step_y,
        start_x=start_x,
        start_y=start_y,
        black_border=int(spec.resize == "letterbox"),
        padding_bgr=(ctypes.c_uint8 * 4)(*PADDING_BGR),
    )


@dataclass(frozen=True)
class NmsSizes:
    """The numbers that the launch plan in ``gfl_kernels.cuh`` has names for."""

    lists: int
    segments: int
    finalists: int

    @classmethod
    def of(cls, params: NmsParams) -> NmsSizes:
        """Those of a call with ``params``."""
        numbers, lists = _constants(), params.num_levels if params.per_level else 1
        steps = params.num_anchors * params.num_classes // numbers["SEGMENT_STEP"]
        segments = min(steps, numbers["SEGMENTS"]) + 2 * lists
        return cls(lists, segments, params.max_candidates + numbers["SPARE_FINALISTS"])


@dataclass(frozen=True)
class Workspace:
    """Where the parts of the NMS' own memory lie, in bytes from its beginning, aligned; it may begin anywhere."""

    narrowed: int
    num_candidates: int
    segment_counts: int
    bin_counts: int
    top_boxes: int
    top_scores: int
    top_classes: int
    keys: int
    nbytes: int

    @classmethod
    def of(cls, params: NmsParams) -> Workspace:
        """The workspace of a call with ``params``."""
        sizes, images = NmsSizes.of(params), params.batch
        candidates, segments = sizes.lists * params.max_candidates, sizes.segments
        parts = [
            *(4 * sizes.lists, 4),
            *(4 * segments, 4 * segments * _constants()["BINS"]),
            *(16 * candidates, 4 * candidates, 4 * candidates),
            8 * (params.num_anchors * params.num_classes + sizes.lists * sizes.finalists),
        ]
        places = offsets([images * part for part in parts], _PART)
        places[-1] += _PART
        return cls(*places)


class Kernels:
    """The kernels, loaded for one GPU; compiled at first use and from the cache afterwards.

    Use it inside ``with device.active()``, :meth:`close` too.

    Args:
        device: the GPU.
        overlapping: whether a kernel of :meth:`nms` may begin before the one ahead of it has ended, where the GPU and
            its driver can do that.

    Raises:
        MissingDependencyError: no compiler is installed.
        BackendError: the kernels do not compile, or the driver does not load them.
    """

    def __init__(self, device: CudaDevice, overlapping: bool = True) -> None:
        self._device, self._overlapping = device, overlapping
        compiler = open_compiler(device.driver_version)
        image = compiled(kernel_source(), device.compute_capability, compiler)
        try:
            self._module = device.load_module(image)
        except BackendError as error:
            raise BackendError(
                f"the driver, which is for CUDA {device.driver_version} at most, does not load the kernels that "
                f"{compiler.version} compiled for {device.compute_capability} ({error}). Update the driver"
            ) from error
        try:
            self._functions = {name: device.get_function(self._module, name) for name in PARAMETERS}
        except BaseException:
            self.close()
            raise

    def resize(self, params: ResizeParams, frame: int, out: int, stream: int) -> None:
        """Queue the resize of the frame at address ``frame`` into the image at address ``out``.

        The UV plane of an NV12 frame follows its Y plane.
        """
        uv = frame + params.frame_height * params.pitch if params.format == NV12 else 0
        block = (_constants()["RESIZE_BLOCK_X"], _constants()["RESIZE_BLOCK_Y"])
        grid = (-(-params.out_width // block[0]), -(-params.out_height // block[1]))
        self._launch("gfl_resize_kernel", Launch((*grid, 1), (*block, 1)), stream, params, frame, uv, out)

    def nms(self, params: NmsParams, inputs: NmsInputs, outputs: NmsOutputs, workspace: int, stream: int) -> None:
        """Queue filter, top-k, decode and NMS, and the sigmas of what it found if ``outputs`` have room for them.

        Args:
            params: see :func:`nms_params`.
            inputs: what the network gave.
            outputs: what is filled, padded to ``max_detections``.
            workspace: address of ``Workspace.of(params).nbytes`` bytes.
            stream: where.
        """
        part, sizes, numbers = Workspace.of(params), NmsSizes.of(params), _constants()
        begin = _divide_up(workspace, _PART) * _PART
        at = {name: begin + offset for name, offset in vars(part).items()}
        grids = {
            "filter": (sizes.segments, params.batch, 1),
            "rank": (_divide_up(sizes.lists * sizes.finalists, numbers["RANK_FINALISTS"]), params.batch, 1),
            "suppress": (params.batch, 1, 1),
        }
        if outputs.det_sigmas:
            warps = numbers["SIGMA_THREADS"] // numbers["WARP"]  # each has a detection
            grids["sigma"] = (_divide_up(params.max_detections, warps), params.batch, 1)
        addresses = {**at, **vars(inputs), **vars(outputs)}
        for kernel, grid in grids.items():
            block = (numbers[f"{kernel.upper()}_THREADS"], 1, 1)
            overlaps = self._overlapping and kernel in ("rank", "suppress")  # the others do not wait by themselves
            name, launch = f"gfl_{kernel}_kernel", Launch(grid, block, overlaps=overlaps)
            pointers = (addresses[field[0]] for field in PARAMETERS[name]._fields_[1:])
            self._launch(name, launch, stream, params, *pointers)

    def _launch(self, name: str, launch: Launch, stream: int, params: ctypes.Structure, *pointers: int) -> None:
        self._device.launch(self._functions[name], launch, PARAMETERS[name](params, *pointers), stream)

    def close(self) -> None:
        """Unload the module; the kernels cannot be queued any more."""
        self._device.unload_module(self._module)


def _divide_up(value: int, step: int) -> int:
    return -(-value // step)
