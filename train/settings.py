"""Settings from TOML files and checkpoints: reading them, and the paths in them.

:func:`gfl_edge.parsing.validation.build` makes dataclasses of them, with the places of paths as their context.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from gfl_edge import optional
from gfl_edge.annotations.text import read_text
from gfl_edge.errors import InputError
from train.weights.find import data_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = optional.load("tomli")

MAX_BYTES = 1 << 20  # of a file of settings
MAX_DOTS = 200  # of a line; tomllib takes 30 s for a key of 100,000 parts
DATA_VARIABLE = "$GFL_EDGE_DATA"


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a TOML text; raises ValueError where it is none."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MAX_DOTS:
            raise ValueError(f"line {number} has more than {MAX_DOTS} dots")
    return tomllib.loads(text)


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; raises InputError where it cannot be read or is none."""
    try:
        return parse_toml(read_text(path, max_bytes=MAX_BYTES))
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
    """Those that :func:`gfl_edge.parsing.validation.build` was called with."""
    return info.context or Places()


def _refuse_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("expected a path")
    return value


OutputPath = Annotated[Path, BeforeValidator(_refuse_empty)]  # relative to the working directory
InputPath = Annotated[OutputPath, AfterValidator(lambda path, info: places(info).find(path))]
DataPath = Annotated[OutputPath, AfterValidator(lambda path, info: places(info).find_data(path))]
