"""Typed access to a tree of plain values, as YAML and JSON give it, with errors that name the place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gfl_edge.annotations.class_names import check_class_names
from gfl_edge.errors import InputError
from gfl_edge.parsing.validation import shown

Triple = tuple[float, float, float]
MAX_NUMBER = 1e12  # of those that a configuration gives


class Entries:
    """Typed access to a tree of plain values by dotted places, with errors that name them.

    Args:
        values: mappings, lists, texts, numbers, None.
        origin: the file, for messages.
    """

    def __init__(self, values: Any, origin: str) -> None:
        self.values, self.origin = values, origin

    def get(self, place: str) -> Any:
        """The value, None where there is none."""
        value = self.values
        for name in place.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def at(self, *places: str) -> str:
        """The first of the places that there is, else the last of them."""
        return next((place for place in places if self.get(place) is not None), places[-1])

    def text(self, place: str) -> str | None:
        """A text."""
        found: str | None = self._typed(place, "a text", lambda value: isinstance(value, str))
        return found

    def choice(self, place: str, choices: Sequence[str]) -> Any:
        """One of several texts."""
        return self._typed(
            place, f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices
        )

    def flag(self, place: str) -> bool | None:
        """True or false."""
        found: bool | None = self._typed(place, "true or false", lambda value: isinstance(value, bool))
        return found

    def integer(self, place: str, least: int = 1) -> int | None:
        """A whole number from ``least`` on."""
        expected = f"a whole number from {least} on"
        found: int | None = self._typed(place, expected, lambda value: _is_integer(value) and value >= least)
        return found

    def share(self, place: str) -> float | None:
        """A number from 0 to 1."""
        found: float | None = self._typed(
            place, "a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1
        )
        return found

    def integers(self, place: str, count: int | None = None) -> tuple[int, ...] | None:
        """Whole numbers from 1 on."""
        what = f"{count or 'some'} whole numbers from 1 on"
        value = self._typed(place, what, lambda value: _is_list(value, count, lambda x: _is_integer(x) and x >= 1))
        return None if value is None else tuple(value)

    def triple(self, place: str, positive: bool = False) -> Triple | None:
        """Three numbers, one a channel; of one number, that three times."""
        value = self.get(place)
        if _is_number(value):
            value = [value] * 3
        if value is None:
            return None
        if not _is_list(value, 3, lambda x: _is_number(x) and (x > 0 or not positive)):
            raise self.error(place, value, "three numbers, one a channel" + (", above 0" if positive else ""))
        first, second, third = map(float, value)
        return first, second, third

    def names(self, place: str) -> tuple[str, ...] | None:
        """Class names; a single one may stand without a list."""
        value = self.get(place)
        if value is None:
            return None
        listed = [value] if isinstance(value, str) else value
        if not _is_list(listed, None, lambda x: isinstance(x, str)):
            raise self.error(place, value, "a list of class names")
        numbered = [(name, f"{place}[{index}]") for index, name in enumerate(listed)]
        return check_class_names(numbered, self.origin)

    def error(self, place: str, value: Any, expected: str) -> InputError:
        """To raise for a value of another kind."""
        return InputError(f"{self.origin}: {place} is {shown(value)}, expected {expected}. Correct it")

    def _typed(self, place: str, expected: str, is_right: Any) -> Any:
        value = self.get(place)
        if value is not None and not is_right(value):
            raise self.error(place, value, expected)
        return value


def pair(values: Sequence[int] | None) -> tuple[int, int] | None:
    """Two values as a pair."""
    return None if values is None else (values[0], values[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any, count: int | None, is_right: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and (len(value) == count if count else len(value) > 0)
        and all(is_right(item) for item in value)
    )
