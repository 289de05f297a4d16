"""One sentence for whatever a file holds instead of what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from gfl_edge.errors import InputError
from gfl_edge.parsing.fields import FileName, Limits, Natural, Share
from gfl_edge.parsing.validation import build, check, repeated, shown


@dataclass(frozen=True)
class Part:
    pair: tuple[int, int] = (1, 2)
    numbers: Annotated[tuple[float, ...], Limits(min_length=1, max_length=3)] = (1.0,)


@dataclass(frozen=True)
class Whole:
    part: Part
    name: FileName = "a"
    count: Natural = 0
    share: Share | None = None
    above: Annotated[float, Limits(gt=0, lt=5)] = 1.0
    below: Annotated[float, Limits(le=5)] = 1.0
    on: bool = True
    by_method: dict[Literal["max", "min"], dict[str, float]] | None = None
    anything: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("count 13: expected luck")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the file: missing part"),
        (None, "the file: None: expected a table"),
        ([], "the file: []: expected a table"),
        ({"part": {}, "cuont": 1}, "cuont: no such field; count?. Known: part, name, count"),
        ({"part": {}, "\x1b[2J": 1}, "'\\x1b[2J': no such field. Known"),
        ({"part": {}, "x" * 10**5: 1}, f"{'x' * 20}"),
        ({"part": 1}, "part: 1: expected a table"),
        ({"part": {"pair": [1]}}, "part.pair [1]: expected 2 values"),
        ({"part": {"pair": [1, 2, 3]}}, "part.pair [1, 2, 3]: expected 2 values"),
        ({"part": {"pair": [1, "2"]}}, "part.pair[1] '2': expected a whole number"),
        ({"part": {"pair": [1, 2.0]}}, "part.pair[1] 2.0: expected a whole number"),
        ({"part": {"numbers": []}}, "part.numbers []: expected 1 to 3 values"),
        ({"part": {"numbers": [1, 2, 3, 4]}}, "part.numbers [1, 2, 3, 4]: expected 1 to 3 values"),
        ({"part": {"numbers": 1}}, "part.numbers 1: expected a list"),
        ({"part": {"numbers": [True]}}, "part.numbers[0] True: expected a number"),
        ({"part": {}, "name": 1}, "name 1: expected a text"),
        ({"part": {}, "name": "../x"}, "name '../x': expected a text that fits ^[A-Za-z0-9]"),
        ({"part": {}, "name": "x" * 200}, "of at most 128 characters"),
        ({"part": {}, "count": -1}, "count -1: expected 0 or more"),
        ({"part": {}, "count": True}, "count True: expected a whole number"),
        ({"part": {}, "count": 13}, "count 13: expected luck"),
        ({"part": {}, "share": 2}, "share 2: expected 0..1"),
        ({"part": {}, "share": float("nan")}, "share nan: expected a finite number"),
        ({"part": {}, "above": 0}, "above 0: expected more than 0 and less than 5"),
        ({"part": {}, "above": 5}, "above 5: expected more than 0 and less than 5"),
        ({"part": {}, "below": 6}, "below 6: expected 5 or less"),
        ({"part": {}, "below": 10**400}, ": expected a "),
        ({"part": {}, "on": 1}, "on 1: expected true or false"),
        ({"part": {}, "on": None}, "on None: expected true or false"),
        ({"part": {}, "by_method": {"mean": {}}}, "by_method.mean: no such entry: expected 'max' or 'min'"),
        ({"part": {}, "by_method": {"max": {"a b": "1"}}}, "by_method.max.'a b' '1': expected a number"),
        ({"part": {}, "by_method": []}, "by_method: []: expected a table"),
        ({"part": {}, "name": "\ud800"}, "the file: unexpected end of hex escape"),
        ({"part": {}, "count": 10**5000}, "the file: Exceeds the limit"),
        ({"part": {}, "count": object()}, "the file: Object of type object is not JSON serializable"),
    ],
)
def test_the_field_the_value_and_what_was_expected(values: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(Whole, values)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_nesting_without_end() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="expected texts, numbers"):
        build(Whole, {"part": {}, "anything": {"a": deep}})
    for _ in range(100_000):  # or Python would end in it
        deep = deep[0]


def test_what_fits() -> None:
    assert build(Whole, {"part": {"numbers": [1, 2.5]}, "above": 2}) == Whole(Part((1, 2), (1.0, 2.5)), above=2.0)


def test_what_code_makes_is_checked_by_the_same_limits() -> None:
    check(Whole(Part(), count=3))
    with pytest.raises(ValueError, match="count -3: expected 0 or more"):
        check(Whole(Part(), count=-3))
    with pytest.raises(ValueError, match="count True: expected a whole number"):
        check(Whole(Part(), count=True))


def test_values_in_messages_are_short() -> None:
    assert shown(10**5000) == "a number of too many digits"
    assert len(shown("x" * 10**6)) < 100
    assert len(shown([[["x" * 100] * 100] * 100] * 100)) < 100
    assert repeated(["a", "b", "a", "b"]) == "a"
    assert repeated(["a", "b"]) is None
