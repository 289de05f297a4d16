"""The Dockerfiles of examples/docker: linted, and what they name is there. They are not built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.extras import CHECKOUT, EXTRAS

FILES = sorted((CHECKOUT / "examples" / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed (extra dev)")
    done = subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_installs_is_there(path: Path) -> None:
    text = path.read_text()
    (extras,) = re.findall(r"\$\{wheel\}\[([\w,-]+)\]", text)
    assert set(extras.split(",")) <= set(EXTRAS)
    assert f"docker build -f examples/docker/{path.name} " in text
    assert "not built where it was written" in text


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.name.partition(".")[0] for path in FILES] == ["cpu", "jetpack6", "jetpack7"]
