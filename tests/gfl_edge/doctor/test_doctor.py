"""gfl-edge doctor, on machines of every kind."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest

from gfl_edge import doctor, optional
from gfl_edge.cli import main as cli
from gfl_edge.doctor import gpu, jetson, opencv, packages, python, trial
from gfl_edge.doctor.findings import Finding, Report, guarded
from gfl_edge.doctor.packages import Package
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.media.opencv import build_information

ON_CPU = tuple(Finding("", name, "ok", "") for name in ("image", "detection by openvino"))


def broken(error: Exception) -> None:
    raise error


def only(findings: list[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


class TestReport:
    @pytest.mark.parametrize("missing", ["image", "detection by openvino"])
    def test_what_the_cpu_needs(self, missing) -> None:
        assert Report(ON_CPU).ways == ("ONNX files by openvino",)
        assert Report(tuple(finding for finding in ON_CPU if finding.name != missing)).ways == ()

    def test_engines_need_no_onnx(self) -> None:
        engines = Finding("GPU", "tensorrt_rtx", "ok", "", runs=True)
        assert Report((*ON_CPU[:1], engines)).ways == ("engines by tensorrt_rtx",)
        assert Report((engines,)).ways == ()

    def test_a_library_that_only_builds_is_no_way(self) -> None:
        assert Report((*ON_CPU[:1], Finding("GPU", "tensorrt_rtx", "ok", "builds for sm75"))).ways == ()

    def test_text(self) -> None:
        findings = (Finding("A", "x", "ok", "1.0"), Finding("A", "long", "missing", "why", "pip install long"))
        assert str(Report(findings)).splitlines() == [
            "A",
            "  ok       x     1.0",
            "  missing  long  why",
            "           -> pip install long",
            "",
            "no detector runs here yet: fix what is named above; pip install 'gfl-edge[cpu,opencv]' is the shortest "
            "way where OpenCV is not part of the system",
        ]
        assert str(Report(ON_CPU)).endswith("\ndetectors run here: ONNX files by openvino")

    def test_a_probe_that_fails_is_a_finding(self) -> None:
        (found,) = guarded("GPU", lambda: broken(OSError("libx.so: undefined symbol")))
        assert (found.status, found.detail) == ("problem", "OSError: libx.so: undefined symbol")


class TestCommand:
    def test_this_machine(self, capsys) -> None:
        assert cli.main(["doctor", "--json"]) == 0  # the tests themselves need OpenVINO
        report = json.loads(capsys.readouterr().out)
        assert report["runs"]
        assert {"Python", "CPU", "OpenCV", "Trial", "GPU", "Tools"} <= {
            finding["section"] for finding in report["findings"]
        }
        for finding in report["findings"]:
            assert finding["status"] == "ok" or finding["remedy"], finding

    def test_a_machine_where_nothing_works(self, monkeypatch, capsys) -> None:
        for module in (python, packages, opencv, trial, gpu):
            for name in ("examine", "examine_cpu", "examine_tools"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, lambda **_: broken(RuntimeError("no")))
        monkeypatch.setattr(jetson, "read_board", lambda: broken(RuntimeError("no")))
        assert cli.main(["doctor"]) == 1
        out = capsys.readouterr().out
        assert out.count("RuntimeError: no") == 7
        assert "no detector runs here yet" in out


class TestPython:
    def test_old(self) -> None:
        found = python.interpreter((3, 9))
        assert found.status == "problem"
        assert "3.10 or newer" in found.detail

    def test_cache(self, tmp_path) -> None:
        assert python.cache(tmp_path / "not" / "there" / "yet").status == "ok"
        (tmp_path / "file").touch()
        assert python.cache(tmp_path / "file" / "below").status == "problem"
        assert "GFL_EDGE_CACHE" in python.cache(None).remedy


class TestPackages:
    def test_missing(self) -> None:
        found = packages.loaded("CPU", Package("no_such_module", "nothing", ("none",), "cpu"))
        assert (found.status, found.remedy) == ("missing", "pip install 'gfl-edge[cpu]'")

    def test_installed(self) -> None:
        found = packages.loaded("CPU", packages.CPU[0])
        assert found.status == "ok"
        assert found.detail.partition(":")[0] == __import__("numpy").__version__

    @pytest.mark.parametrize("error", [ImportError("libx.so"), OSError("libx.so"), KeyError("libx.so")])
    def test_broken(self, error, monkeypatch) -> None:
        monkeypatch.setattr(packages.optional.importlib, "import_module", lambda module: broken(error))
        found = packages.loaded("CPU", packages.CPU[1])
        assert (found.status, found.remedy) == ("problem", "pip install --force-reinstall onnx")
        assert found.detail == f"does not load: {type(error).__name__}: {error}"
        assert "apt install libgl1" in packages.loaded("OpenCV", opencv.CV2).remedy

    def test_stubs_are_no_library(self, monkeypatch) -> None:
        monkeypatch.setattr(packages.optional.importlib, "import_module", lambda module: SimpleNamespace())
        found = packages.loaded("CPU", packages.CPU[1])
        assert (found.status, found.remedy) == ("missing", "pip install 'gfl-edge[cpu]'")

    def test_without_metadata_the_module_says_its_version(self, monkeypatch) -> None:
        """As TensorRT from JetPack's Debian packages."""
        monkeypatch.setitem(sys.modules, "tensorrt_of_jetpack", SimpleNamespace(__version__="10.3.0", __spec__=True))
        monkeypatch.setattr(packages.optional, "load", sys.modules.__getitem__)
        found = packages.loaded("GPU", Package("tensorrt_of_jetpack", "TensorRT", ("none-of-that-name",)))
        assert (found.status, found.detail) == ("ok", "10.3.0: TensorRT")

    def test_tools_are_not_imported(self, monkeypatch) -> None:
        monkeypatch.setattr(packages.optional, "load", lambda module: broken(AssertionError(module)))
        assert {finding.status for finding in packages.examine_tools()} <= {"ok", "missing"}


