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
from gfl_edge.ops.boxes import pairwise_iou, sound
from gfl_edge.ops.decode import boxes_from_distances, deviation, integral, points
from gfl_edge.ops.preprocess import letterbox_maps
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


def sizes_of(call: Any) -> kernels.NmsSizes:
    """The launch plan's numbers; models have one list of candidates."""
    assert not call.params.per_level
    return kernels.NmsSizes.of(call.params)


def segments_of(call: Any) -> tuple[int, int]:
    """Segments of an image, and pairs of each: shared out evenly, unlike the kernels', which are whole tiles."""
    segments = sizes_of(call).segments
    return segments, -(-call.params.num_anchors * call.params.num_classes // segments)


def filter_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params, (segments, length) = call.params, segments_of(call)
    assert launch.grid[:2] == (segments, params.batch)
    pairs = params.num_anchors * params.num_classes
    counts = np.zeros((params.batch, segments), np.uint32)
    keys = np.zeros((params.batch, pairs), np.uint64)
    for image, flat in enumerate(scores_of(gpu, call).reshape(params.batch, -1)):
        (found,) = np.nonzero(~(flat <= np.float32(params.score_threshold)))
        bits = np.where(np.isnan(flat), np.float32(0), flat)[found].view(np.uint32)
        words = bits.astype(np.uint64) << np.uint64(32) | (~found.astype(np.uint32))
        for segment in np.unique(found // length):
            own = words[found // length == segment][::-1]  # in any order
            counts[image, segment], keys[image, segment * length :][: len(own)] = len(own), own
    bins = np.zeros((params.batch, segments, 32), np.uint32)
    bins[..., 0] = counts
    gpu.write(call.narrowed, np.zeros(params.batch, np.uint32))
    gpu.write(call.segment_counts, counts)
    gpu.write(call.bin_counts, bins)
    gpu.write(call.keys, keys)


def finalists_of(gpu: FakeGpu, call: Any) -> list[np.ndarray]:
    """Of each image all keys, in any order."""
    params, (segments, length) = call.params, segments_of(call)
    counts = gpu.read(call.segment_counts, (params.batch, segments), np.uint32)
    bins = gpu.read(call.bin_counts, (params.batch, segments, 32), np.uint32)
    np.testing.assert_array_equal(bins[..., 0], counts)
    assert not gpu.read(call.narrowed, (params.batch,), np.uint32).any(), "the filter zeroes them"
    keys = gpu.read(call.keys, (params.batch, params.num_anchors * params.num_classes), np.uint64)
    return [
        np.concatenate([keys[image, i * length :][:count] for i, count in enumerate(counts[image])])
        for image in range(params.batch)
    ]


def rank_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params, room = call.params, sizes_of(call).finalists
    assert launch.grid[0] * launch.block[0] >= 32 * room
    batch, most = params.batch, params.max_candidates
    boxes, counts = boxes_of(gpu, call), np.zeros(batch, np.uint32)
    top_boxes, top_scores = np.zeros((batch, most, 4), np.float32), np.zeros((batch, most), np.float32)
    top_classes = np.zeros((batch, most), np.int32)
    for image, keys in enumerate(finalists_of(gpu, call)):
        own = np.sort(keys)[::-1][:most]
        counts[image] = len(own)
        anchors, classes = np.divmod(~own.astype(np.uint32), params.num_classes)
        candidates = boxes[image, anchors]
        scores = (own >> np.uint64(32)).astype(np.uint32).view(np.float32)
        chosen = sound(candidates, scores) & (scores > 0)
        top_boxes[image, : len(own)], top_scores[image, : len(own)] = candidates, scores
        top_classes[image, : len(own)] = np.where(chosen, classes, INVALID_CLASS)
    gpu.write(call.num_candidates, counts)
    gpu.write(call.top_boxes, top_boxes)
    gpu.write(call.top_scores, top_scores)
    gpu.write(call.top_classes, top_classes)


def suppress_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params, candidates = call.params, call.params.max_candidates
    batch, most = params.batch, params.max_detections
    assert launch.grid == (batch, 1, 1)
    counts = gpu.read(call.num_candidates, (batch,), np.uint32)
    boxes = gpu.read(call.top_boxes, (batch, candidates, 4), np.float32)
    scores = gpu.read(call.top_scores, (batch, candidates), np.float32)
    classes = gpu.read(call.top_classes, (batch, candidates), np.int32)
    num_dets = np.zeros((batch, 1), np.int32)
    det_boxes, det_scores = np.zeros((batch, most, 4), np.float32), np.zeros((batch, most), np.float32)
    det_classes = np.full((batch, most), -1, np.int32)
    for image, count in enumerate(counts):
        own, labels = boxes[image, :count], classes[image, :count]
        hits = (pairwise_iou(own, own) > params.iou_threshold) & (labels[:, None] == labels)
        left = labels != INVALID_CLASS
        invalid, kept = int(count - left.sum()), []
        for candidate in range(count):
            if left[candidate]:
                kept.append(candidate)
                left[candidate + 1 :] &= ~hits[candidate, candidate + 1 :]
        kept = kept[:most]
        num_dets[image] = found = len(kept)
        det_boxes[image, :found], det_classes[image, :found] = boxes[image, kept], classes[image, kept]
        det_scores[image, :found] = scores[image, kept]
        det_classes[image, found:][:invalid] = INVALID_CLASS
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


def sigma_kernel(gpu: FakeGpu, call: Any, launch: Launch) -> None:
    params = call.params
    batch, most, classes = params.batch, params.max_detections, params.num_classes
    assert launch.grid[:2] == (-(-most // (launch.block[0] // 32)), batch)
    assert not launch.overlaps, "it does not wait for the kernel before"
    boxes, sigmas = boxes_of(gpu, call), sigmas_of(gpu, call)
    keys = gpu.read(call.keys, (batch, params.num_anchors * classes), np.uint64)
    count = gpu.read(call.num_dets, (batch, 1), np.int32)
    det_boxes = gpu.read(call.det_boxes, (batch, most, 4), np.float32)
    det_scores = gpu.read(call.det_scores, (batch, most), np.float32)
    det_classes = gpu.read(call.det_classes, (batch, most), np.int32)
    found = np.zeros((batch, most, 4), np.float32)
    for image in range(batch):
        pairs = ~keys[image].astype(np.uint32)
        scores = (keys[image] >> np.uint64(32)).astype(np.uint32).view(np.float32)
        for place in range(count[image, 0]):
            like = pairs[(scores == det_scores[image, place]) & (pairs % classes == det_classes[image, place])]
            (anchor,) = (it for it in like // classes if np.array_equal(boxes[image, it], det_boxes[image, place]))
            found[image, place] = sigmas[image, anchor]
    gpu.write(call.det_sigmas, found)


def sigmas_of(gpu: FakeGpu, call: Any) -> np.ndarray:
    """Standard deviations ``[N, A, 4]``, given or from the distributions."""
    params = call.params
    assert bool(call.sigmas) == bool(call.boxes)
    if call.sigmas:
        return gpu.read(call.sigmas, (params.batch, params.num_anchors, 4), np.float32)
    dtype = np.float16 if params.dtype == kernels.FLOAT16 else np.float32
    logits = gpu.read(call.reg_logits, (params.batch, params.num_anchors, 4 * (params.reg_max + 1)), dtype)
    size, strides = (params.input_height, params.input_width), tuple(params.strides[: params.num_levels])
    return deviation(logits.astype(np.float32)) * points(size, strides, params.point_offset)[1][:, None]


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
        steps, starts = (params.step_x, params.step_y), (params.start_x, params.start_y)
        maps = letterbox_maps((height, width), out_hw, steps, starts)
        cv2.remap(frame, *maps, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_CONSTANT)
    else:
        assert np.isclose(params.step_x, params.frame_width / content_hw[1])
        assert np.isclose(params.step_y, params.frame_height / content_hw[0])
        assert params.start_x == -0.5
        assert params.start_y == -0.5
        out[:] = list(params.padding_bgr)[:3]
        out[: content_hw[0], : content_hw[1]] = cv2.resize(frame, content_hw[::-1], interpolation=cv2.INTER_LINEAR)
    gpu.write(call.out, out)


KERNELS: dict[str, Callable[[FakeGpu, Any, Launch], None]] = {
    "gfl_filter_kernel": filter_kernel,
    "gfl_rank_kernel": rank_kernel,
    "gfl_suppress_kernel": suppress_kernel,
    "gfl_sigma_kernel": sigma_kernel,
    "gfl_resize_kernel": resize_kernel,
}
