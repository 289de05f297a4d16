"""The CUDA kernels compile for every GPU that is meant: by NVRTC, as on a device without a toolkit, and by nvcc."""

from __future__ import annotations

import functools
import logging
import re
import shutil
import subprocess

import pytest

from benchmarks.kernels.library import PLUGINS, build_for_gpu, ptxas_report
from gfl_edge.cuda.kernels import kernel_source
from gfl_edge.cuda.nvrtc import Nvrtc
from gfl_edge.errors import MissingDependencyError
from tests.support.required import skip_unless_required

KERNELS = {f"gfl_{name}_kernel" for name in ("filter", "rank", "suppress", "sigma", "resize")}
ALL_TARGETS = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121]
QUICK = (75, 120)
TARGETS = [target if target in QUICK else pytest.param(target, marks=pytest.mark.slow) for target in ALL_TARGETS]
# 64 where a block of 1024 threads has to fit on every GPU; blocks of 128 threads fit four times with 128
MAX_REGISTERS = {"gfl_sigma_kernel": 128}
SHARED_LIMIT = 48 << 10  # bytes of a block, on every GPU


@pytest.fixture(scope="module")
def nvrtc():
    try:
        return Nvrtc()
    except MissingDependencyError as error:
        skip_unless_required(str(error))


@pytest.mark.parametrize("target", TARGETS)
def test_nvrtc_needs_no_header_but_our_own(nvrtc, target, caplog):
    target = f"sm{target}"
    with caplog.at_level(logging.DEBUG):
        image = nvrtc.compile(kernel_source(), target)
    assert not caplog.messages  # no warnings
    assert image.startswith(b"\x7fELF")
    assert {name.decode() for name in re.findall(rb"\.text\.(\w+)", image)} == KERNELS


@functools.cache
def known_to_nvcc():
    return subprocess.run(["nvcc", "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout


needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH; install the CUDA toolkit")


@needs_nvcc
@pytest.mark.parametrize("target", TARGETS)
def test_no_register_spills(target, tmp_path):
    if f"compute_{target}\n" not in known_to_nvcc():
        pytest.skip(f"this nvcc does not compile for sm_{target}")
    report = ptxas_report(f"sm_{target}", tmp_path)
    assert set(report) == KERNELS
    for name, row in report.items():
        assert row["spill_store_bytes"] == row["spill_load_bytes"] == row["stack_bytes"] == 0, name
        assert row["registers"] <= MAX_REGISTERS.get(name, 64), name
        assert row["static_shared_bytes"] <= SHARED_LIMIT


@needs_nvcc
def test_only_places_are_computed_in_doubles(tmp_path):
    """Most GPUs do one in the time of 32 or 64 others: by some threads of a block that resizes, for all of them."""
    words = ["nvcc", "-std=c++17", "-arch=compute_75", "-ptx", "-I", str(PLUGINS / "include"), "-x", "cu"]
    subprocess.run([*words, str(PLUGINS / "src/gfl_kernels.cuh"), "-o", str(tmp_path / "all.ptx")], check=True)
    text = (tmp_path / "all.ptx").read_text()
    doubles = {re.match(r"\w+", part)[0]: part.count(".f64") for part in text.split(".entry ")[1:]}
    assert 0 < doubles.pop("gfl_resize_kernel") <= 60
    assert not any(doubles.values())


@needs_nvcc
def test_the_library_exports_its_interface(tmp_path):
    library = build_for_gpu(tmp_path, "sm_86").read_bytes()
    header = (PLUGINS / "include" / "gfl_kernels.h").read_text()
    functions = re.findall(r"^(?:size_t|GflStatus|const char \*)\s?(gfl_\w+)\(", header, re.MULTILINE)
    assert sorted(functions) == ["gfl_last_error", "gfl_nms", "gfl_nms_workspace_size", "gfl_resize"]
    for name in functions:
        assert name.encode() in library


def test_the_header_is_c(tmp_path):
    """It is included by C++ and by C programs."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler (gcc)")
    program = tmp_path / "header.c"
    program.write_text('#include "gfl_kernels.h"\nint fields[sizeof(GflNmsParams) == 96 ? 1 : -1];\n')
    include = str(PLUGINS / "include")
    words = [
        "gcc",
        "-std=c99",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        include,
        "-fsyntax-only",
        str(program),
    ]
    subprocess.run(words, check=True)
