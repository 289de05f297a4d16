"""The launch plan of the CUDA kernels, and the emulation itself."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernels.library import HostMemory, NmsCall, nms_params
from gfl_edge.cuda.kernels import PARAMETERS, NmsParams, Workspace
from tests.support import emulated_kernels
from tests.support.kernel_cases import LEVEL_ANCHORS, LEVELS, assert_detections, random_boxes, reference, small_call


def launch(emulated, name, grid, block, shared, *arguments):
    """As cuLaunchKernel: structures by value, addresses as pointers."""
    values = [a if isinstance(a, ctypes.Structure) else ctypes.c_void_p(a) for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    sizes = [(ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
    return emulated.functions.gfl_emulate_launch(name.encode(), *sizes, ctypes.c_size_t(shared), pointers)


@pytest.mark.parametrize("blocks", [1, 3, 7, 100])
def test_kernels_launched_one_by_one(emulated, blocks):
    """By the plan in gfl_kernels.cuh; any number of blocks of the first two will do."""
    rng = np.random.default_rng(11)
    anchors, max_candidates = sum(LEVEL_ANCHORS), 40
    scores, boxes = rng.uniform(0, 1, (2, anchors, 60)).astype(np.float32), random_boxes(rng, anchors, 2)
    params = nms_params(scores, **LEVELS, per_level=1, max_candidates=max_candidates)
    with emulated.memory() as memory:
        call = NmsCall(emulated, memory, params, scores=scores, boxes=boxes)
        at = {name: call.workspace + offset for name, offset in vars(Workspace.of(params)).items()}
        addresses = {**at, **{part: getattr(call.inputs, part) for part, _ in call.inputs._fields_}}
        addresses |= {part: getattr(call.outputs, part) for part, _ in call.outputs._fields_}
        for name, grid, block in (
            ("filter", (blocks, 2), (512,)),
            ("rank", (-(-4 * (40 + 1024) // 16), 2), (512,)),
            ("suppress", (2,), (1024,)),
        ):
            pointers = [addresses[field[0]] for field in PARAMETERS[f"gfl_{name}_kernel"]._fields_[1:]]
            assert launch(emulated, f"gfl_{name}_kernel", grid, block, 0, params, *pointers) == 0
        found = call.results()
    assert_detections(found, [reference(b, s, params, LEVEL_ANCHORS) for b, s in zip(boxes, scores, strict=True)])


def test_the_emulation_refuses_what_a_gpu_would(emulated):
    fault = emulated.functions.gfl_emulate_fault
    assert launch(emulated, "gfl_no_kernel", (1,), (32,), 0) != 0
    assert fault() == b"there is no kernel gfl_no_kernel"
    for grid, block, shared in (((1,), (2048,), 0), ((0,), (32,), 0), ((1,), (32,), 1 << 20)):
        assert launch(emulated, "gfl_rank_kernel", grid, block, shared) != 0
        assert b"is not possible" in fault()


def test_the_emulation_notices_a_partial_warp(emulated):
    """A filter with 40 threads: its second warp cannot vote with all of its lanes."""
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        ones = memory.put(np.ones((1, sum(LEVEL_ANCHORS), 2), np.float32))
        parts = [memory.empty(4096) for _ in range(4)]
        assert launch(emulated, "gfl_filter_kernel", (1,), (40,), 0, call.params, ones, None, *parts) != 0
        assert emulated.functions.gfl_emulate_fault() == b"a warp operation without all 32 lanes"


def test_guards_are_checked():
    memory = HostMemory()
    address = memory.empty(10)
    ctypes.memset(address, 0, 10)
    memory.close()
    address = memory.empty(10)
    ctypes.memset(address, 0, 11)
    with pytest.raises(AssertionError, match="beyond the end of its memory"):
        memory.close()


def test_params_have_the_size_of_the_launch_plan():
    assert ctypes.sizeof(NmsParams) == 96


# Each costs many times what it costs without the sanitizer
SANITIZED = (
    "nms.py::test_shapes_that_end_inside_of_16_bytes[emulation-shape0-float16]",
    "nms.py::test_quality_is_a_factor[emulation]",
    "resize.py::test_nv12[emulation-letterbox]",
    "resize.py::test_rgb_rows_with_padding_stretch[emulation]",
)
SANITIZED_FOR_LONG = (
    "nms.py::test_shapes_that_end_inside_of_16_bytes",
    "emulation.py::test_kernels_launched_one_by_one[1]",
    "nms.py::test_300000_pairs_above_the_threshold[emulation-tied]",
    "decode.py::test_decode[emulation-1-0.5-16-float16]",
)


@pytest.mark.parametrize(
    "cases", [SANITIZED, pytest.param(SANITIZED_FOR_LONG, marks=pytest.mark.slow)], ids=["quick", "for long"]
)
def test_under_the_address_sanitizer(cases):
    """The same kernels on some cases of the files beside this one, in a process that has the sanitizer loaded."""
    emulated_kernels.library()  # skips without a compiler
    words = [os.environ.get("CXX", "g++"), "-print-file-name=libasan.so"]
    sanitizer = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(sanitizer).exists():
        pytest.skip("the compiler has no AddressSanitizer (libasan.so)")
    environment = {
        **os.environ,
        "LD_PRELOAD": sanitizer,
        "ASAN_OPTIONS": "detect_leaks=0,detect_stack_use_after_return=0",
        "GFL_EDGE_EMULATION": "sanitize",
        "GFL_EDGE_REQUIRE_DATA": "0",
    }
    tests = [f"{Path(__file__).parent}/test_kernels_{case}" for case in cases]
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
