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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_image_holds_the_wheel_only_and_runs_as_nobody(path: Path) -> None:
    """What another stage copied is in no layer of the image, and root owns none of what it writes."""
    last = re.split(r"^FROM ", path.read_text(), flags=re.MULTILINE)[-1]
    assert re.findall(r"^(?:COPY|ADD) .*", last, re.MULTILINE) == ["COPY --from=wheel /wheel /wheel"]
    assert re.findall(r"^USER (.*)", last, re.MULTILINE) == ["10001"]


def test_the_wheel_is_made_of_what_is_not_ignored(tmp_path: Path) -> None:
    """Of a checkout with weights and secrets, only the sources reach the build."""
    named = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert "*" in (CHECKOUT / ".dockerignore").read_text().splitlines()
    for name in named:
        source = CHECKOUT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    words = [sys.executable, "setup.py", "--quiet", "build"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    built = tmp_path / "build" / "lib" / "gfl_edge"
    for name in ("cuda/source/gfl_kernels.h", "serving/parser/gfl_deepstream.cpp", "web/page.html", "cli/main.py"):
        assert (built / name).is_file()


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.name.partition(".")[0] for path in FILES] == ["cpu", "jetpack6", "jetpack7"]