BUILD = """
  GUI:                           {gui}
    GTK+:                        YES (ver 3.24.33)
  Video I/O:
    FFMPEG:                      YES
      avcodec:                   YES (58.134.100)
    GStreamer:                   {gstreamer}
    v4l/v4l2:                    YES (linux/videodev2.h)
"""


class TestOpenCV:
    @pytest.fixture
    def found(self, monkeypatch):
        def examine(gui="GTK3", gstreamer="YES (1.20.3)"):
            cv2 = SimpleNamespace(getBuildInformation=lambda: BUILD.format(gui=gui, gstreamer=gstreamer))
            monkeypatch.setattr(opencv, "loaded", lambda *_: Finding("OpenCV", "cv2", "ok", "4.10"))
            monkeypatch.setattr(optional, "load", lambda module: cv2)
            return opencv.examine()

        return examine

    def test_back_ends(self, found) -> None:
        assert only(found(), "GStreamer").detail.startswith("1.20.3: pipelines")
        assert {only(found(), name).status for name in ("FFMPEG", "v4l/v4l2")} == {"ok"}
        without = only(found(gstreamer="NO"), "GStreamer")
        assert without.status == "missing"
        assert "apt install python3-opencv" in without.remedy

    def test_headless(self, found) -> None:
        assert "headless" in only(found(gui="NONE"), "window").detail

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays of Linux")
    def test_display(self, found, monkeypatch) -> None:
        monkeypatch.setenv("DISPLAY", ":0")
        assert only(found(), "window").status == "ok"
        for name in opencv.SHOWN_BY:
            monkeypatch.delenv(name, raising=False)
        assert "--headless" in only(found(), "window").remedy

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices of Linux")
    def test_cameras(self, tmp_path, monkeypatch) -> None:
        assert opencv.cameras(tmp_path)[0].status == "missing"
        (tmp_path / "video0").touch()
        assert opencv.cameras(tmp_path)[0].detail == "video0"
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert "usermod -aG video" in opencv.cameras(tmp_path)[0].remedy

    def test_jetson_takes_its_own(self, monkeypatch) -> None:
        gone = Finding("OpenCV", "cv2", "missing", "", "pip install opencv-python")
        monkeypatch.setattr(opencv, "loaded", lambda *_: gone)
        assert opencv.examine(on_jetson=True)[0].remedy.startswith(
            "sudo apt install python3-opencv, for an environment"
        )

    def test_without_opencv(self, monkeypatch) -> None:
        gone = Finding("OpenCV", "cv2", "missing", "", "pip install opencv-python")
        monkeypatch.setattr(opencv, "loaded", lambda *_: gone)
        assert opencv.examine() == [gone]

    def test_the_installed_one_can_be_parsed(self) -> None:
        pytest.importorskip("cv2")
        assert {"GUI", "FFMPEG", "GStreamer"} <= build_information().keys()


