"""Lists of class names: a text file, the ``names`` of a YOLO data set's YAML, or names on a command line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.annotations.text import BYTE_ORDER_MARK, read_lines, read_text
from gfl_edge.errors import AnnotationError

YAML_SUFFIXES = (".yaml", ".yml", ".json")  # JSON is YAML
SUFFIXES = (".txt", ".names", *YAML_SUFFIXES)  # by which a text is known to be meant as a file
MAX_LIST_BYTES = 1 << 24  # of a text file of names
MAX_YAML_CHARS = 1 << 20  # 80,000 names, for which PyYAML takes 3 s

MAX_NAME_CHARS = 200

NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of controls, surrogates and ends of lines

_PATH = re.compile(r"[/\\]|~/|\./|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$)")  # "TV/monitor" is a name

Numbered = tuple[str, str]  # a name, and where it stands


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The class names of a file, in the order of their numbers.

    Text: a name per line, so that the first line is class 0; lines of ``#`` and a blank are comments. YAML (``.yaml``,
    ``.yml``) and JSON: a list, or the entry ``names`` as a list or as a mapping of numbers from 0 on, in any order;
    ``nc`` has to agree with it, the other entries are not looked at. Every name is text: yes, 1 and null, too.

    Raises:
        AnnotationError: unreadable, no names, a name that is empty or comes twice, or a number that is missing.
        MissingDependencyError: YAML without PyYAML.
    """
    path = Path(path)
    is_yaml = path.suffix.lower() in YAML_SUFFIXES
    names = list(_yaml_names(path) if is_yaml else _text_names(path))
    if not names:
        raise AnnotationError(f"{path} holds no class names. Expected one per line, or YAML with the entry 'names'")
    return check_class_names(names, str(path))


def parse_class_names(text: str, *, known: bool = False) -> tuple[str, ...]:
    """``a,b,c``, or the path of a file for :func:`read_class_names`.

    Args:
        text: of a command line.
        known: the names are looked up in a model afterwards, so that one may also be that of a folder that is here,
            as where images are sorted into folders by class.

    Raises:
        AnnotationError: as :func:`read_class_names`; or it reads as a file and is none.
    """
    try:
        if Path(text).is_file():
            return read_class_names(text)
        is_folder = bool(text) and Path(text).is_dir() and not (known and not name_problem(text))
    except (OSError, ValueError):  # names that are too long for a path, or cannot be one
        is_folder = False
    if is_folder or ("," not in text and text.lower().endswith(SUFFIXES)):
        what = "is a folder" if is_folder else "no such file of class names"
        raise AnnotationError(f"{text}: {what}. Give names as a,b,c or a text file with one per line")
    names = [(name, f"name {number}") for number, name in enumerate(text.split(","), 1)]
    return check_class_names(names, "class names")


def check_class_names(names: Sequence[Numbered], origin: str) -> tuple[str, ...]:
    """The names without blanks around them, where none is empty or comes twice.

    Args:
        names: each with its place, such as "line 3".
        origin: where they come from, for messages.
    """
    places: dict[str, str] = {}
    for name, place in names:
        name = name.strip()
        if not name:
            raise AnnotationError(f"{origin}, {place}: an empty class name, which would leave its number without one")
        if problem := name_problem(name):
            raise AnnotationError(f"{origin}, {place}: {name[:60]!a} is no class name: {problem}")
        if name in places:
            raise AnnotationError(
                f"{origin}, {place}: the class {name!r} comes twice, first in {places[name]}. Give each its own name"
            )
        places[name] = place
    return tuple(places)


def name_problem(name: str) -> str:
    """Why a text is no class name; empty where it is one."""
    if any(letter == BYTE_ORDER_MARK or unicodedata.category(letter) in NO_TEXT for letter in name):
        return "expected text on one line"
    if len(name) > MAX_NAME_CHARS:
        return f"it has {len(name)} characters, expected {MAX_NAME_CHARS} at most"
    return "it is a path, expected a name" if _PATH.match(name) else ""


