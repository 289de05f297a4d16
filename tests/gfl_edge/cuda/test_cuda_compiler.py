"""Compiling CUDA C++ at run time: the cache on a fake compiler, and NVRTC itself, which needs no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gfl_edge.cuda import compiler as compiler_module
from gfl_edge.cuda import nvrtc as nvrtc_module
from gfl_edge.cuda.compiler import PycudaNvcc, compiled, inlined, open_compiler
from gfl_edge.cuda.nvrtc import Nvrtc
from gfl_edge.cuda.source import CudaSource
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


class TestWhichNvrtc:
    """Of the versions that are installed, the newest that the driver can follow."""

    @pytest.fixture
    def loaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Libraries that were loaded; there are packages of CUDA 12 and 13 and 14."""
        for folder, name in (
            ("nvidia/cuda_nvrtc/lib", "libnvrtc.so.12"),
            ("nvidia/cuda_nvrtc/lib", "libnvrtc.alt.so.12"),
            ("nvidia/cuda_nvrtc/lib", "libnvrtc-builtins.so.12.9"),
            ("nvidia/cu13/lib", "libnvrtc.so.13"),
            ("nvidia/cu14/lib", "libnvrtc.so.14"),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
        monkeypatch.setattr(nvrtc_module.importlib.util, "find_spec", lambda name: spec)
        found: list[str] = []

        def load(library: str) -> Any:
            if not library.startswith(str(tmp_path)):
                raise OSError(f"{library}: cannot open shared object file")
            found.append(Path(library).name)

        monkeypatch.setattr(nvrtc_module.ctypes, "CDLL", load)
        return found

    @pytest.mark.parametrize(
        ("driver", "library"),
        [("12.6", "libnvrtc.so.12"), ("13.0", "libnvrtc.so.13"), (None, "libnvrtc.so.14"), ("15.1", "libnvrtc.so.14")],
    )
    def test_the_newest_that_fits(self, loaded: list[str], driver: str | None, library: str) -> None:
        nvrtc_module._load(driver)
        assert loaded == [library]

    @pytest.mark.parametrize(
        ("driver", "package"), [("12.6", "nvidia-cuda-nvrtc-cu12"), ("13.0", r"'nvidia-cuda-nvrtc==13\.\*'")]
    )
    def test_only_newer_ones(self, loaded: list[str], tmp_path: Path, driver: str, package: str) -> None:
        for older in ("cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.so.13"):
            (tmp_path / "nvidia" / older).unlink()
        message = (
            rf"only for a newer CUDA \(libnvrtc\.so\.14\) than that of the driver, {driver}\. .* pip install {package}$"
        )
        with pytest.raises(MissingDependencyError, match=message):
            nvrtc_module._load(driver)

    def test_one_that_does_not_load_is_passed_over(self, loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        load = nvrtc_module.ctypes.CDLL

        def fail(library: str) -> Any:
            if "so.14" in library:
                raise OSError("wrong ELF class")
            return load(library)

        monkeypatch.setattr(nvrtc_module.ctypes, "CDLL", fail)
        nvrtc_module._load(None)
        assert loaded == ["libnvrtc.so.13"]


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
        monkeypatch.setattr(nvrtc_module, "_candidates", lambda: [(13, "libnvrtc.so.none")])

    def test_pycuda_where_nvrtc_is_missing(self, pycuda: FakePycudaCompiler) -> None:
        assert open_compiler("13.0").version.startswith("nvcc")

    def test_neither(self, pycuda: FakePycudaCompiler) -> None:
        pycuda.error = FileNotFoundError("nvcc")
        message = r"NVRTC, .*is not installed\. Install it with: pip install 'gfl-edge\[rtx\]'"
        for driver in (None, "13.0", "12.6"):
            with pytest.raises(MissingDependencyError, match=message):
                open_compiler(driver)
