"""Reading JSON that others may have written, damaged or made up, in bounded memory and time; writing none but JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfl_edge.annotations.text import read_text
from gfl_edge.errors import GflEdgeError, InputError
from gfl_edge.parsing.validation import repeated, shown

MAX_DIGITS = 400  # of a whole number; a float has no more than 309 before its point
MAX_LINE = 120  # characters, of JSON for people
MAX_BYTES = 1 << 24  # of a file, unless the reader allows more


def json_text(values: Any, indent: int | None = None) -> str:
    """Plain values as JSON.

    Raises:
        InputError: a number that JSON has not, NaN or infinity; names its place.
    """
    try:
        return json.dumps(values, indent=indent, allow_nan=False)
    except ValueError as error:
        place, found = next(_non_finite(values, ""), ("", error))
        raise InputError(f"{place.lstrip('.') or 'the value'} is {found}, for which JSON has no number") from error


def readable_json(values: Any) -> str:
    """Plain values as JSON for people: whatever fits stands on one line, as a detection does, except the outermost.

    Args:
        values: whose dictionaries have text as keys.

    Raises:
        InputError: as :func:`json_text`.
    """
    json_text(values)  # which says where a number is that JSON has not
    return _readable(values, "")


def _readable(values: Any, margin: str) -> str:
    """From the inside out: where a value fits on a line after ``margin``, so does each part of it."""
    if not values or not isinstance(values, (dict, list, tuple)):
        return json_text(values)
    inner = f"{margin}  "
    if isinstance(values, dict):
        opening, closing = "{}"
        parts = [f"{json_text(key)}: {_readable(value, inner)}" for key, value in values.items()]
    else:
        opening, closing = "[]"
        parts = [_readable(value, inner) for value in values]
    line = f"{opening}{', '.join(parts)}{closing}"
    if margin and len(margin) + len(line) < MAX_LINE and "\n" not in line:
        return line
    inside = f",\n{inner}".join(parts)
    return f"{opening}\n{inner}{inside}\n{margin}{closing}"


def _non_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:
        yield from _non_finite(part, f"{place}.{key}")


def parse_json(text: str) -> Any:
    """The values of a JSON text.

    Raises:
        ValueError: it is none; nested too deeply; a key comes twice; NaN or Infinity; a number of too many digits.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_int=_bounded_int
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: str | Path, advice: str, error: type[GflEdgeError] = InputError, max_bytes: int = MAX_BYTES) -> Any:
    """The values of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        advice: what to do where it is none, the end of the message.
        error: what is raised, InputError or another.
        max_bytes: that it may have.

    Raises:
        InputError: it cannot be read, is too large, or :func:`parse_json` refuses it; names the file.
    """
    try:
        return parse_json(read_text(path, max_bytes=max_bytes))
    except InputError as reason:
        raise error(f"{str(reason).removesuffix('.')}. {advice}") from reason
    except ValueError as reason:
        raise error(f"{path} is not valid JSON: {reason}. {advice}") from reason


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := repeated(name for name, _ in pairs)) is not None:
        raise ValueError(f"the key {shown(twice)} comes twice")
    return dict(pairs)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits, expected {MAX_DIGITS} at most")
    return int(text)
