"""Commands whose streams are closed, full, left or of few characters, and whose files have names that do something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEAKS = """
import argparse, logging, sys
from gfl_edge.console import log, run_command, say_path
from gfl_edge.errors import InputError
from gfl_edge.progress import track
from pathlib import Path

NAME = "caf\\u00e9\\n\\x1b[31m\\u202e\\udcff\\u4eba%s$x$"

def run(args):
    for _ in track(range(3), NAME, 3):
        logging.getLogger("gfl_edge").warning("%s was read", NAME)
    log(f"looking at {NAME}")
    for _ in range(args.lines):
        say_path(Path(NAME))
    if args.fail:
        raise InputError(f"{NAME}: expected another")
    return 0

parser = argparse.ArgumentParser(prog="speak")
parser.add_argument("--lines", type=int, default=1)
parser.add_argument("--fail", action="store_true")
sys.exit(run_command(parser, run, None))
"""


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, env={**os.environ, **environment}, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def speaks(tmp_path_factory: pytest.TempPathFactory) -> str:
    script = tmp_path_factory.mktemp("speaks") / "speaks.py"
    script.write_text(SPEAKS)
    return f"{sys.executable} {script}"


@pytest.mark.parametrize(
    ("words", "redirected", "status"),
    [
        ("", ">&-", 0),
        ("", "2>&-", 0),
        ("", ">&- 2>&-", 0),
        ("", "<&- >&- 2>&-", 0),
        ("--fail", "2>&-", 1),
        ("--fail", ">&- 2>&-", 1),
        ("", "2>/dev/full", 0),
        ("--fail", "2>/dev/full", 1),
        ("", ">/dev/full", 1),
        ("--lines 9999", ">/dev/full", 1),
        ("--lines 9999", ">/dev/full 2>/dev/full", 1),
        ("--lines x", "2>&-", 2),
        ("--help", ">&-", 0),
    ],
)
def test_streams_that_take_nothing(speaks: str, words: str, redirected: str, status: int) -> None:
    done = shell(f"{speaks} {words} {redirected}")
    assert done.returncode == status
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception" not in done.stderr + done.stdout
    if redirected == ">/dev/full":
        assert done.stderr.splitlines()[-1].startswith(b"speak: error: stdout cannot be written")


@pytest.mark.parametrize(
    "pipeline",
    ["{} --lines 99999 | head -1", "{} --lines 99999 2>&1 | head -1", "{} --lines 9 2> >(true)", "{} --help | true"],
)
def test_readers_that_leave(speaks: str, pipeline: str) -> None:
    done = shell(f"set -o pipefail; {pipeline.format(speaks)}; exit $?")
    assert done.returncode in (0, 1)
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception" not in done.stderr + done.stdout


def test_a_closed_stream_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """A file that got the number of stderr would take the messages of libraries in C."""
    script = tmp_path / "opens.py"
    script.write_text(
        "import argparse, os\nfrom gfl_edge.console import run_command\n"
        f"def run(args):\n    with open({str(tmp_path / 'kept')!r}, 'w'):\n        os.write(2, b'C says')\n"
        "    return 0\n"
        "raise SystemExit(run_command(argparse.ArgumentParser(), run, []))\n"
    )
    assert shell(f"{sys.executable} {script} 2>&- >&-").returncode == 0
    assert (tmp_path / "kept").read_text() == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"PYTHONIOENCODING": "cp1252:strict"},
    ],
    ids=str,
)
@pytest.mark.parametrize("fail", ["", "--fail"])
def test_any_terminal_shows_any_name(speaks: str, environment: dict[str, str], fail: str) -> None:
    done = shell(f"{speaks} {fail}", **environment)
    assert done.returncode == (1 if fail else 0)
    for line in done.stderr.splitlines():
        assert not any(byte < 32 or byte == 127 for byte in line), line
    said = done.stderr.decode("latin-1")
    assert r"\n\x1b[31m\u202e\udcff" in said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if "was read" in line or line.startswith("looking")]
    assert len(lines) == 4
    if fail:
        assert said.splitlines()[-1].startswith("speak: error: caf")


def test_results_with_names_that_are_no_text(tmp_path: Path) -> None:
    """An undecodable file name, as of another system, among the images."""
    folder = os.fsencode(tmp_path) + b"/a\xff\n\x1b[31m"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/x\xfe.png")).write_bytes(b"no image")
    words: list[Any] = [sys.executable, "-m", "gfl_edge", "detect", folder, "-o", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, check=False, timeout=120)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(b"gfl-edge: error: ")
    assert rb"a\udcff\n\x1b[31m/x\udcfe.png" in last
    assert json.loads(done.stdout or b"null") is None


def test_what_libraries_print_is_not_between_results() -> None:
    script = (
        "import os, sys\n"
        "from gfl_edge.terminal.streams import results_alone_on_stdout, usable_streams\n"
        "with usable_streams():\n"
        "    print('before')\n"
        "    with results_alone_on_stdout():\n"
        "        os.write(1, b'library\\n')\n"
        "        print('result')\n"
        "        os.write(1, b'library\\n')\n"
        "    print('after')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("before\nresult\nafter\n", "library\nlibrary\n")
