"""Every driver, by its name: the lists READERS of the modules in tests/fuzz/readers."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.fuzz.reader import Reader

ROOMS = sorted(path.stem for path in (Path(__file__).parent / "readers").glob("*.py"))


def all_readers() -> dict[str, Reader]:
    """The drivers of all rooms; importing a room makes no seeds and loads no large library."""
    found: dict[str, Reader] = {}
    for room in ROOMS:
        for reader in importlib.import_module(f"tests.fuzz.readers.{room}").READERS:
            assert reader.name not in found, f"two drivers are called {reader.name}"
            found[reader.name] = reader
    return found
