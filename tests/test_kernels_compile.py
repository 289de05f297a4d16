"""The CUDA kernels compile for every GPU that is meant: by NVRTC, as on a device without a toolkit, and by nvcc."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from benchmarks.kernel_library import PLUGINS, build_for_gpu, ptxas_report

KERNELS = {f"gfl_{name}_kernel" for name in ("filter", "select", "merge", "nms", "resize")}
NVRTC_TARGETS = [75, 80, 86, 87, 89, 90, 120]
SHARED_LIMIT = 48 << 10  # bytes of a block, on every GPU


@pytest.fixture(scope="module")
def nvrtc():
    module = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-python: pip install 'gfl-edge[rtx]'")
    try:
        status, *_ = module.nvrtcVersion()
    except RuntimeError as error:  # the bindings look for the library at the first call
        reason = f"no NVRTC library ({str(error).splitlines()[0]}); pip install nvidia-cuda-nvrtc"
        if os.environ.get("GFL_EDGE_REQUIRE_DATA") == "1":
            pytest.fail(f"GFL_EDGE_REQUIRE_DATA is set, but there is {reason}")
        pytest.skip(reason)
    assert status == module.nvrtcResult.NVRTC_SUCCESS
    return module


@pytest.mark.parametrize("target", NVRTC_TARGETS)
def test_nvrtc_needs_no_header_but_our_own(nvrtc, target):
    source = (PLUGINS / "src" / "gfl_kernels.cuh").read_bytes()
    header = (PLUGINS / "include" / "gfl_kernels.h").read_bytes()
    status, program = nvrtc.nvrtcCreateProgram(source, b"gfl_kernels.cu", 1, [header], [b"gfl_kernels.h"])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    (status,) = nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture=compute_{target}".encode()])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * (size + 1)  # of one byte, Python has a single object that it shares
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    assert not log.strip(b" \0\n")  # no warnings
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = b" " * (size + 1)
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(program)
    assert set(re.findall(r"\.entry (\w+)", ptx.decode())) == KERNELS


needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH; install the CUDA toolkit")


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_86"])
def test_no_register_spills(architecture, tmp_path):
    report = ptxas_report(architecture, tmp_path)
    assert set(report) == KERNELS
    for name, row in report.items():
        assert row["spill_store_bytes"] == row["spill_load_bytes"] == row["stack_bytes"] == 0, name
        assert row["registers"] <= 64, name  # a block of 1024 threads must fit on every GPU
    most = report["gfl_select_kernel"]["static_shared_bytes"] + 4096 * 8
    assert most <= SHARED_LIMIT


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
