"""Parts of a long measurement, kept in its folder, so that one that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file says, which is made unless it is there."""
    if not path.is_file():
        write_atomically(path, json_text(make()).encode())
    found: dict[str, Any] = json.loads(path.read_text())
    return found
