"""The CUDA kernel that resizes frames, emulated and on a GPU, against OpenCV."""

from __future__ import annotations

import ctypes
import platform

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kernels.library import KernelError
from gfl_edge.cuda.kernels import ResizeParams
from gfl_edge.ops.preprocess import PADDING_BGR, place, resize_into
from tests.support.kernel_cases import INVALID_ARGUMENT

BGR, RGB, NV12 = 0, 1, 2


def resize_params(frame_hw, out_hw, rule, frame_format=BGR, short_long=None, pitch=0, uv_pitch=0):
    """The parameters for a rule of resize_into."""
    limit = None
    if short_long:
        limit = short_long if frame_hw[0] <= frame_hw[1] else short_long[::-1]
    placed = place(frame_hw, out_hw, rule, limit)
    step_x, step_y = (1 / scale for scale in placed.scale_xy)
    centered = rule != "letterbox"  # cv2.resize puts pixel edges upon each other, cv2.warpAffine pixel centers
    content = out_hw
    if rule == "fit":
        content = tuple(round(side * scale) for side, scale in zip(frame_hw, placed.scale_xy[::-1], strict=True))
    return ResizeParams(
        format=frame_format,
        frame_height=frame_hw[0],
        frame_width=frame_hw[1],
        pitch=pitch or frame_hw[1] * (1 if frame_format == NV12 else 3),
        uv_pitch=uv_pitch,
        out_height=out_hw[0],
        out_width=out_hw[1],
        content_height=content[0],
        content_width=content[1],
        step_x=step_x,
        step_y=step_y,
        start_x=-0.5 if centered else -placed.offset_xy[0] * step_x,
        start_y=-0.5 if centered else -placed.offset_xy[1] * step_y,
        black_border=int(rule == "letterbox"),
        padding_bgr=(ctypes.c_uint8 * 4)(*PADDING_BGR) if rule == "fit" else (ctypes.c_uint8 * 4)(),
    )


# Gray levels; OpenCV's builds for ARM have code of their own
OTHER_ROUNDING = 0 if platform.machine() == "x86_64" else 1


def assert_resized(found, frame, rule, short_long=None):
    want = np.empty_like(found)
    resize_into(frame, want, rule, short_long)
    assert np.abs(found.astype(int) - want).max() <= OTHER_ROUNDING


SIZES = st.tuples(st.integers(2, 90), st.integers(2, 90))


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
def test_resize(library, rule):
    @given(frame_hw=SIZES, out_hw=SIZES, seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=40, deadline=None)
    def check(frame_hw, out_hw, seed):
        frame = np.random.default_rng(seed).integers(0, 256, (*frame_hw, 3), np.uint8)
        assert_resized(library.resize(resize_params(frame_hw, out_hw, rule), frame), frame, rule)

    check()


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
def test_resize_of_a_camera_frame(library, rule):
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    assert_resized(library.resize(resize_params((1080, 1920), (416, 416), rule), frame), frame, rule)


def test_fit_within_a_limit(library):
    frame = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    found = library.resize(resize_params((120, 160), (96, 128), "fit", short_long=(60, 100)), frame)
    assert_resized(found, frame, "fit", (60, 100))
    assert (found[60:] == PADDING_BGR).all()


def test_rgb_rows_with_padding_stretch(library):
    rows = np.random.default_rng(2).integers(0, 256, (40, 200), np.uint8)
    frame = rows[:, :180].reshape(40, 60, 3)[..., ::-1].copy()
    found = library.resize(resize_params((40, 60), (33, 77), "stretch", RGB, pitch=200), rows)
    assert_resized(found, frame, "stretch")


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
def test_nv12(library, rule):
    rng = np.random.default_rng(3)
    luma, chroma = rng.integers(0, 256, (48, 64), np.uint8), rng.integers(0, 256, (24, 64), np.uint8)
    frame = cv2.cvtColor(np.concatenate((luma, chroma)), cv2.COLOR_YUV2BGR_NV12)
    padded = [np.pad(plane, ((0, 0), (0, extra))) for plane, extra in ((luma, 16), (chroma, 32))]
    for out_hw in ((48, 64), (31, 33), (100, 90)):
        params = resize_params((48, 64), out_hw, rule, NV12, pitch=80, uv_pitch=96)
        assert_resized(library.resize(params, *padded), frame, rule)


def test_every_color_of_nv12(library):
    values = np.arange(0, 256, 3, dtype=np.uint8)[:84]
    luma = np.repeat(np.repeat(values[:, None], 84, 1), 1, 0)
    chroma = np.stack([values[:42], values[:42][::-1]], axis=1).reshape(1, 84).repeat(42, 0)
    chroma = ((chroma.astype(int) + 3 * np.arange(42)[:, None]) % 256).astype(np.uint8)
    frame = cv2.cvtColor(np.concatenate((luma, chroma)), cv2.COLOR_YUV2BGR_NV12)
    params = resize_params((84, 84), (84, 84), "stretch", NV12, uv_pitch=84)
    np.testing.assert_array_equal(library.resize(params, luma, chroma), frame)


def test_far_outside_is_black_or_the_edge(library):
    frame = np.full((4, 4, 3), 77, np.uint8)
    for far in (-1e9, 1e9, 3e38):
        params = resize_params((4, 4), (8, 8), "letterbox")
        params.start_x = far
        assert not library.resize(params, frame).any()
        params.black_border = 0
        assert (library.resize(params, frame) == 77).all()