class TestGpu:
    @pytest.fixture
    def machine(self, monkeypatch, tmp_path):
        """A machine with that GPU, or that error in its place, and that TensorRT of each flavor."""

        def examine(device, driver="", on_jetson=False, tensorrt="10.13.3", rtx="1.7.1"):
            def open_device():
                if isinstance(device, Exception):
                    raise device
                return SimpleNamespace(name="RTX", compute_capability=device, driver_version="13.0")

            def load(module):
                version = {"tensorrt": tensorrt, "tensorrt_rtx": rtx}[module]
                if not version:
                    raise MissingDependencyError(f"{module} cannot be imported")
                return SimpleNamespace(__version__=version)

            def loaded(section, package):
                wanted = {"tensorrt": tensorrt, "tensorrt_rtx": rtx}.get(package.module, "13.4")
                status = "ok" if wanted else "missing"
                return Finding(section, package.module, status, package.use, "" if wanted else package.install)

            monkeypatch.setattr(gpu, "open_device", open_device)
            monkeypatch.setattr(gpu, "loaded", loaded)
            monkeypatch.setattr(gpu.optional, "load", load)
            monkeypatch.setattr(gpu, "rtx_targets", lambda: ("sm75", "sm86"))
            monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
            if driver:
                (tmp_path / "version").write_text(driver)
            return gpu.examine(on_jetson)

        return examine

    def test_a_geforce(self, machine) -> None:
        found = machine(
            "sm75", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC version: 13"
        )
        assert only(found, "driver").detail == "580.95.05"
        assert only(found, "device").detail == "RTX, sm75, CUDA up to 13.0"
        assert only(found, "tensorrt_rtx").detail == "1.7.1; builds for sm75 sm86; runs on sm75"
        assert only(found, "tensorrt").detail == "10.13.3; builds for and runs on sm75"
        assert [finding.name for finding in found if finding.runs] == ["tensorrt", "tensorrt_rtx"]

    def test_a_gpu_that_rtx_does_not_know(self, machine) -> None:
        found = only(machine("sm90", tensorrt=""), "tensorrt_rtx")
        assert found.detail.endswith("does not run on sm90, take full TensorRT")
        assert not found.runs

    def test_no_driver(self, machine) -> None:
        found = machine(BackendError("no NVIDIA driver found (libcuda.so). Install the driver, or run the .onnx"))
        assert only(found, "driver").status == "missing"
        assert only(found, "device").detail == "no NVIDIA driver found (libcuda.so)"
        assert "ubuntu-drivers install" in only(found, "device").remedy
        assert only(found, "tensorrt_rtx").detail.endswith("runs on none, there is no GPU here")
        assert only(found, "tensorrt").detail.endswith("builds and runs nothing without a GPU")
        assert not any(finding.runs for finding in found)

    def test_a_driver_that_finds_no_gpu(self, machine) -> None:
        found = machine(BackendError("the NVIDIA driver finds no GPU"), "NVRM version: something else\n")
        assert only(found, "driver").detail == "NVRM version: something else"
        assert only(found, "device").status == "problem"
        assert "nvidia-smi" in only(found, "device").remedy

    def test_a_driver_that_only_cuda_sees(self, machine) -> None:
        assert only(machine("sm86"), "driver").detail == "of CUDA 13.0"

    def test_no_library_to_ask_with(self, machine) -> None:
        found = only(machine(MissingDependencyError("neither cuda-python nor pycuda")), "device")
        assert (found.status, found.remedy) == ("missing", "pip install 'gfl-edge[rtx]'")

    def test_a_library_that_breaks(self, machine) -> None:
        assert only(machine(AttributeError("cuInit")), "device").detail == "cuInit"

    def test_old_versions(self, machine) -> None:
        found = machine("sm75", tensorrt="8.6.1", rtx="1.3.0")
        assert only(found, "tensorrt").remedy == "pip install --upgrade 'tensorrt>=10.3'"
        assert only(found, "tensorrt_rtx").remedy == "pip install --upgrade 'tensorrt-rtx-cu13>=1.4'"
        assert {only(found, name).status for name in ("tensorrt", "tensorrt_rtx")} == {"problem"}
        assert only(machine("sm87", on_jetson=True, tensorrt="8.6.2"), "tensorrt").remedy.startswith(
            "update to JetPack"
        )

    def test_jetson_takes_its_own_tensorrt(self, machine) -> None:
        found = machine("sm87", on_jetson=True, tensorrt="", rtx="")
        assert only(found, "tensorrt").remedy.startswith("sudo apt install nvidia-jetpack, for an environment of: ")
        assert "tensorrt_rtx" not in {finding.name for finding in found}  # it does not support Jetson

    @pytest.mark.parametrize(("jetpack", "extra"), [("6.2", "jetson6"), ("7.0", "jetson7"), ("", "jetson6")])
    def test_jetson_gets_what_fits_its_cuda(self, machine, monkeypatch, jetpack, extra) -> None:
        monkeypatch.setattr(gpu, "read_board", lambda: jetson.Board("Jetson", "", jetpack))
        monkeypatch.setattr(gpu, "open_compiler", lambda driver: broken(MissingDependencyError("no NVRTC")))
        found = machine(MissingDependencyError("neither cuda-python nor pycuda"), on_jetson=True)
        for name in ("device", "compiler"):
            assert only(found, name).remedy == f"pip install 'gfl-edge[{extra}]'"

    def test_no_compiler(self, machine, monkeypatch) -> None:
        monkeypatch.setattr(gpu, "open_compiler", lambda driver: broken(MissingDependencyError("no NVRTC")))
        assert only(machine("sm75"), "compiler").status == "missing"

    def test_a_compiler_that_is_too_new_for_the_driver(self, machine, monkeypatch) -> None:
        def refuse(driver: str) -> None:
            assert driver == "13.0"
            raise MissingDependencyError("install the one that fits: pip install nvidia-cuda-nvrtc-cu12")

        monkeypatch.setattr(gpu, "open_compiler", refuse)
        assert only(machine("sm75"), "compiler").remedy == "pip install nvidia-cuda-nvrtc-cu12"

    def test_one_library_of_two_is_enough(self, machine, monkeypatch) -> None:
        both = machine("sm75")
        assert {"cuda.bindings", "pycuda"} <= {finding.name for finding in both}
        monkeypatch.setattr(
            *(gpu, "_cuda_package"),
            lambda package, on_jetson: Finding(
                "GPU", package.module, "ok" if package.module == "cuda" else "missing", ""
            ),
        )
        assert "pycuda" not in {finding.name for finding in gpu.examine(False)}


