"""What a machine lacks makes tests skip, and fail where it is required."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDY = """
import pytest

@pytest.mark.gpu
def test_on_a_gpu(): pass

@pytest.mark.gpu
@pytest.mark.skipif(True, reason="no toolkit")
def test_with_a_toolkit(): pass

@pytest.mark.gpu
@pytest.mark.slow
def test_for_minutes_on_a_gpu(): pass

def test_on_data(data): data("nothing")

@pytest.mark.skip(reason="of no account")
def test_elsewhere(): pass
"""


@pytest.mark.parametrize(
    ("required", "failing"),
    [((), set()), (("GPU",), {"test_on_a_gpu", "test_with_a_toolkit"}), (("DATA",), {"test_on_data"})],
)
def test_skips_are_failures_where_it_is_required(required, failing, tmp_path):
    (tmp_path / "test_needy.py").write_text(NEEDY)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GFL_EDGE_REQUIRE_")}
    # CUDA finds no GPU under this variable, on a machine that has one either
    environment = {**kept, "CUDA_VISIBLE_DEVICES": "", **{f"GFL_EDGE_REQUIRE_{what}": "1" for what in required}}
    words = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    words += ["--rootdir", str(tmp_path), str(tmp_path)]
    result = subprocess.run(words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert set(re.findall(r"^(?:FAILED|ERROR) .*::(\w+)", output, re.MULTILINE)) == failing, output
    for what in required:
        assert f"GFL_EDGE_REQUIRE_{what} is set, but" in output
    assert f"{5 - len(failing)} skipped" in output
