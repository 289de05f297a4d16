"""The journal of a run over many images: which are finished, so that the same run goes on after it was stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gfl_edge.detections import Detections
from gfl_edge.errors import InputError, OutputError
from gfl_edge.files import is_file, size_bytes
from gfl_edge.media.lines import JsonLinesSink
from gfl_edge.parsing.json_text import parse_json

MAX_LINE_BYTES = 1 << 24

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Finished:
    """An image that is finished.

    Attributes:
        source: the image file.
        state: its size in bytes and the time it was changed, in nanoseconds.
        output: its annotated copy, if there is one.
        size_hw: (height, width) of the image in pixels.
        detections: those that count.
        invalid: candidates that were left out since they can be no detections.
    """

    source: Path
    state: tuple[int, int]
    output: Path | None
    size_hw: tuple[int, int]
    detections: Detections
    invalid: int

    def holds(self) -> bool:
        """Whether the image is the same still, and its annotated copy is there."""
        copied = self.output is None or size_bytes(self.output) > 0
        return copied and is_file(self.source) and state_of(self.source) == self.state

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON that lose nothing."""
        found = self.detections
        return {
            "source": str(self.source),
            "state": self.state,
            "output": None if self.output is None else str(self.output),
            "size_hw": self.size_hw,
            "invalid": self.invalid,
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "class_ids": found.class_ids.tolist(),
            "edge_sigma": None if found.edge_sigma is None else found.edge_sigma.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], class_names: tuple[str, ...]) -> Finished:
        """What :meth:`to_dict` gave; raises KeyError, TypeError, ValueError or InputError where it did not."""
        size, changed = values["state"]
        height, width = values["size_hw"]
        sigmas = values["edge_sigma"]
        found = Detections(
            np.array(values["boxes"], np.float32).reshape(-1, 4),
            np.array(values["scores"], np.float32),
            np.array(values["class_ids"], np.int32),
            class_names,
            edge_sigma=None if sigmas is None else np.array(sigmas, np.float32).reshape(-1, 4),
        )
        output = values["output"]
        return cls(
            source=Path(values["source"]),
            state=(int(size), int(changed)),
            output=None if output is None else Path(output),
            size_hw=(int(height), int(width)),
            detections=found,
            invalid=int(values["invalid"]),
        )


class Journal:
    """Finished images in a file, each written as it is finished.

    A run that is killed loses none of them, and one whose line was cut is not in it. The file is there until
    :meth:`remove` of its images; a run with other settings starts it anew. Usable as a context manager, which closes
    it.

    Args:
        path: of the file.
        settings: what the results depend on, plain values.
        class_names: of the model.

    Attributes:
        finished: by the text of their paths.

    Raises:
        OutputError: another run is writing it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], class_names: tuple[str, ...]) -> None:
        self._path = path
        self._header = json.loads(json.dumps({"settings": settings}, default=float, allow_nan=False))
        self.finished: dict[str, Finished] = {}
        self._lines: JsonLinesSink | None = None
        self._added = 0
        if is_file(path):
            self._open()
            self._read(class_names)

    def add(self, finished: Finished) -> None:
        """Write that an image is finished; raises OutputError where the disk is full."""
        lines = self._lines or self._open()
        lines.write(finished.to_dict())
        self._added += 1

    def remove(self, sources: Iterable[Path]) -> None:
        """The run over these images is finished: nothing is left to go on with.

        Unless a run over other images was stopped and this one came between, as to try something: its images stay
        finished.
        """
        self.close()
        others = self.finished.keys() - set(map(str, sources))
        if not any(is_file(self.finished[other].source) for other in others):
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is not None and self._added:
            logger.info("stopped after %d more images: the same command goes on from there", self._added)

    def _open(self) -> JsonLinesSink:
        """Take the file; a new one begins with the settings."""
        try:
            self._lines = JsonLinesSink(self._path, keep=True)
        except OutputError as error:
            raise OutputError(f"{error}. Another run writes into {self._path.parent}: wait for it") from error
        if not size_bytes(self._path):
            self._lines.write(self._header)
        return self._lines

    def _read(self, class_names: tuple[str, ...]) -> None:
        """Take what was finished, up to the first line that was cut; after that the file ends."""
        assert self._lines is not None
        whole_bytes = 0
        for number, (values, end_bytes) in enumerate(_lines_of(self._path)):
            try:
                if number == 0 and values != self._header:
                    logger.info("%s is of a run with another model or other options: starting anew", self._path)
                    break
                if number:
                    finished = Finished.from_dict(values, class_names)
                    self.finished[str(finished.source)] = finished
            except (KeyError, TypeError, ValueError, OverflowError, InputError):
                break
            whole_bytes = end_bytes
        self._lines.cut(whole_bytes)
        if not whole_bytes:
            self._lines.write(self._header)


def state_of(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _lines_of(path: Path) -> Iterator[tuple[Any, int]]:
    """The values of each whole line that is JSON, up to one that is not, and where in the file it ends."""
    end = 0
    with path.open("rb") as file:
        while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            end += len(line)
            try:
                yield parse_json(line.decode()), end
            except ValueError:
                return