RELEASE = (
    "# R{} (release), REVISION: {}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Fri Aug 7 05:54:22 AM UTC 2026\n"
)
MODEL = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"
STATUS = """Package: nvidia-jetpack-dev
Status: install ok installed
Version: 5

Package: nvidia-jetpack
Status: install ok installed
Version: {}+b9
"""


class TestJetson:
    @pytest.fixture
    def board(self, tmp_path):
        def read(release="", model=MODEL, status=""):
            for name, text in ((jetson.RELEASE, release), (jetson.MODEL, model), (jetson.PACKAGES, status)):
                if text:
                    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / name).write_text(text)
            return jetson.read_board(tmp_path)

        return read

    def test_another_machine(self, board) -> None:
        assert board(model="Raspberry Pi 5\0") is None
        assert jetson.examine(None) == []

    @pytest.mark.parametrize(
        ("release", "revision", "jetpack", "detail"),
        [
            ("36", "4.3", "6.2", "comes with TensorRT 10.3"),
            ("36", "9.9", "6", "comes with TensorRT 10.3"),
            ("38", "2.0", "7.0", "TensorRT 11 needs JetPack 7.2.2"),
            ("39", "2.1", "7.2.1", "TensorRT 11 needs JetPack 7.2.2"),
            ("35", "4.1", "5", "its TensorRT is too old"),
            ("99", "0.0", "", "of unknown version"),
        ],
    )
    def test_jetpack_by_its_linux(self, board, release, revision, jetpack, detail) -> None:
        found = board(RELEASE.format(release, revision))
        assert found == jetson.Board(MODEL.rstrip("\0"), f"{release}.{revision}", jetpack)
        assert detail in only(jetson.examine(found), "JetPack").detail

    def test_the_installed_jetpack_counts_more(self, board) -> None:
        found = board(RELEASE.format("39", "2.1"), status=STATUS.format("7.2.2"))
        assert found.jetpack == "7.2.2"
        assert "TensorRT 11.4.1 or newer supports it" in only(jetson.examine(found), "JetPack").detail

    def test_a_container_without_the_release_file(self, board) -> None:
        found = board()
        assert found == jetson.Board(MODEL.rstrip("\0"), "", "")
        assert only(jetson.examine(found), "Jetson Linux").detail == "unknown"

    def test_the_doctor_of_a_jetson(self, monkeypatch) -> None:
        asked = []
        monkeypatch.setattr(jetson, "read_board", lambda: jetson.Board("Jetson", "36.4.3", "6.2"))
        monkeypatch.setattr(gpu, "examine", lambda on_jetson: asked.append(on_jetson) or [])
        assert only(list(doctor.examine().findings), "JetPack").status == "ok"
        assert asked == [True]
