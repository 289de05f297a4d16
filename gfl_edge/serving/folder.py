"""Folders that a server reads: written whole, and never over what is somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gfl_edge.errors import OutputError
from gfl_edge.files import cannot_write, write_together


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, all or on an error none, unless that would change one that is there.

    So what was edited there, and what belongs to another model, stays; a run that was stopped is completed by the next.

    Args:
        folder: where; it and folders above are made. Other files in it stay.
        contents: of the files, by paths in it with slashes, in the order in which they are to appear.

    Raises:
        OutputError: a file is there that differs, or the folder cannot be written.
    """
    paths = {folder / name: content for name, content in contents.items()}
    for path, content in paths.items():
        try:
            differs = path.exists() and path.read_bytes() != content
        except OSError as error:
            raise cannot_write(path, error) from error
        if differs:
            raise OutputError(
                f"{path} is there and differs from what would be written. Choose another place, or remove it"
            )
    write_together(paths)
