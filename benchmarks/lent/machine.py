"""What the machine is: GPU, driver, clocks, versions."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from gfl_edge.cuda import open_device
from gfl_edge.cuda.compiler import open_compiler

QUERY = "name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,temperature.gpu,power.limit"
PACKAGES = ("numpy", "cuda-python", "cuda-bindings", "nvidia-cuda-nvrtc", "torch", "torchvision", "tensorrt")


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """GPU and versions; what ``nvidia-smi`` and nvcc say where they are."""
    device = open_device("cuda-python")
    return {
        "gpu": device.name,
        "compute_capability": device.compute_capability,
        "driver_cuda": device.driver_version,
        "compiler": open_compiler(device.driver_version).version,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "nvidia_smi": _said(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"]),
        "nvcc": _said(["nvcc", "--version"]),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _said(words: list[str]) -> list[str] | None:
    if shutil.which(words[0]) is None:
        return None
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()
