"""Dataclasses to plain values, as JSON has them."""

from __future__ import annotations

import dataclasses
from typing import Any

DIGITS = 6  # significant ones of every number


def to_plain(value: Any) -> Any:
    """Objects for dataclasses, lists for tuples, numbers of ``DIGITS`` digits.

    A field that has a default is left out where it is at it.
    """
    if dataclasses.is_dataclass(value):
        values = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: to_plain(found) for field, found in values if _is_required(field) or found != field.default}
    if isinstance(value, dict):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [to_plain(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING
