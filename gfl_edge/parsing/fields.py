"""Types of the fields of what is read from files: the limits of a value stand beside its type.

    @dataclass(frozen=True)
    class Turn:
        images: Count
        share: Annotated[float, Limits(gt=0, le=1)]

Nothing is checked until :mod:`gfl_edge.parsing.validation` reads such a class; importing this needs no other package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

MAX_SIDE = 8192  # pixels of an input; more is a slip of the pen
MAX_COUNT = 10**9  # of things that a machine has to count


class Limits:
    """Limits of a value, as ``Annotated[int, Limits(ge=1)]``; pydantic reads them and need not be there before.

    Args:
        limits: ge, gt, le and lt of numbers, min_length and max_length of texts and lists, pattern of texts.
    """

    def __init__(self, **limits: float | str) -> None:
        self.limits = limits

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), **self.limits}


Natural = Annotated[int, Limits(ge=0)]
Count = Annotated[int, Limits(ge=1)]
Amount = Annotated[int, Limits(ge=0, le=MAX_COUNT)]
NotNegative = Annotated[float, Limits(ge=0)]
Positive = Annotated[float, Limits(gt=0)]
Share = Annotated[float, Limits(ge=0, le=1)]
Side = Annotated[int, Limits(ge=32, le=MAX_SIDE)]  # pixels of an input
Sha256 = Annotated[str, Limits(pattern="^[0-9a-f]{64}$")]
OptionalSha256 = Annotated[str, Limits(pattern="^([0-9a-f]{64})?$")]
# What files are called by
FileName = Annotated[str, Limits(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
