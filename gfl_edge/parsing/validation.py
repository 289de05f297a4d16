"""Dataclasses from the plain values of JSON, TOML and metadata: types and limits are pydantic's to check, and an error
is one sentence that names the field, what was found and what was expected.
"""

from __future__ import annotations

import difflib
import functools
import json
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, get_type_hints

from gfl_edge import optional
from gfl_edge.errors import InputError

T = TypeVar("T")
Schema = dict[str, Any]

# Nothing is guessed: "1" is no int and 1 no bool; but 1 is a float
SETTINGS = {"extra": "forbid", "allow_inf_nan": False, "strict": True}
LIMIT_ERRORS = ("greater_than_equal", "less_than_equal", "greater_than", "less_than")
MAX_SHOWN = 80  # characters of a value in a message
MAX_KNOWN = 30  # names of fields in a message
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # lists in lists can stand for more than memory holds
_SHORT.maxstring = MAX_SHOWN


@functools.cache
def adapter(cls: type[Any]) -> Any:
    """What validates a dataclass and those in it, and knows their JSON schema, a ``pydantic.TypeAdapter``."""
    cls.__pydantic_config__ = SETTINGS
    return optional.load("pydantic").TypeAdapter(cls)


def build(cls: type[T], values: Any, where: str = "", context: Any = None) -> T:
    """Build the dataclass ``cls`` from ``values``, a mapping of its fields.

    Args:
        cls: a dataclass; ValueError in its ``__post_init__`` is reported as the field's error.
        values: what the file said: texts, numbers, true, false, None, lists and mappings.
        where: the place in the file, for messages, such as "data"; empty for the whole file.
        context: for validators of the fields.

    Raises:
        InputError: unknown or missing fields, or a value that does not fit; names the field as ``where.field``.
    """
    # Only of JSON does pydantic's strict mode take lists as tuples and mappings as dataclasses, and then nothing else
    try:
        text = json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{where or 'the file'}: {error}: expected texts, numbers, true or false, lists and tables"
        ) from error
    validator = adapter(cls)  # type: ignore[arg-type]  # for mypy a class has no hash
    try:
        built: T = validator.validate_json(text, context=context)
    except ValueError as error:
        raise InputError(_explain(error, validator.json_schema(), where)) from error
    return built


@functools.cache
def _fields(cls: type[Any]) -> Any:
    """A pydantic model of the fields of a dataclass."""
    hints = get_type_hints(cls, include_extras=True)
    return optional.load("pydantic").create_model(
        cls.__name__, __config__=SETTINGS, **{name: (hint, ...) for name, hint in hints.items()}
    )


def check(value: object) -> None:
    """Raise ValueError, which names the field, unless the fields of a dataclass are of their types and limits."""
    fields = _fields(type(value))  # type: ignore[arg-type]  # for mypy a class has no hash
    try:
        fields.model_validate(vars(value))
    except ValueError as error:
        raise ValueError(_explain(error, fields.model_json_schema(), "")) from error


