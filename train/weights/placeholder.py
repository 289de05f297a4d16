"""What stands where a checkpoint has an object that is neither a tensor nor a plain value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, slots=True)
class Placeholder:
    """The name of a class or function that a file mentions or calls; nothing of it is ever imported.

    Attributes:
        original: module.name.
    """

    original: str
