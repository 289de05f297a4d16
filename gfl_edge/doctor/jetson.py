"""Whether this is a Jetson, and what its JetPack brings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.doctor.findings import Finding

SECTION = "Jetson"
RELEASE, MODEL, PACKAGES = "etc/nv_tegra_release", "proc/device-tree/model", "var/lib/dpkg/status"

# JetPack by Jetson Linux (L4T); of releases that are not listed only the first number is known
JETPACK_OF = {
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
GENERATION_OF = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}
UPDATE = "flash JetPack 6.1 or newer with NVIDIA's SDK Manager"


@dataclass(frozen=True)
class Board:
    """A Jetson.

    Attributes:
        model: as the device tree names it, "NVIDIA Jetson Orin Nano Developer Kit"; "" in containers that hide it.
        linux: version of Jetson Linux (L4T), "36.4.3"; "" where it is not said.
        jetpack: version of JetPack, "6.2"; only its first number, "6", where no more is known; "" where nothing is.
    """

    model: str
    linux: str
    jetpack: str


def read_board(root: Path = Path("/")) -> Board | None:
    """The Jetson whose files lie under ``root``; None on another machine."""
    model = _read(root / MODEL).rstrip("\0\n")
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _read(root / RELEASE))
    if release is None and "jetson" not in model.lower():
        return None
    linux = f"{release[1]}.{release[2]}" if release else ""
    # The installed metapackage says it exactly, Jetson Linux only for releases that are listed
    packages = _read(root / PACKAGES)
    installed = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([\d.]+)", packages, re.MULTILINE)
    by_linux = JETPACK_OF.get(linux) or GENERATION_OF.get(linux.partition(".")[0], "")
    return Board(model, linux, installed[1] if installed else by_linux)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def examine(board: Board | None) -> list[Finding]:
    """Board, Jetson Linux and JetPack; nothing on another machine."""
    if board is None:
        return []
    found = [
        Finding(SECTION, "board", "ok", board.model or "unknown"),
        Finding(SECTION, "Jetson Linux", "ok", board.linux or "unknown"),
    ]
    numbers = tuple(int(number) for number in board.jetpack.split(".") if number)
    if not numbers:
        remedy = "sudo apt install nvidia-jetpack"
        return [*found, Finding(SECTION, "JetPack", "missing", "of unknown version", remedy)]
    if numbers < (6,):
        reason = f"{board.jetpack}: its TensorRT is too old (10.3 is needed)"
        return [*found, Finding(SECTION, "JetPack", "problem", reason, UPDATE)]
    return [*found, Finding(SECTION, "JetPack", "ok", f"{board.jetpack}: {_tensorrt(numbers)}")]


def cuda_extra(board: Board | None) -> str:
    """The extra that brings what reaches the GPU from Python and compiles for it, by the CUDA of the JetPack."""
    return "jetson7" if board is not None and board.jetpack.startswith("7") else "jetson6"


def _tensorrt(numbers: tuple[int, ...]) -> str:
    """Which TensorRT fits; NVIDIA's migration guide for TensorRT 11.4.1 on Jetson, and JetPack 6's own."""
    if numbers[0] == 6:
        return "comes with TensorRT 10.3 from JetPack 6.1 on, use that one; TensorRT 11 does not support it"
    if numbers >= (7, 2, 2):
        return "TensorRT 11.4.1 or newer supports it (NVIDIA's SBSA package)"
    return "stay with the TensorRT 10 that comes with it; TensorRT 11 needs JetPack 7.2.2 or newer"
