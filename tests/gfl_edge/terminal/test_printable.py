"""Foreign text made printable."""

from __future__ import annotations

import shlex
from pathlib import Path

from gfl_edge.terminal.printable import word


def test_a_path_in_a_command_can_be_copied() -> None:
    assert word(Path("artifacts/nanodet-m-320.onnx")) == "artifacts/nanodet-m-320.onnx"
    path = "my models/it's $HOME.onnx"
    assert shlex.split(f"gfl-edge build --model {word(path)}")[-1] == path
