"""YAML as plain values, as many as a configuration can have; nothing in it is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.annotations.class_names import compose_yaml
from gfl_edge.errors import InputError

MAX_NODES, MAX_NODE_DEPTH = 20_000, 50  # with what aliases stand for; nanodet's own files have 200


def read_yaml(path: Path) -> Any:
    """The values of a YAML file; class names stay as they are written, so that ``no`` is a name.

    Raises:
        InputError: unreadable, no YAML, or more than a configuration has.
        MissingDependencyError: PyYAML is not installed.
    """
    return _Plain(path).value(compose_yaml(path), 0)


class _Plain:
    """Turns YAML's nodes into values; see :func:`read_yaml`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._yaml = optional.load("yaml")
        self._constructor = self._yaml.constructor.SafeConstructor()
        self._left = MAX_NODES

    def value(self, node: Any, depth: int, as_text: bool = False) -> Any:
        yaml = self._yaml
        self._left -= 1
        if self._left < 0 or depth > MAX_NODE_DEPTH:
            raise InputError(
                f"{self._path} is no configuration: more than {MAX_NODES} values, or {MAX_NODE_DEPTH} levels"
            )
        if node is None:  # an empty file
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1, as_text) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if as_text and node.value:
            return node.value
        return self._scalar(node)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key.value, str) else "?"
            found = self.value(value, depth + 1, name == "class_names")
            if key.tag == "tag:yaml.org,2002:merge":
                for part in found if isinstance(found, list) else [found]:
                    merged = {**part, **merged} if isinstance(part, dict) else merged
            elif name in own:
                raise InputError(f"{self._path}, line {key.start_mark.line + 1}: {name!r} comes twice")
            else:
                own[name] = found
        return {**merged, **own}

    def _scalar(self, node: Any) -> Any:
        constructor = self._constructor
        kinds = {
            "null": lambda node: None,
            "bool": constructor.construct_yaml_bool,
            "int": constructor.construct_yaml_int,
            "float": constructor.construct_yaml_float,
        }
        construct = kinds.get(node.tag.rpartition(":")[2])
        try:
            return construct(node) if construct else node.value
        except (ValueError, KeyError):  # a tag that its text does not fit
            return node.value