def in_doubles(frame, params):
    """The resize with a black border, coordinates in float64: what the integers of the kernel must agree with."""
    sizes = ((params.out_width, params.frame_width), (params.out_height, params.frame_height))
    steps, starts = (params.step_x, params.step_y), (params.start_x, params.start_y)
    wholes, fractions = [], []
    for (out, size), step, start in zip(sizes, steps, starts, strict=True):
        fine = np.rint(np.arange(out) * np.float64(step) * 1024) + np.rint(np.float64(start) * 1024)
        fixed = (np.clip(fine, -2048, 1024 * (size + 2)).astype(int) + 16) >> 5
        wholes.append((fixed >> 5) + 2)
        fractions.append((fixed & 31).astype(np.float32) / np.float32(32))
    padded = np.pad(frame, ((2, 5), (2, 5), (0, 0))).astype(np.float32)
    (left, top), (along, down) = wholes, (fractions[0][None, :, None], fractions[1][:, None, None])
    rows = [
        padded[top + i][:, left] + along * (padded[top + i][:, left + 1] - padded[top + i][:, left]) for i in (0, 1)
    ]
    return (rows[0] + down * (rows[1] - rows[0]) + np.float32(0.5)).astype(np.uint8)


ODD_STEPS = [0.0, -0.0, 1e-45, 1e-38, 2**-11, 2**-10, 3 * 2**-11, -(2**-11), 0.5, 1.5, 2.0**35, -(2.0**35), 1 / 3, 1e9]


@given(
    step=st.one_of(st.sampled_from(ODD_STEPS), st.floats(-8, 8, width=32), st.floats(-1e9, 1e9, width=32)),
    start=st.one_of(st.sampled_from(ODD_STEPS), st.floats(-8, 8, width=32), st.floats(-1e9, 1e9, width=32)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_coordinates_in_integers_are_those_in_doubles(library, step, start, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), np.uint8)
    params = resize_params((9, 13), (16, 40), "letterbox")
    params.step_x, params.start_x, params.step_y = step, start, 0.4
    np.testing.assert_array_equal(library.resize(params, frame), in_doubles(frame, params))


@pytest.mark.parametrize("side", [65535, 65534, 1921])
def test_coordinates_of_the_last_pixels(library, side):
    """The largest product there is; half of the values lie between two 1024ths."""
    frame = np.random.default_rng(0).integers(0, 256, (1, side, 3), np.uint8)
    for step in (1.0, np.float32(1 + 2**-11), np.nextafter(np.float32(1), np.float32(0))):
        params = resize_params((1, side), (1, side), "letterbox")
        params.step_x, params.start_x = step, np.float32(2**-11)
        np.testing.assert_array_equal(library.resize(params, frame), in_doubles(frame, params))


BAD_RESIZE = [
    ("format", 3, "format is 3, expected 0..2"),
    ("frame_height", 0, "frame_height is 0, expected 1..65535"),
    ("frame_width", 70000, "frame_width is 70000"),
    ("pitch", 100, "pitch is 100, expected 192..2147483647"),
    ("out_height", 0, "out_height is 0"),
    ("out_width", -1, "out_width is -1"),
    ("content_height", 33, "content_height is 33, expected 0..32"),
    ("content_width", -1, "content_width is -1"),
    ("black_border", 2, "black_border is 2"),
    ("step_x", float("nan"), "step_x is"),
    ("step_y", float("inf"), "step_y is inf"),
    ("start_x", float("-inf"), "start_x is -inf, expected a finite number"),
    ("start_y", float("nan"), "start_y is"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_RESIZE)
def test_impossible_resize(emulated, field, value, message):
    params = resize_params((48, 64), (32, 32), "stretch")
    setattr(params, field, value)
    with pytest.raises(KernelError) as caught:
        emulated.resize(params, np.zeros((48, 64, 3), np.uint8))
    assert message in str(caught.value)


def test_impossible_planes(emulated):
    plane = np.zeros((48, 64), np.uint8)
    packed = resize_params((48, 64), (32, 32), "stretch")
    with pytest.raises(KernelError, match="uv is given for a packed format"):
        emulated.resize(packed, np.zeros((48, 64, 3), np.uint8), plane)
    with pytest.raises(KernelError, match="uv is NULL"):
        emulated.resize(resize_params((48, 64), (32, 32), "stretch", NV12, uv_pitch=64), plane)
    with pytest.raises(KernelError, match="uv_pitch is 63, expected 64"):
        emulated.resize(resize_params((48, 64), (32, 32), "stretch", NV12, uv_pitch=63), plane, plane)
    with pytest.raises(KernelError, match="47 x 64 pixels, expected even sides"):
        emulated.resize(resize_params((47, 64), (32, 32), "stretch", NV12, uv_pitch=64), plane, plane)
    params = ctypes.byref(packed)
    for arguments, name in (
        ((params, None, None, plane.ctypes.data), "frame"),
        ((params, plane.ctypes.data, None, None), "out"),
    ):
        assert emulated.functions.gfl_resize(*arguments, None) == INVALID_ARGUMENT
        assert emulated.last_error() == f"{name} is NULL, expected device memory"


def test_a_launch_of_resize_that_fails(emulated):
    emulated.functions.gfl_emulate_failure(0, 719)
    with pytest.raises(KernelError, match="gfl_resize_kernel failed: unspecified launch failure"):
        emulated.resize(resize_params((48, 64), (32, 32), "stretch"), np.zeros((48, 64, 3), np.uint8))
