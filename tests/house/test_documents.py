"""Every command and every Python block of README.md and docs/ does what it says, in a folder as a user has it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import docs.build
from gfl_edge import console
from tests.support.documents import CHECKOUT, COMMANDS, DOCUMENTS, OTHER, PYTHON, Block, blocks, read, why_not
from tests.support.watched_network import contacts, watched

IMAGES, CALIBRATION_IMAGES = 16, 32


def parameters(*languages: str) -> list:
    return [
        pytest.param(block, id=str(block), marks=[pytest.mark.slow] if block.slow else [])
        for block in blocks(*languages)
    ]


class Inputs:
    """Files under the names that the documents use, made of the test data."""

    def __init__(self, data: Callable[[str], Path], exported: Callable[..., Path], made: Path) -> None:
        self._data, self._exported, self._made = data, exported, made
        self.by_name: dict[str, Callable[[], Path]] = {
            "nanodet_m.ckpt": lambda: data("weights/nanodet_m/nanodet_m.ckpt"),
            "street.jpg": lambda: self._images()[0],
            "video.mp4": self._video,
            "val2017": lambda: self._folder("val2017", self._images()),
            "instances_val2017.json": self._annotations,
            "images": lambda: self._folder("images", sorted(data("coco128/train2017").iterdir())[:CALIBRATION_IMAGES]),
            "BCCD/JPEGImages": lambda: data("bccd/BCCD/JPEGImages"),
            "artifacts/nanodet-m-320.onnx": lambda: exported("nanodet-m-320"),
            "artifacts/nanodet-m-320-fp16.onnx": lambda: exported("nanodet-m-320", "fp16"),
            "artifacts/nanodet-m-sigma.onnx": lambda: exported("nanodet-m-320", uncertainty=True),
            "A.onnx": lambda: exported("nanodet-m-320"),
            "B.onnx": lambda: exported("nanodet-m-320", "fp16"),
        }

    def place(self, text: str, folder: Path) -> None:
        """Copy into ``folder`` what ``text`` names."""
        for name, make in self.by_name.items():
            if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", text):
                source, target = make(), folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    def _images(self) -> list[Path]:
        return sorted(self._data("coco/val2017_mix397").iterdir())[:IMAGES]

    def _folder(self, name: str, paths: list[Path]) -> Path:
        folder = self._made / name
        if not folder.exists():
            folder.mkdir()
            for path in paths:
                shutil.copyfile(path, folder / path.name)
        return folder

    def _annotations(self) -> Path:
        path, names = self._made / "instances.json", {path.name for path in self._images()}
        whole = json.loads(self._data("coco/instances_val2017_mix397.json").read_text())
        whole["images"] = [image for image in whole["images"] if image["file_name"] in names]
        kept = {image["id"] for image in whole["images"]}
        whole["annotations"] = [box for box in whole["annotations"] if box["image_id"] in kept]
        path.write_text(json.dumps(whole))
        return path

    def _video(self) -> Path:
        """The first frames of a video."""
        import cv2

        path, capture = self._made / "video.mp4", cv2.VideoCapture(str(self._data("video/vtest.avi")))
        size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, size)
        for _ in range(10):
            writer.write(capture.read()[1])
        writer.release()
        return path


@pytest.fixture(scope="module")
def inputs(data, exported, tmp_path_factory) -> Inputs:
    return Inputs(data, exported, tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout with its environment, in which nothing of the real one is overwritten."""
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in {line.partition("/")[0] for line in listed.stdout.splitlines()}:
        if (CHECKOUT / name).exists():
            (tmp_path / name).symlink_to(CHECKOUT / name)
    (tmp_path / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "ready":
            (tmp_path / ".venv" / path.name).symlink_to(path)
    (tmp_path / ".venv" / "ready").touch()  # newer than the files that make compares it with
    return tmp_path


def environment(checkout: Path) -> dict[str, str]:
    """Without a display, with its own cache, and with this checkout's gfl_edge wherever another is installed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    path = f"{checkout}/.venv/bin:{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(CHECKOUT), "GFL_EDGE_CACHE": str(checkout / "cache")}


def run(words: list[str], checkout: Path, seconds: int = 900) -> None:
    """Run them; fails, too, where they contact another machine."""
    log = checkout / ".watched"
    env = watched(environment(checkout), log)
    result = subprocess.run(words, cwd=checkout, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    assert result.returncode == 0, f"{words}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    assert not contacts(log), contacts(log)


@pytest.mark.parametrize("block", parameters(*COMMANDS))
def test_commands(block: Block, inputs: Inputs, checkout: Path) -> None:
    commands = [(command, why_not(command)) for command in block.commands]
    for command, reason in commands:
        if reason:
            parse(command, checkout)
    script = [line for line, (_, reason) in zip(runnable(block), commands, strict=True) if not reason]
    if script:
        inputs.place(block.text, checkout)
        run(["bash", "-euo", "pipefail", "-c", "\n".join(script)], checkout)


def runnable(block: Block) -> list[str]:
    """The commands as they are run."""
    return Block(block.document, block.line, block.language, block.as_run).commands


@pytest.mark.parametrize("block", parameters(*PYTHON))
def test_python(block: Block, inputs: Inputs, checkout: Path) -> None:
    inputs.place(block.as_run, checkout)
    run([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block.as_run], checkout)


def parse(command: str, checkout: Path) -> None:
    """Check what can be checked of a command that is not run."""
    words = shlex.split(command, comments=True)
    words = words[: words.index("|")] if "|" in words else words
    if "pip" in words[:3]:
        check_requirements(words)
    elif words[0] == "make":
        run(["make", "-n", *words[1:]], checkout)
    elif words[0] == "gfl-edge":
        parse_arguments(["gfl_edge/cli/main.py", *words[1:]])
    elif any(word.endswith(".py") for word in words):
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        parse_arguments(words[script:])


def parse_arguments(words: list[str]) -> None:
    """Parse the command line of a script without running it."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.chdir(CHECKOUT)
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(console, "run_command", lambda parser, run, argv: parser.parse_args(argv) and 0)
        with pytest.raises(SystemExit) as left:
            runpy.run_path(words[0], run_name="__main__")
    assert not left.value.code, f"{words}\n{said.getvalue()}"


def check_requirements(words: list[str]) -> None:
    """The extras that are named exist, and a wheel has the name that `make wheel` gives it."""
    from gfl_edge import __version__

    text = (CHECKOUT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^([\w-]+) = \[", text.partition("\n[")[0], re.MULTILINE))
    for word in words:
        named = re.fullmatch(r"(gfl-edge|\S*gfl_edge-([\d.]+)-py3-none-any\.whl|\.)\[([\w,-]+)\]", word)
        if named:
            assert set(named[3].split(",")) <= extras, word
            assert named[2] in (None, __version__), word


def test_every_block_says_what_it_is() -> None:
    for path in DOCUMENTS:
        for block in read(path):
            assert block.language in (*COMMANDS, *PYTHON, *OTHER), block


def test_the_api_reference_is_asked_for_every_package() -> None:
    named = {name.partition(".")[2] for name in docs.build.public_modules()}
    entries = {path.stem for path in (CHECKOUT / "gfl_edge").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert named - {""} == entries - {"__init__", "__main__", "__pycache__"}


@pytest.mark.slow
def test_the_api_reference_has_every_module(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="pdoc is not installed (extra docs)")
    words = [sys.executable, "docs/build.py", "-o", str(tmp_path / "site")]
    built = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for path in (CHECKOUT / "gfl_edge").rglob("*.py"):
        page = path.parent if path.name == "__init__.py" else path
        if path.name != "__main__.py":
            assert (tmp_path / "site" / page.relative_to(CHECKOUT)).with_suffix(".html").is_file(), path
    front = (tmp_path / "site" / "gfl_edge.html").read_text()
    assert 'id="Detector.detect_batch"' in front  # what loads when it is used is there, too


def test_a_wrong_option_is_found(checkout: Path) -> None:
    with pytest.raises(AssertionError, match="unrecognized arguments: --sauce"):
        parse("gfl-edge camera --model m.onnx --sauce 0", checkout)
    with pytest.raises(AssertionError, match="unrecognized arguments: --wights"):
        parse("python export/to_onnx.py --wights gfl-r50-1x -o a.onnx", checkout)
    with pytest.raises(AssertionError, match=r"gfl-edge\[gpu\]"):
        parse("pip install 'gfl-edge[gpu]'", checkout)
    with pytest.raises(AssertionError, match="No rule to make target"):
        parse("make everything", checkout)
