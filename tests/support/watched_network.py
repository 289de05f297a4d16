"""Commands under watch: which addresses of other machines they ask for."""

from __future__ import annotations

from pathlib import Path

WATCH = Path(__file__).with_name("watch")


def watched(environment: dict[str, str], log: Path) -> dict[str, str]:
    """The environment in which Python processes write to ``log`` whom they contact."""
    path = environment.get("PYTHONPATH", "")
    return {**environment, "PYTHONPATH": f"{WATCH}:{path}" if path else str(WATCH), "GFL_EDGE_WATCHED": str(log)}


def contacts(log: Path) -> list[str]:
    """A line for each time that somebody was to be contacted."""
    return log.read_text().splitlines() if log.exists() else []
