"""Single values of annotation files in the forms that tools write them in."""

from __future__ import annotations

import math
import re
from typing import Any

Identity = int | str


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
