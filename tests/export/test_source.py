"""Which model is taken where none is named."""

from __future__ import annotations

from pathlib import Path

from export.source import newest_artifact


def test_what_a_killed_run_left_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best.pt").touch()
    (tmp_path / "runs" / ".gfl_edge-0123456789abcdef.partial.pt").touch()
    assert newest_artifact("fp16", folder=tmp_path) == tmp_path / "runs" / "best.pt"
