"""What the functions of the kernels' library refuse, and how they report failures of CUDA."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from benchmarks.kernels.library import KernelError, nms_params
from tests.support.kernel_cases import CUDA_ERROR, INVALID_ARGUMENT, small_call

BAD_FIELDS = [
    ("batch", 0, "batch is 0, expected 1..65535"),
    ("batch", 65536, "batch is 65536"),
    ("num_anchors", 0, "num_anchors is 0"),
    ("num_anchors", -5, "num_anchors is -5"),
    ("num_classes", 0, "num_classes is 0"),
    ("num_classes", 2**30, "num_anchors * num_classes is 180388626432"),
    ("dtype", 2, "dtype is 2, expected 0..1"),
    ("score_kind", -1, "score_kind is -1"),
    ("class_agnostic", 2, "class_agnostic is 2"),
    ("per_level", 2, "per_level is 2"),
    ("max_candidates", 0, "max_candidates is 0, expected 1..4096"),
    ("max_candidates", 4097, "max_candidates is 4097"),
    ("max_detections", 0, "max_detections is 0"),
    ("max_detections", 4097, "max_detections is 4097"),
    ("score_threshold", -0.1, "score_threshold is -0.1, expected 0..1"),
    ("score_threshold", float("nan"), "score_threshold is"),
    ("iou_threshold", 1.5, "iou_threshold is 1.5"),
    ("iou_threshold", float("nan"), "iou_threshold is"),
]
BAD_LEVELS = [
    ("num_levels", 0, "num_levels is 0, expected 1..8"),
    ("num_levels", 9, "num_levels is 9"),
    ("num_levels", 3, "num_anchors is 168, but an input of 72 x 104 pixels has 164 anchors at the 3 strides given"),
    ("input_height", 0, "input_height is 0"),
    ("input_width", -1, "input_width is -1"),
    ("input_width", 112, "num_anchors is 168, but"),
    ("strides", (ctypes.c_int32 * 8)(8, 0, 32, 64), "strides[1] is 0, expected 1.."),
]
BAD_DECODE = [
    ("reg_max", 0, "reg_max is 0, expected 1..32"),
    ("reg_max", 33, "reg_max is 33"),
    ("point_offset", float("inf"), "point_offset is inf, expected a finite number"),
]


def assert_refused(library, call, message, status=INVALID_ARGUMENT):
    with pytest.raises(KernelError) as caught:
        call.queue()
    assert message in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize(("field", "value", "message"), BAD_FIELDS)
def test_impossible_parameters(emulated, field, value, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        setattr(call.params, field, value)
        assert_refused(emulated, call, message)
        assert emulated.workspace_size(call.params) == 0
        assert message in emulated.last_error()


@pytest.mark.parametrize(("field", "value", "message"), BAD_LEVELS)
def test_impossible_levels(emulated, field, value, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        setattr(call.params, field, value)
        call.queue()  # not needed, so not looked at
        call.params.per_level = 1
        assert_refused(emulated, call, message)
        call.params.per_level = 0
        call.inputs.reg_logits, call.inputs.boxes, call.params.reg_max = call.inputs.boxes, None, 7
        assert_refused(emulated, call, message)


@pytest.mark.parametrize(("field", "value", "message"), BAD_DECODE)
def test_impossible_distributions(emulated, field, value, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory, **{"reg_max": 7, field: value})
        call.inputs.reg_logits, call.inputs.boxes = call.inputs.boxes, None
        assert_refused(emulated, call, message)


def test_impossible_pointers(emulated):
    with emulated.memory() as memory:
        for part, names in (("inputs", ["scores", "boxes"]), ("outputs", ["num_dets", "det_boxes", "det_scores"])):
            for name in names:
                call = small_call(emulated, memory)
                address = getattr(getattr(call, part), name)
                setattr(getattr(call, part), name, address + 4)
                assert_refused(emulated, call, f"{part}.{name} is at 0x")
                if name != "boxes":
                    setattr(getattr(call, part), name, None)
                    assert_refused(emulated, call, f"{part}.{name} is NULL, expected device memory")
        call = small_call(emulated, memory)
        call.inputs.quality = call.inputs.boxes + 4
        assert_refused(emulated, call, "inputs.quality is at")
        call.inputs.quality = None
        call.outputs.det_classes = None
        assert_refused(emulated, call, "outputs.det_classes is NULL")


def test_boxes_or_distributions_not_both(emulated):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        call.inputs.reg_logits = call.inputs.boxes
        assert_refused(emulated, call, "each of reg_logits and boxes is given: pass exactly one of them")
        call.inputs.reg_logits = call.inputs.boxes = None
        assert_refused(emulated, call, "none of reg_logits and boxes is given")
        call.inputs.reg_logits = call.inputs.scores + 4
        assert_refused(emulated, call, "inputs.reg_logits is at")


def test_a_workspace_that_is_not_enough(emulated):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        whole = call.workspace_size
        call.workspace_size -= 1
        assert_refused(emulated, call, f"workspace_size is {whole - 1}, expected {whole} bytes or more")
        call.workspace_size = whole
        call.workspace = None
        assert_refused(emulated, call, "workspace is NULL")


def test_no_structures(emulated):
    call_with = emulated.functions.gfl_nms
    params, part = ctypes.byref(nms_params(np.zeros((1, 1, 1), np.float32))), None
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        inputs = ctypes.byref(call.inputs)
        for arguments, name in (
            ((None, None, None), "params"),
            ((params, None, None), "inputs"),
            ((params, inputs, None), "outputs"),
        ):
            assert call_with(*arguments, part, 0, None) == INVALID_ARGUMENT
            assert emulated.last_error() == f"{name} is NULL"
    assert emulated.functions.gfl_nms_workspace_size(None) == 0
    assert emulated.functions.gfl_resize(None, None, None, None, None) == INVALID_ARGUMENT


CUDA_CALLS = [f"gfl_{name}_kernel" for name in ("filter", "rank", "suppress")]


@pytest.mark.parametrize(("number", "what"), list(enumerate(CUDA_CALLS)))
def test_failures_of_cuda(emulated, number, what):
    with emulated.memory() as memory:
        call = small_call(emulated, memory, per_level=1)
        emulated.functions.gfl_emulate_failure(number, 209)
        assert_refused(emulated, call, f"{what} failed: no kernel image is available", CUDA_ERROR)
        assert "nvcc -arch=native" in emulated.last_error()
        call.queue()
        assert emulated.last_error() == ""
