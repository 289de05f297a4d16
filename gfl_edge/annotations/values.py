"""Single values of annotation files in the forms that tools write them in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

Identity = int | str

T = TypeVar("T")


def to_identity(value: Any) -> Identity:
    """An id of a COCO file. 1, 1.0, "1" and "1.0" are the same; other text is an id as it stands.

    Raises:
        ValueError: neither a whole number nor text.
    """
    if isinstance(value, str) and (text := value.strip()):
        number = re.fullmatch(r"(-?(?:0|[1-9][0-9]{0,18}))(?:\.0)?", text)
        return int(number[1]) if number else text
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f"{value!r}, expected a whole number or text")


def to_number(value: Any) -> float:
    """A number, which may be written as text; NaN and infinity are let pass.

    Raises:
        ValueError: none.
    """
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
    raise ValueError(f"{value!r}, expected a number")


def to_flag(value: Any) -> bool:
    """A flag as 0 or 1, true or false, or text of these; null is false.

    Raises:
        ValueError: something else.
    """
    text = str(value).strip().lower()
    if text in ("1", "1.0", "true"):
        return True
    if text in ("0", "0.0", "false", "none", ""):
        return False
    raise ValueError(f"{value!r}, expected 0 or 1")


def value_of(entry: Any, key: str, convert: Callable[[Any], T]) -> T:
    """A value of an entry; raises ValueError that names its key."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.40}, expected an object")
    if key not in entry:
        raise ValueError(f"'{key}' is missing")
    try:
        return convert(entry[key])
    except ValueError as error:
        raise ValueError(f"'{key}' is {error}") from error


def to_name(value: Any) -> str:
    """A name without spaces around it; raises ValueError if it is none."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):  # a class or file that is called 7
        return str(value)
    raise ValueError(f"{value!r:.40}, expected a name")


def to_box(value: Any) -> tuple[float, ...]:
    """Four numbers; raises ValueError if it is something else."""
    try:
        if isinstance(value, list) and len(value) == 4:
            return tuple(map(to_number, value))
    except ValueError:
        pass
    raise ValueError(f"{value!s:.60}, expected four numbers: x, y, width, height")


def to_pixels(entry: Any, key: str) -> int | None:
    """A side of an image, pixels; None where the file does not say, or says 0 as some tools do.

    Raises:
        ValueError: something else.
    """
    if isinstance(entry, dict) and entry.get(key) in (None, "", 0, "0"):
        return None
    value = value_of(entry, key, to_number)
    if not 0 < value < math.inf:
        raise ValueError(f"'{key}' is {entry[key]!r}, expected a number of pixels")
    return round(value)
