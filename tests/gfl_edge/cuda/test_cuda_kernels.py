"""The kernels at run time: their parameters against the C header and, through them, against the emulated kernels."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfl_edge.cuda import kernels
from gfl_edge.cuda.kernels import (
    PARAMETERS,
    NmsParams,
    NmsSizes,
    ResizeParams,
    Workspace,
    kernel_source,
    nms_params,
    resize_params,
)
from gfl_edge.errors import BackendError
from gfl_edge.ops.preprocess import Nv12Frame, place_frame, resize_into
from tests.support import emulated_kernels
from tests.support.tiny_spec import TINY

CHECKOUT = Path(__file__).resolve().parents[3]
SPEC = dataclasses.replace(TINY, nms="none")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("structure", [NmsParams, ResizeParams])
def test_structures_are_those_of_the_header(tmp_path: Path, structure: type[ctypes.Structure]) -> None:
    fields = [field[0] for field in structure._fields_]
    lines = [f'printf("{field} %zu\\n", offsetof(Gfl{structure.__name__}, {field}));' for field in fields]
    lines.append(f'printf("size %zu\\n", sizeof(Gfl{structure.__name__}));')
    program = tmp_path / "offsets.c"
    program.write_text(
        f'#include <stdio.h>\n#include "gfl_kernels.h"\nint main(void) {{ {" ".join(lines)} return 0; }}\n'
    )
    include = CHECKOUT / "plugins" / "include"
    subprocess.run(["gcc", f"-I{include}", "-o", tmp_path / "offsets", program], check=True)
    found = subprocess.run([tmp_path / "offsets"], check=True, capture_output=True, text=True).stdout
    expected = {field: getattr(structure, field).offset for field in fields} | {"size": ctypes.sizeof(structure)}
    assert dict(line.split() for line in found.splitlines()) == {name: str(value) for name, value in expected.items()}


def test_numbers_are_those_of_the_header() -> None:
    header = kernel_source().headers["gfl_kernels.h"]
    for line in (
        f"#define GFL_MAX_LEVELS {kernels.MAX_LEVELS}",
        f"#define GFL_MAX_CANDIDATES {kernels.MAX_CANDIDATES} ",
        f"GFL_FLOAT32 = {kernels.FLOAT32}, GFL_FLOAT16 = {kernels.FLOAT16} ",
        f"GFL_SCORES = {kernels.SCORES},",
        f"GFL_LOGITS = {kernels.LOGITS},",
        f"GFL_BGR = {kernels.BGR},",
        f"GFL_NV12 = {kernels.NV12} ",
        f"reg_max + 1 bins, 1..{kernels.MAX_BINS}",
    ):
        assert line in header


def test_pointers_come_where_the_kernels_expect_them() -> None:
    """A structure by value, then addresses of 8 bytes at its end."""
    for parameters in PARAMETERS.values():
        (_, params), *pointers = parameters._fields_
        assert ctypes.sizeof(params) % 4 == 0
        first = -(-ctypes.sizeof(params) // 8) * 8
        assert [getattr(parameters, name).offset for name, _ in pointers] == [
            first + 8 * i for i in range(len(pointers))
        ]


def test_params_of_a_raw_model() -> None:
    spec = dataclasses.replace(SPEC, nms="raw", precision="fp16")
    params = nms_params(spec, 3, (32, 64))
    assert (params.batch, params.num_anchors, params.num_classes) == (3, 4 * 8 + 2 * 4, 2)
    assert (params.dtype, params.score_kind) == (kernels.FLOAT16, kernels.LOGITS)
    assert list(params.strides) == [8, 16, 0, 0, 0, 0, 0, 0]


def test_params_of_a_decoded_model_are_floats() -> None:
    params = nms_params(dataclasses.replace(SPEC, precision="fp16"), 1, SPEC.input_hw)
    assert (params.dtype, params.score_kind) == (kernels.FLOAT32, kernels.SCORES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": (2, 4, 8, 16, 32, 64, 128, 256, 512)}, "strides 9, and the NMS kernels take 8 at most"),
        ({"max_candidates": 5000}, "max_candidates 5000, and the NMS kernels take 4096 at most"),
        ({"reg_max": 32}, "reg_max 32, and the NMS kernels take 31 at most"),
    ],
)
def test_models_that_the_kernels_do_not_take(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        nms_params(dataclasses.replace(SPEC, **changes), 1, SPEC.input_hw)  # type: ignore[arg-type]


def test_workspace_parts_do_not_overlap() -> None:
    params = nms_params(SPEC, 3, SPEC.input_hw)
    candidates, pairs = params.max_candidates, params.num_anchors * params.num_classes
    sizes = NmsSizes.of(params)
    assert sizes == NmsSizes(1, pairs // 512 + 2, candidates + 1024)
    parts = [
        4,
        4,
        4 * sizes.segments,
        4 * sizes.segments * 32,
        16 * candidates,
        4 * candidates,
        4 * candidates,
        8 * pairs + 8 * (candidates + 1024),
    ]
    workspace = list(vars(Workspace.of(params)).values())
    assert workspace[0] == 0
    assert np.diff(workspace).tolist() == [-(-3 * part // 256) * 256 for part in parts[:-1]] + [
        -(-3 * parts[-1] // 256) * 256 + 256
    ]


@pytest.mark.parametrize("per_level", [0, 1])
@pytest.mark.parametrize(("batch", "max_candidates"), [(1, 1), (3, 1000), (2, 4096)])
def test_the_workspace_is_the_one_of_the_library(batch: int, max_candidates: int, per_level: int) -> None:
    spec = dataclasses.replace(SPEC, max_candidates=max_candidates, max_detections=1)
    params = nms_params(spec, batch, spec.input_hw)
    params.per_level = per_level
    assert Workspace.of(params).nbytes == emulated_kernels.library().workspace_size(params)  # type: ignore[arg-type]


@given(side=st.integers(1, 4000), more=st.integers(0, 1000), classes=st.sampled_from([1, 80, 365]))
def test_a_larger_image_never_needs_a_smaller_workspace(side: int, more: int, classes: int) -> None:
    """Memory is taken for the largest size, and used for the smaller ones too."""
    library = emulated_kernels.library()
    before = 0
    for anchors in (side * 21, side * 21 + more):
        params = NmsParams(batch=2, num_anchors=anchors, num_classes=classes, max_candidates=1000, max_detections=1)
        nbytes = library.workspace_size(params)  # type: ignore[arg-type]
        assert Workspace.of(params).nbytes == nbytes >= before
        before = nbytes


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
@pytest.mark.parametrize("size", [(64, 96), (48, 64), (120, 300), (31, 17)])
def test_resize_is_that_of_the_host(rule: str, size: tuple[int, int]) -> None:
    spec = dataclasses.replace(SPEC, resize=rule)  # type: ignore[arg-type]
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = np.empty((*spec.input_hw, 3), np.uint8)
    placement = resize_into(frame, expected, spec.resize)
    params = resize_params(spec, placement, spec.input_hw)
    found = emulated_kernels.library().resize(params, frame)  # type: ignore[arg-type]
    apart = np.abs(found.astype(int) - expected)
    # Coordinates are rounded to 1/32 pixel, and a few of them the other way than by the kernel, whose steps are float32
    assert (apart > 1).mean() <= (0.01 if rule == "letterbox" else 0)


@pytest.mark.parametrize("rule", ["stretch", "fit"])
def test_resize_of_nv12_is_that_of_the_host(rule: str) -> None:
    spec = dataclasses.replace(SPEC, resize=rule)  # type: ignore[arg-type]
    frame = Nv12Frame(np.random.default_rng(0).integers(0, 256, (72, 64), np.uint8))
    expected = np.empty((*spec.input_hw, 3), np.uint8)
    params = resize_params(spec, resize_into(frame, expected, spec.resize), spec.input_hw, kernels.NV12)
    found = emulated_kernels.library().resize(params, frame.planes[:48], frame.planes[48:])  # type: ignore[arg-type]
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_resize_to_a_size_that_depends_on_the_frame() -> None:
    spec = dataclasses.replace(SPEC, resize="fit", short_long=(320, 400))
    frame = np.random.default_rng(0).integers(0, 256, (150, 100, 3), np.uint8)
    expected = np.empty((416, 320, 3), np.uint8)
    resize_into(frame, expected, spec.resize, spec.short_long)
    placement = place_frame((150, 100), (416, 320), spec.resize, spec.short_long)
    found = emulated_kernels.library().resize(resize_params(spec, placement, (416, 320)), frame)  # type: ignore[arg-type]
    assert np.abs(found.astype(int) - expected).max() <= 1
