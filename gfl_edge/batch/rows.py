"""Results of images as rows of Parquet: their columns, and a chunk of them as the bytes of a file."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np

from gfl_edge import optional
from gfl_edge.detections import Detections
from gfl_edge.parsing.json_text import json_text

COMPRESSION = "zstd"
_COUNTS = b"gfl_edge_counts"  # metadata of a part


@dataclass(frozen=True, eq=False)
class Row:
    """One image.

    Attributes:
        image: its path or address.
        size_hw: (height, width) in pixels; None where it cannot be used.
        detections: those that count; None where it cannot be used.
        invalid: candidates that were left out since they can be no detections.
        error: why it cannot be used.
    """

    image: str
    size_hw: tuple[int, int] | None = None
    detections: Detections | None = None
    invalid: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Counts:
    """How many images there are, how many of them cannot be used, how many detections and invalid candidates.

    Attributes:
        reason: why the first of those that cannot be used cannot.
    """

    images: int = 0
    failed: int = 0
    detections: int = 0
    invalid: int = 0
    reason: str = ""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.images + other.images,
            self.failed + other.failed,
            self.detections + other.detections,
            self.invalid + other.invalid,
            self.reason or other.reason,
        )


def schema(with_sigma: bool) -> Any:
    """The columns, a ``pyarrow.Schema``; lists are null where an image cannot be used, empty where it shows nothing."""
    arrow = optional.load("pyarrow")
    corners = arrow.list_(arrow.list_(arrow.float32(), 4))
    columns = [
        arrow.field("image", arrow.string(), nullable=False),
        arrow.field("width", arrow.int32()),
        arrow.field("height", arrow.int32()),
        arrow.field("boxes", corners),
        arrow.field("scores", arrow.list_(arrow.float32())),
        arrow.field("class_ids", arrow.list_(arrow.int32())),
        arrow.field("class_names", arrow.list_(arrow.string())),
    ]
    if with_sigma:
        columns.append(arrow.field("edge_sigma", corners))
    return arrow.schema([*columns, arrow.field("error", arrow.string())])


def encode_part(rows: Sequence[Row], with_sigma: bool) -> bytes:
    """Rows as the bytes of a Parquet file, which says their counts."""
    arrow, parquet = optional.load("pyarrow"), optional.load("pyarrow.parquet")
    found = [row.detections for row in rows]
    named = [one for one in found if one is not None]
    names = np.array(named[0].class_names if named else (), object)
    class_ids = _joined([one.class_ids for one in named], (0,), np.int32)
    lists = {
        "boxes": _corners([one.boxes for one in named]),
        "scores": arrow.array(_joined([one.scores for one in named], (0,), np.float32)),
        "class_ids": arrow.array(class_ids),
        "class_names": arrow.array(names[class_ids], arrow.string()),
    }
    if with_sigma:
        lists["edge_sigma"] = _corners([one.edge_sigma for one in named])
    ends = [0, *accumulate(0 if one is None else len(one) for one in found)]
    starts = [None if one is None else start for one, start in zip(found, ends, strict=False)]
    offsets = arrow.array([*starts, ends[-1]], arrow.int32())
    columns = {
        "image": arrow.array([printable_utf8(row.image) for row in rows], arrow.string()),
        "width": arrow.array([row.size_hw and row.size_hw[1] for row in rows], arrow.int32()),
        "height": arrow.array([row.size_hw and row.size_hw[0] for row in rows], arrow.int32()),
        **{name: arrow.ListArray.from_arrays(offsets, values) for name, values in lists.items()},
        "error": arrow.array([row.error and printable_utf8(row.error) for row in rows], arrow.string()),
    }
    counts = {_COUNTS: json_text(asdict(_counted(rows))).encode()}
    written = io.BytesIO()
    table = arrow.Table.from_pydict(columns, schema=schema(with_sigma).with_metadata(counts))
    parquet.write_table(table, written, compression=COMPRESSION, write_page_checksum=True)
    return written.getvalue()


def read_counts(part: BinaryIO) -> Counts | None:
    """What a part, an open file, says of its rows at its end; None where it is no part, or not whole."""
    arrow, parquet = optional.load("pyarrow"), optional.load("pyarrow.parquet")
    try:
        found = parquet.read_schema(part)
        return Counts(**json.loads(found.metadata[_COUNTS]))
    except (arrow.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def printable_utf8(text: str) -> str:
    """Bytes of a file name that are no UTF-8 as ``\\udc..``, as CSV files of results have them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _counted(rows: Sequence[Row]) -> Counts:
    errors = [row.error for row in rows if row.error is not None]
    detections = sum(len(row.detections) for row in rows if row.detections is not None)
    return Counts(len(rows), len(errors), detections, sum(row.invalid for row in rows), errors[0] if errors else "")


def _corners(several: Sequence[Any]) -> Any:
    """Arrays ``[n, 4]`` as one of lists of four."""
    arrow = optional.load("pyarrow")
    values = arrow.array(_joined(several, (0, 4), np.float32).reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(values, 4)


def _joined(arrays: Sequence[Any], empty: tuple[int, ...], dtype: Any) -> Any:
    return np.concatenate([np.zeros(empty, dtype), *arrays]).astype(dtype, copy=False)
