"""Dataclasses to plain values, as JSON has them, and back: strictly, with errors that name the key."""

from __future__ import annotations

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gfl_edge.errors import InputError

DIGITS = 6  # significant ones of every number
_EXPECTED = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}

T = TypeVar("T")


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


def from_plain(cls: type[T], tree: Any, where: str) -> T:
    """The dataclass ``cls`` of an object.

    Its fields may be scalars, ``Literal``, dataclasses, tuples or objects of these, or one of these or None. Nothing is
    guessed: "1" is no number and 1 no truth value; but a whole number may stand for one with a fraction.

    Args:
        cls: a dataclass.
        tree: what the file holds in its place.
        where: the place, for messages, "report.runs[3]".

    Raises:
        InputError: a key is missing, unknown, or holds something else; names the place, what was found and what was
            expected.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(tree, dict):
        raise _unexpected(where, tree, f"an object of {', '.join(fields)}")
    if unknown := [key for key in tree if key not in fields]:
        raise InputError(f"{where}.{unknown[0]} is not known, expected only {', '.join(fields)}")
    if missing := [name for name, field in fields.items() if _is_required(field) and name not in tree]:
        raise InputError(f"{where}.{missing[0]} is missing, found only {', '.join(tree) or 'nothing'}")
    hints = get_type_hints(cls)
    return cls(**{name: _converted(hints[name], part, f"{where}.{name}") for name, part in tree.items()})


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING


def _converted(hint: Any, value: Any, where: str) -> Any:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _converted(inner, value, where)
    if kind is Literal:
        if value not in arguments:
            raise _unexpected(where, value, f"one of {', '.join(map(repr, arguments))}")
        return value
    if kind is tuple:
        return _converted_list(arguments, value, where)
    if kind is dict:
        if not isinstance(value, dict):
            raise _unexpected(where, value, "an object")
        return {key: _converted(arguments[1], part, f"{where}.{key}") for key, part in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where)  # type: ignore[arg-type]  # mypy reads it as an instance, too
    if type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    raise _unexpected(where, value, _EXPECTED[hint])


def _converted_list(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """Of ``tuple[int, ...]`` any number of elements, of ``tuple[int, int]`` two."""
    if not isinstance(value, list):
        raise _unexpected(where, value, "a list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise _unexpected(where, value, f"{len(kinds)} elements")
    parts = enumerate(zip(kinds, value, strict=True))
    return tuple(_converted(kind, part, f"{where}[{index}]") for index, (kind, part) in parts)


def _unexpected(where: str, value: Any, expected: str) -> InputError:
    found = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
    return InputError(f"{where} is {found}, expected {expected}")
