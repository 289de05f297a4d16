"""Lists of class names: a text file, or the ``names`` entry of a YOLO data set's YAML."""

from __future__ import annotations

import re
from pathlib import Path

from gfl_edge.errors import AnnotationError

_ITEM = re.compile(r"""\s*(?:(\d+)\s*:\s*)?("[^"]*"|'[^']*'|[^,]+?)\s*(?:,|$)""")


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The class names of a file, in order.

    Text: one name per line. YAML (``.yaml``, ``.yml``): the entry ``names``, as a list or as a mapping from 0 on, in a
    block or in brackets; the rest of the file is not looked at. No YAML package is needed.

    Raises:
        AnnotationError: unreadable, no names, a gap in the mapping, or a name that comes twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{path} cannot be read as a list of class names ({error})") from error
    if path.suffix.lower() in (".yaml", ".yml"):
        names = _yaml_names(text, path)
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names or len(set(names)) != len(names):
        raise AnnotationError(f"{path}: {len(names)} class names, {len(set(names))} of them different: {names[:10]}")
    return tuple(names)


def _yaml_names(text: str, path: Path) -> list[str]:
    text = re.sub(r"(?m)(^|\s)#.*$", "", text)
    entry = re.search(r"(?m)^names[ \t]*:[ \t]*(.*)$", text)
    if entry is None:
        raise AnnotationError(f"{path} has no entry 'names': expected a list of class names")
    rest = text[entry.start(1) :]
    if rest.startswith(("[", "{")):
        inside = re.match(r"[\[{](.*?)[\]}]", rest, re.DOTALL)
        items = _ITEM.findall(inside[1].strip()) if inside else []
    else:
        block = re.match(r"\s*?\n((?:[ \t]+\S.*\n?|-.*\n?|[ \t]*\n)*)", rest)
        lines = [re.sub(r"^-\s+", "", line.strip()) for line in block[1].splitlines()] if block else []
        items = [match.groups() for line in lines if line and (match := re.fullmatch(_ITEM, line))]
    numbers = [int(number) for number, _ in items if number]
    if numbers and numbers != list(range(len(items))):
        raise AnnotationError(f"{path}: names are numbered {numbers[:10]}, expected 0, 1, 2 and so on without gaps")
    return [name.strip("\"'") for _, name in items]
