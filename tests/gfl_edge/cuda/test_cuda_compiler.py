"""Compiling CUDA C++ at run time: the cache on a fake compiler, and NVRTC itself, which needs no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gfl_edge.cuda import compiler as compiler_module
from gfl_edge.cuda.compiler import CudaSource, Nvrtc, PycudaNvcc, compiled, inlined, open_compiler
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.files import cache_folder

SCALE = CudaSource(
    "scale.cu",
    '#include "scale.h"\nextern "C" __global__ void scale(float *values) { values[threadIdx.x] *= FACTOR; }\n',
    {"scale.h": "#define FACTOR 2.0f\n"},
)


class FakeCompiler:
    version = "Fake 1.0"
    options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.compiled: list[str] = []

    def compile(self, source: CudaSource, compute_capability: str) -> bytes:
        self.compiled.append(compute_capability)
        return f"{source.name} for {compute_capability}".encode()


@pytest.fixture
def compiler() -> FakeCompiler:
    return FakeCompiler()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


class TestCache:
    def test_compiles_once(self, compiler: FakeCompiler, cache: Path) -> None:
        for _ in range(2):
            assert compiled(SCALE, "sm75", compiler) == b"scale.cu for sm75"
        assert compiler.compiled == ["sm75"]
        assert [path.name[:11] for path in cache.iterdir()] == ["scale-sm75-"]

    @pytest.mark.usefixtures("cache")
    def test_what_makes_another_entry(self, compiler: FakeCompiler) -> None:
        compiled(SCALE, "sm75", compiler)
        compiled(SCALE, "sm86", compiler)
        compiled(CudaSource(SCALE.name, SCALE.text + " ", SCALE.headers), "sm75", compiler)
        compiled(CudaSource(SCALE.name, SCALE.text, {"scale.h": "#define FACTOR 3.0f\n"}), "sm75", compiler)
        compiler.version = "Fake 1.1"
        compiled(SCALE, "sm75", compiler)
        compiler.options = ("--fast",)
        compiled(SCALE, "sm75", compiler)
        assert len(compiler.compiled) == 6

    @pytest.mark.parametrize("content", [b"", b"short", b"x" * 100], ids=["empty", "cut", "foreign"])
    def test_a_damaged_entry_is_compiled_again(
        self, compiler: FakeCompiler, cache: Path, caplog: pytest.LogCaptureFixture, content: bytes
    ) -> None:
        compiled(SCALE, "sm75", compiler)
        (entry,) = cache.iterdir()
        entry.write_bytes(content)
        for _ in range(2):
            assert compiled(SCALE, "sm75", compiler) == b"scale.cu for sm75"
        assert len(compiler.compiled) == 2
        assert "damaged, compiling again" in caplog.text

    def test_a_folder_that_cannot_be_written(
        self, compiler: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "file"))
        for _ in range(2):
            assert compiled(SCALE, "sm75", compiler) == b"scale.cu for sm75"
        assert len(compiler.compiled) == 2
        assert "every start compiles again. Set GFL_EDGE_CACHE to a folder of yours" in caplog.text

    def test_where_it_lies(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("GFL_EDGE_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "gfl_edge"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "gfl_edge"

    def test_a_user_without_a_home_has_no_cache(self, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("GFL_EDGE_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(variable, raising=False)

        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(compiler_module.Path, "home", homeless)
        assert compiled(SCALE, "sm75", compiler) == b"scale.cu for sm75"

    def test_the_reason_of_a_failure_comes_through(self, compiler: FakeCompiler, cache: Path) -> None:
        def fail(source: CudaSource, compute_capability: str) -> bytes:
            raise BackendError("scale.cu(1): error")

        compiler.compile = fail  # type: ignore[method-assign]
        with pytest.raises(BackendError, match="error"):
            compiled(SCALE, "sm75", compiler)
        assert not cache.exists()


class TestNvrtc:
    @pytest.fixture
    def nvrtc(self) -> Nvrtc:
        try:
            return Nvrtc()
        except MissingDependencyError as error:
            pytest.skip(str(error))

    def test_compiles_machine_code(self, nvrtc: Nvrtc) -> None:
        assert nvrtc.version.startswith("NVRTC 1")
        image = nvrtc.compile(SCALE, "sm75")
        assert image.startswith(b"\x7fELF")
        assert b"scale" in image

    def test_an_empty_log_leaves_python_alone(self, nvrtc: Nvrtc) -> None:
        nvrtc.compile(SCALE, "sm75")  # without warnings: a log of one byte
        assert [bytes([value])[0] for value in range(256)] == list(range(256))

    def test_a_gpu_newer_than_the_compiler_gets_ptx(self, nvrtc: Nvrtc) -> None:
        assert b".target sm_" in nvrtc.compile(SCALE, "sm999")

    def test_a_gpu_older_than_the_compiler(self, nvrtc: Nvrtc) -> None:
        with pytest.raises(BackendError, match=r"compiles for sm\d+ and newer, this GPU is sm20\. Install an older"):
            nvrtc.compile(SCALE, "sm20")

    def test_errors_carry_the_log(self, nvrtc: Nvrtc) -> None:
        with pytest.raises(BackendError, match=r"(?s)NVRTC .* cannot compile bad\.cu for sm_75: bad\.cu\(1\).*FACTOR"):
            nvrtc.compile(CudaSource("bad.cu", "__device__ float f() { return FACTOR; }"), "sm75")


class FakeNvrtc(ModuleType):
    """``cuda.bindings.nvrtc`` whose library is missing."""

    nvrtcResult = SimpleNamespace(NVRTC_SUCCESS=0)  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.nvrtc")
        self.__file__ = "fake"

    def nvrtcVersion(self) -> Any:  # noqa: N802
        raise RuntimeError("Failed to dlopen libnvrtc.so.12")


class FakePycudaCompiler(ModuleType):
    """``pycuda.compiler``."""

    def __init__(self) -> None:
        super().__init__("pycuda.compiler")
        self.__file__ = "fake"
        self.asked: tuple[Any, ...] = ()
        self.error: Exception | None = None

    def get_nvcc_version(self, nvcc: str) -> str:
        if self.error:
            raise self.error
        return "nvcc: NVIDIA (R) Cuda compiler driver\nrelease 12.6\n"

    def compile(self, source: str, options: list[str], no_extern_c: bool, arch: str, cache_dir: bool) -> bytes:
        if self.error:
            raise self.error
        self.asked = (source, no_extern_c, arch, cache_dir)
        return b"\x7fELF"


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> FakePycudaCompiler:
    fake = FakePycudaCompiler()
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.compiler", fake)
    return fake


class TestPycudaNvcc:
    def test_compiles(self, pycuda: FakePycudaCompiler) -> None:
        compiler = PycudaNvcc()
        assert compiler.version == "nvcc nvcc: NVIDIA (R) Cuda compiler driver release 12.6"
        assert compiler.compile(SCALE, "sm87") == b"\x7fELF"
        source, *others = pycuda.asked
        assert source == inlined(SCALE)
        assert others == [True, "sm_87", False]

    def test_no_toolkit(self, pycuda: FakePycudaCompiler) -> None:
        pycuda.error = FileNotFoundError("nvcc")
        with pytest.raises(MissingDependencyError, match=r"nvcc.* does not run .*on PATH, or install NVRTC with: pip"):
            PycudaNvcc()

    def test_errors_carry_the_log(self, pycuda: FakePycudaCompiler) -> None:
        compiler = PycudaNvcc()
        pycuda.error = RuntimeError("nvcc compilation failed [stderr: FACTOR is undefined]")
        with pytest.raises(BackendError, match=r"nvcc cannot compile scale\.cu for sm_75: .*FACTOR is undefined"):
            compiler.compile(SCALE, "sm75")

    def test_headers_are_put_in_place(self) -> None:
        nested = CudaSource("a.cu", '#include "a.h"\n#include <b.h>\nend', {"a.h": '  #include "c.h"\n', "c.h": "c"})
        assert inlined(nested).split() == ["c", "#include", "<b.h>", "end"]


class TestOpenCompiler:
    @pytest.fixture(autouse=True)
    def _no_nvrtc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", FakeNvrtc())

    def test_pycuda_where_nvrtc_is_missing(self, pycuda: FakePycudaCompiler) -> None:
        assert open_compiler().version.startswith("nvcc")

    def test_neither(self, pycuda: FakePycudaCompiler) -> None:
        pycuda.error = FileNotFoundError("nvcc")
        message = r"NVRTC, .*is not installed \(Failed to dlopen libnvrtc\.so\.12\)\. .*pip install 'gfl-edge\[rtx\]'"
        with pytest.raises(MissingDependencyError, match=message):
            open_compiler()

    def test_no_cuda_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("cuda.bindings.nvrtc", "cuda.nvrtc", "pycuda.compiler"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError, match=r"cuda\.bindings\.nvrtc.*pip install 'gfl-edge\[rtx\]'"):
            open_compiler()