def repeated(names: Iterable[str]) -> str | None:
    """The first of several names that was there before; None where all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def shown(value: Any) -> str:
    """A value for a message, on one line and cut where it is long."""
    try:
        text = _SHORT.repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of too many digits"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _explain(error: Any, schema: Schema, where: str) -> str:
    """The first of pydantic's errors, with unknown fields before those that are missing because of a typing error."""
    errors = error.errors(include_url=False)
    order = {"unexpected_keyword_argument": 0, "missing": 1}
    first = min(errors, key=lambda found: order.get(found["type"], 2))
    kind, loc, value = first["type"], first["loc"], first["input"]
    if kind == "json_invalid":
        return f"{where or 'the file'}: {first['ctx']['error']}"
    if kind == "unexpected_keyword_argument":
        known = list(_node(schema, loc[:-1])["properties"])
        close = difflib.get_close_matches(str(loc[-1])[:MAX_SHOWN], known, 1)
        guess = f"; {close[0]}?" if close else ""
        return f"{_dotted(where, loc)}: no such field{guess}. Known: {', '.join(known[:MAX_KNOWN])}"
    if kind == "missing" and isinstance(loc[-1], str):
        names = [str(found["loc"][-1]) for found in errors if (found["type"], found["loc"][:-1]) == (kind, loc[:-1])]
        node = _node(schema, loc)
        choices = f", {_expected(node, None, kind)}" if len(names) == 1 and "enum" in node else ""
        return f"{_dotted(where, loc[:-1]) or 'the file'}: missing {', '.join(names)}{choices}"
    if kind == "missing":  # the item of a list that is too short
        loc = loc[:-1]
    if loc[-1:] == ("[key]",):  # pydantic's word for a key that does not fit
        expected = first.get("ctx", {}).get("expected", "another key")
        return f"{_dotted(where, loc[:-1])}: no such entry: expected {expected}"
    place, node = _dotted(where, loc), _node(schema, loc)
    if kind == "value_error":
        reason = first["ctx"]["error"]
        if node.get("type") != "object":
            return f"{place} {shown(value)}: {reason}"
        return f"{place}.{reason}" if place else str(reason)
    if node.get("type") == "object":
        return f"{place or 'the file'}: {shown(value)}: expected a table{' that is not empty' if value == {} else ''}"
    return f"{place} {shown(value)}: expected {_expected(node, value, kind)}"


def _dotted(where: str, loc: Sequence[str | int]) -> str:
    """``("sizes", 1)`` in "data" as ``data.sizes[1]``."""
    path = where + "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in loc)
    return path.removeprefix(".")


def _name(part: str) -> str:
    """A key of a file for a message: as it is, or where it is no plain name, between quotes."""
    return part if part.isidentifier() and part.isascii() and len(part) <= MAX_SHOWN else shown(part)


def _node(schema: Schema, loc: Sequence[str | int]) -> Schema:
    """The part of a JSON schema that describes the value at a place; empty where any value may stand."""
    node = schema
    for part in (None, *loc):
        if isinstance(part, int):
            node = node["prefixItems"][part] if part < len(node.get("prefixItems", ())) else node.get("items", node)
        elif part is not None:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        node = next((choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _expected(node: Schema, value: Any, kind: str) -> str:
    """What ``node`` of a JSON schema asks for instead of ``value``, by the kind of error."""
    if kind in LIMIT_ERRORS:
        return _expected_range(node)
    if kind == "finite_number":
        return "a finite number"
    if "enum" in node or "const" in node:
        return "one of " + ", ".join(map(repr, node.get("enum", [node.get("const")])))
    if node.get("type") == "array":
        return _expected_length(node, "values") if isinstance(value, list | tuple) else "a list"
    if node.get("type") == "string" and isinstance(value, str) and ("pattern" in node or "maxLength" in node):
        return _expected_text(node)
    names = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    return "a path" if node.get("format") == "path" else names.get(node.get("type", ""), "another value")


def _expected_range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    least = f"{low:.10g} or more" if low is not None else f"more than {above:.10g}" if above is not None else ""
    most = f"{high:.10g} or less" if high is not None else f"less than {below:.10g}" if below is not None else ""
    if low is not None and high is not None:
        return f"{low:.10g}..{high:.10g}"
    return " and ".join(filter(None, (least, most)))


def _expected_length(node: Schema, what: str) -> str:
    least, most = node.get("minItems", 0), node.get("maxItems")
    if least == most:
        return f"{most} {what}"
    return f"{least} {what} or more" if most is None else f"{least} to {most} {what}"


def _expected_text(node: Schema) -> str:
    pattern, most = node.get("pattern"), node.get("maxLength")
    parts = [f"that fits {pattern}" if pattern else "", f"of at most {most} characters" if most else ""]
    return " ".join(["a text", *filter(None, parts)])
