"""The GPU, its driver, CUDA, and what each TensorRT can build and run here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gfl_edge import optional
from gfl_edge.cuda import open_device
from gfl_edge.cuda.compiler import open_compiler
from gfl_edge.doctor.findings import Finding, guarded
from gfl_edge.doctor.jetson import cuda_extra, read_board
from gfl_edge.doctor.packages import Package, loaded
from gfl_edge.engine.build import rtx_targets
from gfl_edge.engine.flavor import MODULE_OF, Flavor
from gfl_edge.errors import BackendError, MissingDependencyError

SECTION = "GPU"
DRIVER = Path("/proc/driver/nvidia/version")
INSTALL_DRIVER = "sudo apt install nvidia-driver (Debian) or sudo ubuntu-drivers install (Ubuntu), then restart"
OF_JETPACK = "sudo apt install nvidia-jetpack"
SYSTEMS = f"{OF_JETPACK}, for an environment of: python3 -m venv --system-site-packages .venv"
CUDA = (
    Package("cuda", "reaches the GPU", ("cuda-python", "cuda-bindings"), "rtx"),
    Package("pycuda", "reaches the GPU, instead of cuda-python", ("pycuda",), "pycuda"),
)
TENSORRT: dict[Flavor, Package] = {
    "tensorrt": Package("tensorrt", "TensorRT", ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "tensorrt"),
    "rtx": Package("tensorrt_rtx", "TensorRT-RTX", ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"), "rtx"),
}
MIN_VERSION: dict[Flavor, tuple[int, int]] = {"tensorrt": (10, 3), "rtx": (1, 4)}


@dataclass(frozen=True)
class Device:
    """What is asked of the first GPU."""

    name: str
    sm: str  # "sm75"
    cuda: str  # newest CUDA that the driver runs, "13.0"


def examine(on_jetson: bool) -> list[Finding]:
    """Driver, CUDA packages, the GPU, the compiler of the kernels, and both flavors of TensorRT."""
    device, found = find_device(on_jetson)
    libraries = [_cuda_package(package, on_jetson) for package in CUDA]
    if any(finding.status == "ok" for finding in libraries):  # one of them is enough
        libraries = [finding for finding in libraries if finding.status != "missing"]
    probes: list[Callable[[], list[Finding]]] = [partial(_examine_compiler, device, on_jetson)]
    probes += [partial(_examine_flavor, flavor, device, on_jetson) for flavor in MODULE_OF]
    others = [finding for probe in probes for finding in guarded(SECTION, probe)]
    return [_driver(DRIVER, device, on_jetson), *libraries, found, *others]


def find_device(on_jetson: bool) -> tuple[Device | None, Finding]:
    """The first GPU, and the finding on it."""
    try:
        opened = open_device()
    except MissingDependencyError:
        return None, Finding(SECTION, "device", "missing", "cannot be asked without one of these", _install(on_jetson))
    except Exception as error:  # CUDA's libraries can fail in any way
        there = DRIVER.is_file()
        # Without its last sentence, advice for somebody with an engine at hand
        reason = " ".join(re.split(r"\. (?:Install the driver|Check nvidia-smi)", str(error))[0].split())
        remedy = "nvidia-smi, which says more" if there else OF_JETPACK if on_jetson else INSTALL_DRIVER
        return None, Finding(SECTION, "device", "problem" if there else "missing", reason, remedy)
    device = Device(opened.name, opened.compute_capability, opened.driver_version)
    return device, Finding(SECTION, "device", "ok", f"{device.name}, {device.sm}, CUDA up to {device.cuda}")


def _install(on_jetson: bool) -> str:
    """The command that adds what reaches the GPU and compiles for it."""
    return f"pip install 'gfl-edge[{cuda_extra(read_board()) if on_jetson else CUDA[0].extra}]'"


def _driver(path: Path, device: Device | None, on_jetson: bool) -> Finding:
    """The kernel's driver; CUDA's own answer counts where this file is not, as under WSL."""
    if path.is_file():
        version = re.search(r"\b(\d{3}\.[\d.]+\d)\b", path.read_text())
        return Finding(SECTION, "driver", "ok", version[1] if version else path.read_text().partition("\n")[0])
    if device is not None:
        return Finding(SECTION, "driver", "ok", f"of CUDA {device.cuda}")
    return Finding(
        SECTION, "driver", "missing", "no NVIDIA driver is loaded", OF_JETPACK if on_jetson else INSTALL_DRIVER
    )


def _cuda_package(package: Package, on_jetson: bool) -> Finding:
    if package.module != "cuda":
        return loaded(SECTION, package)
    # The package cuda has no file of its own
    found = loaded(SECTION, replace(package, module="cuda.bindings"))
    return replace(found, remedy=_install(on_jetson)) if found.status == "missing" else found


def _examine_compiler(device: Device | None, on_jetson: bool) -> list[Finding]:
    use = "compiles the kernels around an engine; without it the CPU does their work"
    try:
        return [Finding(SECTION, "compiler", "ok", f"{open_compiler(device.cuda if device else None).version}: {use}")]
    except (MissingDependencyError, BackendError) as error:
        of_driver = re.search(r"pip install \S*nvidia-cuda-nvrtc\S+", str(error))  # beside one that is too new for it
        remedy = of_driver[0] if of_driver else _install(on_jetson)
        return [Finding(SECTION, "compiler", "missing", use, remedy)]


def _examine_flavor(flavor: Flavor, device: Device | None, on_jetson: bool) -> list[Finding]:
    package = TENSORRT[flavor]
    found = loaded(SECTION, package)
    if found.status != "ok":
        if on_jetson and flavor == "rtx":
            return []  # TensorRT-RTX does not support Jetson
        return [Finding(SECTION, found.name, found.status, found.detail, SYSTEMS if on_jetson else package.install)]
    version = str(optional.load(package.module).__version__)
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < MIN_VERSION[flavor]:
        least = ".".join(str(number) for number in MIN_VERSION[flavor])
        newer = f"pip install --upgrade '{package.distributions[0]}>={least}'"
        remedy = "update to JetPack 6.1 or newer" if on_jetson else newer
        return [Finding(SECTION, found.name, "problem", f"{version}; gfl_edge needs {least} or newer", remedy)]
    scope, runs = _scope(flavor, device.sm if device else None)
    return [Finding(SECTION, found.name, "ok", f"{version}; {scope}", runs=runs)]


def _scope(flavor: Flavor, sm: str | None) -> tuple[str, bool]:
    """What the flavor builds for and runs on here, and whether it runs at all."""
    if flavor == "tensorrt":
        return (f"builds for and runs on {sm}", True) if sm else ("builds and runs nothing without a GPU", False)
    targets = rtx_targets()
    builds = f"builds for {' '.join(targets)}"
    if sm is None:
        return f"{builds}; runs on none, there is no GPU here", False
    if sm not in targets:
        return f"{builds}; does not run on {sm}, take full TensorRT", False
    return f"{builds}; runs on {sm}", True
