"""Libraries log; only the command line writes to the terminal."""

from __future__ import annotations

import argparse
import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfl_edge import console
from gfl_edge.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("gfl_edge", "calib", "train", "export", "benchmarks", "examples", "docs")
COMMAND_LINE = ("gfl_edge/cli/", "gfl_edge/console.py")  # all of it is, elsewhere the functions of scripts
SCRIPT_FUNCTIONS = {"main", "_run"}


def library_calls(tree: ast.AST) -> Iterator[str]:
    """Names of the functions that a module calls outside of its command line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name in SCRIPT_FUNCTIONS:
            continue
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        yield from library_calls(node)


def test_library_modules_do_not_print() -> None:
    printing = {
        name: found
        for package in PACKAGES
        for path in sorted((CHECKOUT / package).rglob("*.py"))
        if not (name := path.relative_to(CHECKOUT).as_posix()).startswith(COMMAND_LINE)
        and (found := {"print", "log", "console.log"} & set(library_calls(ast.parse(path.read_text()))))
    }
    assert not printing


def test_every_package_logs_where_the_command_line_looks() -> None:
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"tests"}
    assert packages == set(console.OWN_LOGGERS) - {"__main__"}


def speak(args: argparse.Namespace) -> int:
    for name in ("export.graph", "onnx"):
        logging.getLogger(name).info("%s begins", name)
        logging.getLogger(name).warning("%s doubts", name)
    return 0


def test_commands_show_progress_of_ours_and_warnings_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run_command(argparse.ArgumentParser(), speak, []) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "export.graph begins",
        "WARNING: export.graph doubts",
        "WARNING: onnx doubts",
    ]


def test_a_command_leaves_logging_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise InputError("no")

    handlers, level = list(logging.root.handlers), logging.getLogger("gfl_edge").level
    assert console.run_command(argparse.ArgumentParser(prog="tool"), fail, []) == 1
    assert (logging.root.handlers, logging.getLogger("gfl_edge").level) == (handlers, level)
    logging.getLogger("gfl_edge").info("nobody hears this")
    assert capsys.readouterr().err == "tool: error: no\n"
