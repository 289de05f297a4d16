"""What a fault is: something done to a command, after which it has to stand as it promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One try.

    Attributes:
        name: of this try among those of its kind: "SIGKILL after 0.31 s".
        kind: a row of the table, in which the tries are counted: "export, killed".
        run: takes an empty folder of its own; raises, whatever it likes, if something did not hold.
    """

    name: str
    kind: str
    run: Callable[[Path], None]
