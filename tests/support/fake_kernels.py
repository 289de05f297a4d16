"""The CUDA kernels in NumPy, on the memory of a fake GPU, by the launch plan in ``gfl_kernels.cuh``.

Each does only its own part, from the addresses that it is given: a wrong order, address or size of a launch shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gfl_edge.cuda import kernels
from gfl_edge.cuda.interface import Launch
from gfl_edge.ops.boxes import greedy_nms, sound
from gfl_edge.ops.decode import boxes_from_distances, integral, points
from gfl_edge.spec import INVALID_CLASS

if TYPE_CHECKING:
    from tests.support.fake_gpu import FakeGpu


def scores_of(gpu: FakeGpu, call: Any) -> np.ndarray:
    """Scores ``[N, A, C]``, float32."""
    params = call.params
    dtype = np.float16 if params.dtype == kernels.FLOAT16 else np.float32
    values = gpu.read(call.scores, (params.batch, params.num_anchors, params.num_classes), dtype).astype(np.float32)
    assert not call.quality
    return 1 / (1 + np.exp(-values)) if params.score_kind == kernels.LOGITS else values


def filter_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params = call.params
    assert not params.per_level
    assert launch.grid[1] == params.batch
    pairs = params.num_anchors * params.num_classes
    counts = gpu.read(call.counts, (params.batch,), np.uint32)
    assert not counts.any(), "the counts must be zeroed before"
    keys = np.zeros((params.batch, pairs), np.uint64)
    for image, flat in enumerate(scores_of(gpu, call).reshape(params.batch, -1)):
        (found,) = np.nonzero(~(flat <= np.float32(params.score_threshold)))
        bits = np.where(np.isnan(flat), np.float32(0), flat)[found].view(np.uint32)
        words = bits.astype(np.uint64) << np.uint64(32) | (~found.astype(np.uint32))
        counts[image], keys[image, : len(found)] = len(found), words[::-1]  # in any order
    gpu.write(call.counts, counts)
    gpu.write(call.keys, keys)


def select_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params = call.params
    most = params.max_candidates
    assert launch.grid == (1, params.batch, 1)
    assert 8 * max(2048, most) <= launch.shared_bytes < 48 << 10
    counts = gpu.read(call.counts, (params.batch,), np.uint32)
    keys = gpu.read(call.keys, (params.batch, params.num_anchors * params.num_classes), np.uint64)
    top = gpu.read(call.top, (params.batch, most), np.uint64).copy()
    for image, count in enumerate(counts):
        best = np.sort(keys[image, :count])[::-1][:most]
        top[image, : len(best)] = best
    gpu.write(call.top, top)


def nms_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params = call.params
    batch, most = params.batch, params.max_detections
    assert launch.grid == (batch, 1, 1)
    counts = gpu.read(call.counts, (batch,), np.uint32)
    keys = gpu.read(call.sorted, (batch, params.max_candidates), np.uint64)
    boxes = boxes_of(gpu, call)
    num_dets = np.zeros((batch, 1), np.int32)
    det_boxes, det_scores = np.zeros((batch, most, 4), np.float32), np.zeros((batch, most), np.float32)
    det_classes = np.full((batch, most), -1, np.int32)
    for image in range(batch):
        own = keys[image, : min(counts[image], params.max_candidates)]
        anchors, classes = np.divmod(~own.astype(np.uint32), params.num_classes)
        candidates = boxes[image, anchors]
        scores = (own >> np.uint64(32)).astype(np.uint32).view(np.float32)
        chosen = sound(candidates, scores) & (scores > 0)
        keep = chosen.copy()
        for label in np.unique(classes):
            members = chosen & (classes == label)
            keep[members] = greedy_nms(candidates[members], params.iou_threshold)
        (kept,) = np.nonzero(keep)
        kept = kept[:most]
        num_dets[image] = count = len(kept)
        det_boxes[image, :count], det_classes[image, :count] = candidates[kept], classes[kept]
        det_scores[image, :count] = scores[kept]
        det_classes[image, count:][: np.count_nonzero(~chosen)] = INVALID_CLASS
    for address, array in (
        (call.num_dets, num_dets),
        (call.det_boxes, det_boxes),
        (call.det_scores, det_scores),
        (call.det_classes, det_classes),
    ):
        gpu.write(address, array)


def boxes_of(gpu: FakeGpu, call: Any) -> np.ndarray:
    """Boxes ``[N, A, 4]``, given or decoded."""
    params = call.params
    assert bool(call.boxes) != bool(call.reg_logits)
    if call.boxes:
        return gpu.read(call.boxes, (params.batch, params.num_anchors, 4), np.float32)
    dtype = np.float16 if params.dtype == kernels.FLOAT16 else np.float32
    logits = gpu.read(call.reg_logits, (params.batch, params.num_anchors, 4 * (params.reg_max + 1)), dtype)
    size, strides = (params.input_height, params.input_width), tuple(params.strides[: params.num_levels])
    centers, cells = points(size, strides, params.point_offset)
    return boxes_from_distances(integral(logits.astype(np.float32)) * cells[:, None], centers, size)


def resize_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params = call.params
    out_hw, content_hw = (params.out_height, params.out_width), (params.content_height, params.content_width)
    assert launch.grid[0] * launch.block[0] >= out_hw[1]
    assert launch.grid[1] * launch.block[1] >= out_hw[0]
    height, width = params.frame_height, params.frame_width
    if params.format == kernels.NV12:
        assert (params.pitch, params.uv_pitch, call.uv) == (width, width, call.frame + height * width)
        planes = gpu.read(call.frame, (height * 3 // 2, width), np.uint8)
        frame = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)
    else:
        assert (params.format, params.pitch, call.uv) == (kernels.BGR, 3 * width, 0)
        frame = gpu.read(call.frame, (height, width, 3), np.uint8)
    out = np.empty((*out_hw, 3), np.uint8)
    if params.black_border:
        assert content_hw == out_hw
        steps = [[params.step_x, 0, params.start_x], [0, params.step_y, params.start_y]]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(frame, np.array(steps), out_hw[::-1], dst=out, flags=flags)
    else:
        assert np.isclose(params.step_x, params.frame_width / content_hw[1])
        assert np.isclose(params.step_y, params.frame_height / content_hw[0])
        assert np.isclose(params.start_x, params.step_x / 2 - 0.5)
        assert np.isclose(params.start_y, params.step_y / 2 - 0.5)
        out[:] = list(params.padding_bgr)[:3]
        out[: content_hw[0], : content_hw[1]] = cv2.resize(frame, content_hw[::-1], interpolation=cv2.INTER_LINEAR)
    gpu.write(call.out, out)


KERNELS: dict[str, Callable[[FakeGpu, Any, Launch], None]] = {
    "gfl_filter_kernel": filter_kernel,
    "gfl_select_kernel": select_kernel,
    "gfl_nms_kernel": nms_kernel,
    "gfl_resize_kernel": resize_kernel,
}