def compose_yaml(path: Path) -> Any:
    """The root node of a YAML file, as PyYAML composes it; None where the file is empty.

    Raises:
        AnnotationError: unreadable, too long, or no YAML; names the line.
        MissingDependencyError: PyYAML is not installed.
    """
    yaml = optional.load("yaml")
    text = read_text(path, AnnotationError, 4 * MAX_YAML_CHARS)
    if len(text) > MAX_YAML_CHARS:
        raise AnnotationError(f"{path} has {len(text)} characters: YAML is read up to {MAX_YAML_CHARS}")
    try:
        # Nodes instead of values: nothing is constructed, aliases are not copied, and each knows its line
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark, reason = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = f", line {mark.line + 1}" if mark else ""
        raise AnnotationError(f"{path}{line} is no YAML: {' '.join(reason.split())[:200]}") from error


def _text_names(path: Path) -> Iterator[Numbered]:
    for number, line in enumerate(read_lines(path, AnnotationError, MAX_LIST_BYTES), 1):
        if re.match(r"#(\s|#|$)", line):
            continue
        if line.startswith("#"):
            raise AnnotationError(
                f"{path}, line {number}: {line[:60]!r} may be a comment or a name. Write '# ' before a comment; a name "
                "that starts so goes into YAML, in quotes"
            )
        yield line, f"line {number}"


def _yaml_names(path: Path) -> Iterator[Numbered]:
    yaml = optional.load("yaml")
    root = compose_yaml(path)
    is_mapping = isinstance(root, yaml.MappingNode)
    names = _entry(root, "names", path) if is_mapping else root
    if isinstance(names, yaml.MappingNode):
        found = _by_number(names, path)
    elif isinstance(names, yaml.SequenceNode):
        found = list(names.value)
    elif names is not None and names.value == "":
        found = []
    else:
        value = f"is {names.value[:60]!r}" if is_mapping and names is not None else "is missing"
        raise AnnotationError(f"{path}: the entry 'names' {value}. Expected a list of class names")
    count = _entry(root, "nc", path) if is_mapping else None
    if count is not None and count.value != "" and _text(count, path).strip() != str(len(found)):
        raise AnnotationError(
            f"{path}: nc is {count.value[:60]}, but there are {len(found)} names. Correct the one that is wrong"
        )
    yield from ((_text(node, path), _line(node)) for node in found)


def _entry(mapping: Any, key: str, path: Path) -> Any:
    """The node of an entry at the top of the file, None where there is none."""
    found = [(name, value) for name, value in mapping.value if name.value == key]
    if len(found) > 1:
        first, second = (_line(name) for name, _ in found[:2])
        raise AnnotationError(f"{path}, {second}: another entry {key!r}, the first is {first}")
    return found[0][1] if found else None


def _by_number(mapping: Any, path: Path) -> list[Any]:
    """The nodes of a mapping from numbers to names, from 0 on."""
    by_number: dict[int, Any] = {}
    for key, value in mapping.value:
        number = _text(key, path)
        if not re.fullmatch(r"[0-9]{1,9}", number):
            raise AnnotationError(f"{path}, {_line(key)}: {number[:60]!r} is no class number: expected 0, 1, 2")
        if int(number) in by_number:
            raise AnnotationError(f"{path}, {_line(key)}: the class number {number} comes twice")
        by_number[int(number)] = value
    missing = next((number for number in range(len(by_number)) if number not in by_number), None)
    if missing is not None:
        raise AnnotationError(
            f"{path}: names are numbered {sorted(by_number)[:10]}, without {missing}. Expected 0, 1, 2 and so on"
        )
    return [by_number[number] for number in range(len(by_number))]


def _text(node: Any, path: Path) -> str:
    """What a scalar says, as it is written."""
    if not isinstance(node.value, str):
        raise AnnotationError(
            f"{path}, {_line(node)}: expected a name, found a list or mapping. Put names with ': ' or [ in quotes"
        )
    return node.value


def _line(node: Any) -> str:
    return f"line {node.start_mark.line + 1}"
