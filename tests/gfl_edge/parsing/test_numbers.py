"""Numbers of callers and command lines: what can be none is one sentence."""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gfl_edge.bench.report import BenchRequest
from gfl_edge.camera import run_camera
from gfl_edge.cli.main import COMMANDS, build_parser, main
from gfl_edge.engine.build import settle
from gfl_edge.errors import InputError
from gfl_edge.evaluation.truth import check_limit
from gfl_edge.filters import DetectionFilter
from gfl_edge.parsing.numbers import number, whole_number
from tests.support.fake_detector import FakeDetector

NO_COUNT = [0, -1, True, False, 1.0, 1.5, math.nan, math.inf, "1", b"1", None, [], [1], {}, 1j, 10**30, np.float32(1)]
NO_COUNT += [np.array([1, 2]), np.array(1), np.bool_(True), np.int64(0), "9" * 5000, object()]
NO_SHARE = [-0.1, 1.1, math.nan, math.inf, -math.inf, "0.5", None, True, [0.5], np.array([0.5]), 1j, np.float64("nan")]


@pytest.mark.parametrize("value", NO_COUNT, ids=range(len(NO_COUNT)))
def test_what_is_no_count(value: Any) -> None:
    with pytest.raises(InputError, match=r"^images .{1,99}: expected a whole number, 1\.\.1000000000$"):
        whole_number("images", value)
    if value is not None:  # which is no limit
        with pytest.raises(InputError, match="expected"):
            check_limit(value)
        if not (isinstance(value, int) and value > 1):  # all frames, that is
            with pytest.raises(InputError, match=r"max_frames .*expected"):
                run_camera(FakeDetector(), "video.mp4", max_frames=value)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected"):
        settle(max_batch=value)
    with pytest.raises(InputError, match="expected"):
        BenchRequest(models=(), batches=(value,))


@pytest.mark.parametrize("value", NO_SHARE, ids=range(len(NO_SHARE)))
def test_what_is_no_share(value: Any) -> None:
    with pytest.raises(InputError, match=r"^score .{1,99}: expected 0\.\.1$"):
        number("score", value, 0, 1)
    if value is None:  # what the model recommends
        return
    with pytest.raises(InputError, match="score"):
        DetectionFilter(score=value)
    with pytest.raises(InputError, match="score"):
        DetectionFilter(class_scores={"person": value})


def test_numbers_of_other_libraries() -> None:
    assert [whole_number("n", value) for value in (1, np.int8(2), np.uint64(3))] == [1, 2, 3]
    assert [number("n", value, 0, 1) for value in (0, np.float16(0.5), Fraction(1, 4), np.int32(1))] == [
        0,
        0.5,
        0.25,
        1,
    ]
    assert type(whole_number("n", np.int64(5))) is int


def numeric_options() -> list[tuple[argparse.ArgumentParser, str, int]]:
    """Every option that takes numbers, of all commands, and how many it takes."""
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    parsers = [commands.choices[name] for name, *_ in COMMANDS]  # type: ignore[index]
    return [
        (parser, action.option_strings[-1], action.nargs if isinstance(action.nargs, int) else 1)
        for parser in parsers
        for action in parser._actions
        if getattr(action.type, "__module__", "") == "gfl_edge.parsing.numbers"
    ]


def test_no_option_takes_any_number() -> None:
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    for parser in commands.choices.values():  # type: ignore[union-attr]
        assert not [action.dest for action in parser._actions if action.type in (int, float)]
    assert len(numeric_options()) > 10


WORDS = [
    "",
    " ",
    "x",
    "1x",
    "1,",
    ",",
    "0x10",
    "1e3e",
    "nan",
    "\uff19x",
    "1 2",
    "\x1b[31m",
    "$\\frac$",
    "-1",
]


@pytest.mark.parametrize("word", WORDS, ids=range(len(WORDS)))
def test_options_name_what_they_expect(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--batch x`` once said "invalid _numbers value"."""
    for parser, option, count in numeric_options():
        if word == "-1" and option in ("--point-offset", "--mean"):  # which take that
            continue
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([f"{option}={word}"] if count == 1 else [option, *[word] * count])
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert "invalid" not in said
        assert "Traceback" not in said
        assert "expected" in said, said


@pytest.mark.parametrize("words", [["--batch", "x"], ["--batch", "1000000000"], ["--seed", "-1"], ["--seconds", "nan"]])
def test_the_command_says_it_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "-o", "out", *words])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"gfl-edge bench: error: argument {words[0]}: '{words[1]}': expected ")
