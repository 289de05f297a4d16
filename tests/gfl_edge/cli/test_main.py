"""How the command line ends, and that it is put together of its commands."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gfl_edge
from gfl_edge import cli
from gfl_edge.cli.main import COMMANDS, build_parser, main


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["eval"], ["detect", "--model", "m.onnx"], ["camera", "--score", "high"]]
)
def test_usage_errors_exit_with_2(words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_without_a_command_all_are_listed(capsys):
    with pytest.raises(SystemExit):
        main([])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(f"\n    {name}" in captured.err for name, *_ in COMMANDS)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["camera", "street.mp4"], "Did you mean --source street.mp4?"),
        (["camera", "--source", "a.mp4", "b.mp4"], "Did you mean --source b.mp4?"),
        (["camera", "--sources", "0"], "Did you mean --source?"),
        (["build", "m.onnx"], "Did you mean --model m.onnx?"),
        (["triton", "repository", "m.engine"], "Did you mean --model m.engine?"),
        (["models", "m.onnx"], "unrecognized arguments: m.onnx"),
        (["doctor", "--verbose"], "unrecognized arguments: --verbose"),
    ],
)
def test_a_word_without_its_option_is_said_by_the_command(words, meant, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    *usage, last = capsys.readouterr().err.splitlines()
    assert (caught.value.code, usage[0].split()[:3]) == (2, ["usage:", "gfl-edge", words[0]])
    assert last.endswith(meant)


def test_failures_are_one_line_and_status_1(capsys):
    assert main(["detect", "--model", "none.onnx", "a.jpg"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gfl-edge: error: none.onnx: no such file")
    assert captured.err.count("\n") == 1


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"gfl-edge {gfl_edge.__version__}"


def test_an_interrupt_is_one_line_and_status_130(monkeypatch, capsys):
    monkeypatch.setattr("gfl_edge.cli.models.weights.listing", interrupt)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "gfl-edge: interrupted\n"


def interrupt():
    raise KeyboardInterrupt


def test_a_folder_that_was_removed_is_one_line_and_status_1(tmp_path, monkeypatch, capsys):
    def remove(*_, **__):
        tmp_path.rmdir()
        return Path("x").absolute()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gfl_edge.cli.models.weights.listing", remove)
    status = main(["models"])
    monkeypatch.undo()  # back to a folder that is there
    said = "No such file or directory: the folder that this runs in was removed. Change to another\n"
    assert (status, capsys.readouterr().err) == (1, f"gfl-edge: error: {said}")


def test_threads_that_cannot_start_are_one_line_and_status_1(monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("gfl_edge.cli.models.weights.listing", refuse)
    assert main(["models"]) == 1
    assert capsys.readouterr().err.startswith("gfl-edge: error: can't start new thread. Give it more memory")


@pytest.mark.parametrize(("words", "said"), [((), ""), (("Unable to allocate 8 GiB",), " (Unable to allocate 8 GiB)")])
def test_memory_that_is_missing_is_one_line_and_status_1(monkeypatch, capsys, words, said):
    def refuse(*_, **__):
        raise MemoryError(*words)

    monkeypatch.setattr("gfl_edge.cli.models.weights.listing", refuse)
    assert main(["models"]) == 1
    expected = f"gfl-edge: error: there is not enough memory{said}. Give it more, or smaller files\n"
    assert capsys.readouterr().err == expected


def test_python_runs_the_package_as_the_command():
    words = [sys.executable, "-m", "gfl_edge", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.startswith("gfl-edge ")


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, command, _ in COMMANDS])
def test_a_command_is_what_its_module_runs(name, command):
    (added,) = (action for action in build_parser()._actions if action.dest == "command")
    assert added.choices[name].get_default("run") is command.run


def test_every_module_of_a_command_is_one():
    """All but those that several of them share."""
    modules = {info.name for info in pkgutil.iter_modules(cli.__path__)}
    assert modules - {"main", "options", "result"} == {"evaluate" if name == "eval" else name for name, *_ in COMMANDS}


def test_what_the_system_refuses_is_one_line(monkeypatch, capsys):
    def refuse():
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr("gfl_edge.cli.models.weights.listing", refuse)
    assert main(["models", "--json"]) == 1
    assert capsys.readouterr().err == "gfl-edge: error: No space left on device: /tmp/x\n"
    monkeypatch.setattr("gfl_edge.cli.models.weights.listing", lambda: [][0])
    with pytest.raises(IndexError):
        main(["models", "--json"])
