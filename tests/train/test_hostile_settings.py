"""Settings of training that are damaged, endless or made to take time."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfl_edge.errors import InputError
from train.config import read_config
from train.weights.mmdet_config import read_mmdet_config
from train.weights.nanodet_config import read_nanodet_config


@pytest.mark.parametrize(
    "content",
    [
        b"a = 0x" + b"f" * 100_000,
        b"a = " + b"1" * 100_000,
        b"a = " + b"[" * 100_000,
        b"[" + b"a." * 100_000 + b"a]",
        b"[train]\nepochs = true",
        b"[train]\nepochs = 1979-05-27",
        b"a = nan",
        b"\xff",
        b"\x00",
        b"a = 1\na = 2",
        b'"\\u0000" = 1',
    ],
)
def test_training(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"run\.toml") as caught:
        read_config(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "read"),
    [("x.toml", read_config), ("x.yml", read_nanodet_config), ("x.py", read_mmdet_config)],
)
def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path, name: str, read: object) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    with pytest.raises(InputError, match=r"larger than the [0-9]+ bytes"):
        read(path)  # type: ignore[operator]
