"""Settings from TOML files and checkpoints: dataclasses built by pydantic, with errors that name the field.

Types of fields that several dataclasses share are here as well, so that their limits stand beside the field and are
part of the JSON schema.
"""

from __future__ import annotations

import difflib
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo

from gfl_edge import optional
from gfl_edge.annotations.text import read_text
from gfl_edge.errors import InputError
from train.weights.find import data_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = optional.load("tomli")

T = TypeVar("T")
Schema = dict[str, Any]

DATA_VARIABLE = "$GFL_EDGE_DATA"


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text; raises ValueError where it is none."""
    return tomllib.loads(text)


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; raises InputError where it cannot be read or is none."""
    try:
        return parse_toml(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error


@dataclass(frozen=True)
class Places:
    """Where the relative paths of a file start.

    A path is looked for beside the file, then in the working directory. Paths of data start at ``root`` instead, where
    it is given. ``$GFL_EDGE_DATA`` at the start of a path is the data folder.

    Attributes:
        folder: of the file; None leaves relative paths as they are.
        root: of the data.
    """

    folder: Path | None = None
    root: Path | None = None

    def with_root(self, data: Any) -> Places:
        """These with the root that a table of data names."""
        root = data.get("root") if isinstance(data, Mapping) else None
        if not isinstance(root, str):
            return self
        with suppress(ValueError):  # that there is none is the error of the field
            return replace(self, root=self.find(Path(root)))
        return replace(self, root=Path(root))

    def find(self, path: Path) -> Path:
        """Where ``path`` is; raises ValueError that names the places looked in where it is in none of them."""
        if path.parts[:1] == (DATA_VARIABLE,):
            return data_folder().joinpath(*path.parts[1:])
        if path.is_absolute() or self.folder is None:
            return path
        tried = (self.folder.absolute(), Path.cwd())
        for place in tried:
            if (place / path).exists():
                return place / path
        raise ValueError(f"found neither in {tried[0]}, the folder of the file, nor in {tried[1]}, where you are")

    def find_data(self, path: Path) -> Path:
        """Where ``path`` of a set of images is; as :meth:`find`."""
        if self.root is not None and path.parts[:1] != (DATA_VARIABLE,):
            return self.root / path
        try:
            return self.find(path)
        except ValueError as error:
            raise ValueError(f'{error}. Name the folder of the data: data.root = "..."') from error


def places(info: ValidationInfo) -> Places:
    """Those that :func:`build` was called with."""
    return info.context or Places()


def _refuse_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("expected a path")
    return value


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
OutputPath = Annotated[Path, BeforeValidator(_refuse_empty)]  # relative to the working directory
InputPath = Annotated[OutputPath, AfterValidator(lambda path, info: places(info).find(path))]
DataPath = Annotated[OutputPath, AfterValidator(lambda path, info: places(info).find_data(path))]


@functools.cache
def adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """What validates a dataclass and those in it, and knows their JSON schema; unknown fields are errors."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(cls)


def build(cls: type[T], values: Any, where: str, places: Places | None = None) -> T:
    """Build the dataclass ``cls`` from ``values``, a mapping of its fields.

    Nothing is guessed: "1" is no int, 1 is no bool, but 1 is a float.

    Args:
        cls: a dataclass; ValueError in its ``__post_init__`` is reported as the field's error.
        values: what the file said.
        where: the place in the file, for messages, such as "data"; empty for the whole file.
        places: where relative paths start; default: they stay relative.

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
        return validator.validate_json(text, strict=True, context=places)
    except ValidationError as error:
        raise InputError(_explain(error, validator.json_schema(), where)) from error


def _explain(error: ValidationError, schema: Schema, where: str) -> str:
    """The first of the errors, with unknown fields before those that are missing because of a typing error."""
    errors = error.errors()
    order = {"unexpected_keyword_argument": 0, "missing": 1}
    first = min(errors, key=lambda found: order.get(found["type"], 2))
    kind, loc, value = first["type"], first["loc"], first["input"]
    if kind == "unexpected_keyword_argument":
        known = list(_node(schema, loc[:-1])["properties"])
        close = difflib.get_close_matches(str(loc[-1]), known, 1)
        guess = f"; {close[0]}?" if close else ""
        return f"{_dotted(where, loc)}: no such field{guess}. Known: {', '.join(known)}"
    if kind == "missing" and isinstance(loc[-1], str):
        names = [str(found["loc"][-1]) for found in errors if (found["type"], found["loc"][:-1]) == (kind, loc[:-1])]
        return f"{_dotted(where, loc[:-1]) or 'the file'}: missing {', '.join(names)}"
    if kind == "missing":  # the item of a list that is too short
        loc = loc[:-1]
    place, node = _dotted(where, loc), _node(schema, loc)
    if kind == "value_error":
        reason = first["ctx"]["error"]
        if node.get("type") != "object":
            return f"{place} {value!r}: {reason}"
        return f"{place}.{reason}" if place else str(reason)
    if node.get("type") == "object":
        return f"{place}: {value!r}: expected a table"
    return f"{place} {value!r}: expected {_expected(node, value, kind in LIMIT_ERRORS)}"


LIMIT_ERRORS = ("greater_than_equal", "less_than_equal", "greater_than", "less_than", "finite_number")


def _dotted(where: str, loc: Sequence[str | int]) -> str:
    """``("sizes", 1)`` in "data" as ``data.sizes[1]``."""
    path = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return path.removeprefix(".")


def _node(schema: Schema, loc: Sequence[str | int]) -> Schema:
    """The part of a JSON schema that describes the value at a place."""
    node = schema
    for part in (None, *loc):
        if isinstance(part, int):
            node = node["prefixItems"][part] if "prefixItems" in node else node["items"]
        elif part is not None:
            node = node["properties"][part] if "properties" in node else node["additionalProperties"]
        node = next((choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _expected(node: Schema, value: Any, out_of_range: bool) -> str:
    """What ``node`` of a JSON schema asks for instead of ``value``: another number if that is out of range."""
    if out_of_range:
        low, high = node.get("minimum"), node.get("maximum")
        if low is not None:
            return f"{low:g} or more" if high is None else f"{low:g}..{high:g}"
        above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
        if above is not None:
            return f"more than {above:g}" + ("" if below is None else f" and less than {below:g}")
        return "a finite number"
    if "enum" in node or "const" in node:
        return "one of " + ", ".join(map(repr, node.get("enum", [node.get("const")])))
    if node["type"] == "array":
        return f"{node['minItems']} values" if "minItems" in node and isinstance(value, list) else "a list"
    names = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    return "a path" if node.get("format") == "path" else names[node["type"]]
