"""Two wheels of the same checkout are the same to the byte."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.conftest import CHECKOUT, build_wheel


@pytest.mark.slow
def test_a_wheel_built_twice_is_the_same(tmp_path, monkeypatch):
    pytest.importorskip("build.env", reason="builds the wheel")
    words = ["git", "log", "-1", "--format=%ct"]
    epoch = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    contents = []
    for name in ("first", "second"):
        build_wheel(tmp_path / name)
        (wheel,) = (tmp_path / name).glob("*.whl")
        contents.append(wheel.read_bytes())
        time.sleep(2.1)  # a ZIP file counts time in steps of two seconds
    assert contents[0] == contents[1]


def test_make_sets_the_time_of_the_last_commit():
    assert "SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct)" in (CHECKOUT / "Makefile").read_text()
