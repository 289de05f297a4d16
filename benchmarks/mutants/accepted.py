"""The survivors that were read, with why they may live: accepted.toml beside this file."""

from __future__ import annotations

from pathlib import Path

from train.settings import read_toml

FILE = Path(__file__).with_suffix(".toml")


def accepted(module: str) -> dict[tuple[str, str], str]:
    """The reason of each explained mutant of a module, by its place and by what its changed lines read."""
    entries = read_toml(FILE).get(module, [])
    return {(entry["place"], after): entry["reason"] for entry in entries for after in entry["after"]}
