"""The plugin in C++: compiled against TensorRT's headers, and run by a stand-in for TensorRT with emulated kernels.

TENSORRT_INCLUDE_DIR names the folder of NvInfer.h, or several, separated as in PATH. No library of TensorRT is needed.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernels.library import cached_emulation
from export.plugin import plugin_attributes
from gfl_edge.ops import decode
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.postprocess import detections_from_raw, sigmoid
from tests.support.emulated_kernels import library as emulated_kernels
from tests.support.raw_maps import SPEC as RAW_SPEC
from tests.support.raw_maps import random_maps
from tests.support.sigma_oracle import expected

CHECKOUT = Path(__file__).resolve().parents[2]
PLUGIN = CHECKOUT / "plugins" / "tensorrt" / "gfl_nms_plugin.cpp"
SPEC = replace(RAW_SPEC, nms="plugin")
TYPE_OF = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 3}  # TensorRT's DataType
FLOAT32_FIELD, INT32_FIELD = 1, 5  # TensorRT's PluginFieldType


class Field(ctypes.Structure):
    """TensorRT's PluginField."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class Tensor(ctypes.Structure):
    """Tensor of plugin_host.cpp."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
    )


def headers():
    """Folders of NvInfer.h, or one None: a test without any says why it is skipped."""
    return [Path(word) for word in os.environ.get("TENSORRT_INCLUDE_DIR", "").split(os.pathsep) if word] or [None]


def cuda_headers():
    homes = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")), *sorted(Path("/usr/local").glob("cuda-*"))]
    return next((home / "include" for home in homes if (home / "include" / "cuda_runtime_api.h").is_file()), None)


@pytest.fixture(scope="module", params=headers(), ids=lambda folder: folder.parent.name if folder else "headers")
def compiled(request, tmp_path_factory):
    """The plugin and the stand-in for TensorRT as one library, linked with the emulated kernels and nothing else."""
    if request.param is None:
        pytest.skip("TENSORRT_INCLUDE_DIR is not set: the folder of TensorRT's NvInfer.h")
    if not (request.param / "NvInfer.h").is_file():
        pytest.fail(f"TENSORRT_INCLUDE_DIR: there is no NvInfer.h in {request.param}")
    if cuda_headers() is None or shutil.which("g++") is None:
        pytest.skip("no CUDA headers or no g++: install the CUDA toolkit or set CUDA_HOME")
    emulated_kernels()
    kernels, out = cached_emulation(), tmp_path_factory.mktemp("plugin") / "libplugin_host.so"
    words = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-fPIC"]
    words += ["-fvisibility=hidden", "-shared", "-Wl,--no-undefined", f"-I{CHECKOUT / 'plugins' / 'include'}"]
    words += ["-isystem", str(request.param), "-isystem", str(cuda_headers())]
    words += [
        str(PLUGIN),
        str(CHECKOUT / "tests" / "support" / "plugin_host.cpp"),
        str(kernels),
        f"-Wl,-rpath,{kernels.parent}",
    ]
    result = subprocess.run([*words, "-o", str(out)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(out))


def asked_for(compiled):
    text = ctypes.create_string_buffer(4096)
    compiled.attribute_names(text, ctypes.c_size_t(len(text)))
    return text.value.decode().split()


def as_fields(compiled, attributes):
    """What TensorRT's ONNX parser makes of a node's attributes: the fields that the creator names, 32 bits wide."""
    fields, kept = [], []
    for name in asked_for(compiled):
        if name in attributes:
            values = np.atleast_1d(attributes[name])
            kept.append(np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else np.int32))
            kind = FLOAT32_FIELD if values.dtype.kind == "f" else INT32_FIELD
            fields.append(Field(name.encode(), kept[-1].ctypes.data, kind, len(kept[-1])))
    return (Field * len(fields))(*fields), kept


def as_tensor(array):
    assert array.flags.c_contiguous
    return Tensor(array.ctypes.data, TYPE_OF[array.dtype], array.ndim, (ctypes.c_int64 * 4)(*array.shape))


def aligned(array):
    """A copy at a multiple of 256 bytes, as device memory is."""
    block = np.empty(array.nbytes + 256, np.uint8)
    start = -block.ctypes.data % 256
    found = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def run(compiled, attributes, inputs, max_detections=SPEC.max_detections):
    """Status, log and outputs by name of the plugin."""
    batch = len(inputs[0])
    outputs = {
        "num_dets": aligned(np.full((batch, 1), -7, np.int32)),
        "det_boxes": aligned(np.full((batch, max_detections, 4), -7, np.float32)),
        "det_scores": aligned(np.full((batch, max_detections), -7, np.float32)),
        "det_classes": aligned(np.full((batch, max_detections), -7, np.int32)),
    }
    if attributes.get("edge_sigma") == 1 and attributes.get("reg_max"):
        outputs["det_sigmas"] = aligned(np.full((batch, max_detections, 4), -7, np.float32))
    given = [aligned(np.ascontiguousarray(array)) for array in inputs]
    fields, _kept = as_fields(compiled, attributes)
    arrays = [as_tensor(array) for array in (*given, *outputs.values())]
    log = ctypes.create_string_buffer(4096)
    room = ctypes.c_size_t(len(log))
    tensors = (Tensor * len(arrays))(*arrays)
    status = compiled.run_plugin(fields, len(fields), tensors, len(given), len(outputs), log, room)
    return status, log.value.decode(), outputs


def assert_detections(outputs, index, expected):
    boxes, scores, classes = expected[:3]
    count = len(scores)
    assert 0 < count == outputs["num_dets"][index, 0]
    np.testing.assert_allclose(outputs["det_scores"][index, :count], scores, atol=1e-6)
    np.testing.assert_allclose(outputs["det_boxes"][index, :count], boxes, atol=1e-3)
    np.testing.assert_array_equal(outputs["det_classes"][index, :count], classes)
    assert (outputs["det_classes"][index, count:] == -1).all()
    assert not outputs["det_scores"][index, count:].any()


def test_the_exporter_and_the_plugin_know_the_same_attributes(compiled):
    all_attributes = plugin_attributes(replace(SPEC, edge_sigma=True)).keys()
    assert set(asked_for(compiled)) == all_attributes - {"plugin_version", "plugin_namespace"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_raw_maps(compiled, dtype):
    maps = [random_maps(seed, dtype=dtype) for seed in (1, 2)]
    inputs = [np.stack(arrays) for arrays in zip(*maps, strict=True)]
    status, log, outputs = run(compiled, plugin_attributes(SPEC), inputs)
    assert (status, log) == (0, "")
    for index, (cls, reg) in enumerate(maps):
        assert_detections(outputs, index, detections_from_raw(cls, reg, SPEC, SPEC.input_hw))


def test_sigmas(compiled):
    spec = replace(SPEC, edge_sigma=True)
    maps = [random_maps(seed) for seed in (1, 2)]
    status, log, outputs = run(
        compiled, plugin_attributes(spec), [np.stack(arrays) for arrays in zip(*maps, strict=True)]
    )
    assert (status, log) == (0, "")
    for index, (cls, reg) in enumerate(maps):
        *found, sigmas = expected(cls, reg, spec)
        assert_detections(outputs, index, found)
        np.testing.assert_allclose(outputs["det_sigmas"][index, : len(sigmas)], sigmas, rtol=1e-4, atol=1e-3)
        assert not outputs["det_sigmas"][index, len(sigmas) :].any()


@pytest.mark.parametrize("score_dtype", [np.float32, np.float16])
@pytest.mark.parametrize("has_quality", [0, 1])
def test_boxes_and_scores_with_the_attributes_of_the_function(compiled, score_dtype, has_quality):
    cls, reg = random_maps(3)
    boxes = decode.decode(reg, SPEC.input_hw, SPEC.strides, SPEC.point_offset)
    scores = sigmoid(cls).astype(score_dtype)
    quality = np.random.default_rng(0).uniform(0.2, 1, len(cls)).astype(score_dtype)
    names = ("score_threshold", "iou_threshold", "max_candidates", "max_detections")
    rule = {name: getattr(SPEC, name) for name in names}
    inputs = [boxes[None], scores[None], *([quality[None]] if has_quality else [])]
    status, log, outputs = run(compiled, {**rule, "has_quality": has_quality}, inputs)
    assert (status, log) == (0, "")
    joint = scores.astype(np.float32) * (quality.astype(np.float32)[:, None] if has_quality else 1)
    assert_detections(outputs, 0, multiclass_nms(boxes, joint, **rule))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iou_threshold": None}, "attribute iou_threshold is missing. Export the model again"),
        ({"max_candidates": 5000}, "max_candidates is 5000, expected 1..4096"),
        ({"score_threshold": 2.0}, "score_threshold is 2, expected 0..1"),
        ({"score_threshold": 1}, "attribute score_threshold has 1 values of type 5, expected 1 to 1 of type 1"),
        ({"max_detections": [1, 2]}, "attribute max_detections has 2 values"),
        ({"strides": [8] * 9}, "attribute strides has 9 values of type 5, expected 1 to 8"),
        ({"strides": [8, 0]}, "strides[1] is 0, expected 1 or more"),
        ({"reg_max": 40}, "reg_max is 40, expected 1 to 32"),
        ({"input_height": 0}, "2 strides and an input of 0 x 64 pixels: expected all of them"),
        ({"input_height": 128}, "120 anchors, but an input of 128 x 64 pixels has 160 at its strides"),
        ({"reg_max": 15}, "expected [N, A, C] of scores and [N, A, 64]"),
        ({"has_quality": 1}, "expected 2 inputs, or 3 with has_quality, and 4 outputs, or 5 with edge_sigma"),
        ({"has_quality": 2}, "has_quality 2, expected 0 or 1"),
        ({"edge_sigma": 2}, "edge_sigma is 2 with reg_max 7, expected 0, or 1 with the reg_max of distributions"),
        ({"edge_sigma": 1, "reg_max": 0}, "edge_sigma is 1 with reg_max 0"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_build(compiled, changes, message):
    attributes = {name: value for name, value in {**plugin_attributes(SPEC), **changes}.items() if value is not None}
    status, log, _ = run(compiled, attributes, [array[None] for array in random_maps(0)])
    assert 1 <= status <= 8
    assert message in log
    assert log.startswith("GflNms: ")


ONE_GPU = "-DCMAKE_CUDA_ARCHITECTURES=75"


def configure(folder, *options):
    words = ["cmake", "-S", str(CHECKOUT / "plugins"), "-B", str(folder), *options]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def cmake():
    for program in ("cmake", "nvcc"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")


@pytest.mark.slow
@pytest.mark.parametrize("include", headers(), ids=lambda folder: folder.parent.name if folder else "headers")
@pytest.mark.usefixtures("cmake")
def test_cmake_builds_both_libraries_without_a_symbol_of_tensorrt(include, tmp_path):
    if include is None:
        pytest.skip("TENSORRT_INCLUDE_DIR is not set: the folder of TensorRT's NvInfer.h")
    result = configure(tmp_path, ONE_GPU, f"-DTENSORRT_INCLUDE_DIR={include}")
    assert "Plugin: for TensorRT 1" in result.stdout
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True, capture_output=True)
    for name, symbol in (("libgfl_kernels.so", "gfl_nms"), ("libgfl_edge_plugin.so", "getCreators")):
        listed = subprocess.run(["nm", "-D", str(tmp_path / name)], check=True, capture_output=True, text=True).stdout
        assert f" T {symbol}\n" in listed
        assert "getPluginRegistry" not in listed
        assert " U cuda" not in listed


@pytest.mark.slow
@pytest.mark.usefixtures("cmake")
def test_cmake_says_what_it_does_not_find(tmp_path):
    result = configure(tmp_path, ONE_GPU, "-DTENSORRT_ROOT=/nowhere", "-DCMAKE_FIND_ROOT_PATH=/nowhere")
    if "Plugin: for TensorRT" in result.stdout:
        pytest.skip("TensorRT's headers are installed here")
    assert result.returncode != 0
    assert "TENSORRT_ROOT is /nowhere" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("cmake")
def test_cmake_builds_for_every_gpu_that_nvcc_knows(tmp_path):
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
    known = [int(word.removeprefix("compute_")) for word in listed.split()]
    newer = {number for number in known if number >= 75}
    result = configure(tmp_path)
    built = re.search(r"Kernels for: (.*)", result.stdout)[1].split(";")
    assert {int(name.removesuffix("-real")) for name in built if name.endswith("-real")} == newer
    assert [name for name in built if name.endswith("-virtual")] == [f"{min(newer)}-virtual", f"{max(newer)}-virtual"]
