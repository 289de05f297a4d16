"""What a number was measured on: device, versions and command, for every JSON with results."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from gfl_edge._version import __version__

PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyarrow",
    "ray",
    "pycocotools",
    "faster-coco-eval",
    "ncnn",
    "tensorrt",
    "tensorrt_rtx_cu12",
    "tensorrt_rtx_cu13",
    "cuda-python",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "pycuda",
    "torch",
    "torchvision",
    "nvidia-ml-py",
    "mutmut",
)


def versions() -> dict[str, str]:
    """Versions of gfl_edge, Python and those of ``PACKAGES`` that are installed."""
    found = {"gfl_edge": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's own name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(argv: list[str] | None = None) -> dict[str, Any]:
    """Device, versions and the command that is running.

    Args:
        argv: words of the command; default ``sys.argv``. Paths are cut to their last two parts.
    """
    words = [str(Path(*Path(word).parts[-2:])) if Path(word).is_absolute() else word for word in argv or sys.argv]
    return {
        "device": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
        "versions": versions(),
        "command": " ".join(words),
    }


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is a Jetson board, by its device tree or by L4T's release file, below ``root``."""
    try:
        model = (root / "proc/device-tree/model").read_text(errors="replace")
    except OSError:
        model = ""
    return "jetson" in model.lower() or (root / "etc/nv_tegra_release").is_file()
