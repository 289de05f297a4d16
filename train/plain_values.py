"""Dataclasses from plain values, as TOML and JSON give them, with errors that name the field."""

from __future__ import annotations

import dataclasses
import difflib
import platform
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gfl_edge.errors import InputError, MissingDependencyError

T = TypeVar("T")


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        ValueError: no TOML.
        MissingDependencyError: Python 3.10, which has no TOML reader.
    """
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"reading TOML needs Python 3.11 or newer, this is {platform.python_version()}"
        ) from error
    return tomllib.loads(text)


def build(cls: type[T], values: Any, where: str, folder: Path | None = None) -> T:
    """Build the dataclass ``cls`` from ``values``, a mapping of its fields.

    Fields may be of type str, int, float, bool, Path, Literal, a tuple, ``dict[str, str]``, another such dataclass, or
    one of these or None. Nothing is guessed: "1" is no int, 1 is no bool, but 1 is a float.

    Args:
        cls: a dataclass; ValueError in its ``__post_init__`` is reported as the field's error.
        values: what the file said.
        where: the place in the file, for messages, such as "data.train".
        folder: relative paths are taken from there; default the current folder.

    Raises:
        InputError: unknown or missing fields, or a value that does not fit; names the field as ``where.field``.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: {values!r}: expected a table of fields")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise InputError(f"{where}.{name}: no such field{_guess(str(name), fields)}. Known: {', '.join(fields)}")
    required = [name for name, field in fields.items() if _is_required(field) and name not in values]
    if required:
        raise InputError(f"{where}: missing {', '.join(required)}")
    hints = get_type_hints(cls)
    converted = {name: _convert(value, hints[name], f"{where}.{name}", folder) for name, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        raise InputError(f"{where}.{error}") from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _guess(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; {close[0]}?" if close else ""


def _convert(value: Any, hint: Any, where: str, folder: Path | None) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _convert(value, inner, where, folder)
    if origin is Literal:
        _expect(value in arguments, value, where, f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, where, folder)
    if origin is dict:
        _expect(isinstance(value, Mapping), value, where, "a table")
        return {key: _convert(item, arguments[1], f"{where}.{key}", folder) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where, folder)  # type: ignore[arg-type]
    return _convert_scalar(value, hint, where, folder)


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str, folder: Path | None) -> tuple[Any, ...]:
    _expect(isinstance(value, (list, tuple)), value, where, "a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    _expect(len(value) == len(arguments), value, where, f"{len(arguments)} values")
    return tuple(
        _convert(item, argument, f"{where}[{index}]", folder)
        for index, (item, argument) in enumerate(zip(value, arguments, strict=True))
    )


def _convert_scalar(value: Any, hint: Any, where: str, folder: Path | None) -> Any:
    if hint is Path:
        _expect(isinstance(value, (str, Path)) and str(value) != "", value, where, "a path")
        return (folder or Path()) / value
    if hint is float:
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), value, where, "a number")
        return float(value)
    _expect(type(value) is hint, value, where, {str: "a text", int: "a whole number", bool: "true or false"}[hint])
    return value


def _expect(fits: bool, value: Any, where: str, expected: str) -> None:
    if not fits:
        raise InputError(f"{where} {value!r}: expected {expected}")
