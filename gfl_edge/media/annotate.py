"""Detect in image files and write annotated copies."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfl_edge.detections import Detections
from gfl_edge.errors import FrameError, ImageError, SourceError
from gfl_edge.files import check_output
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.images import IMAGE_SUFFIXES, image_files, is_image, read_image, write_image
from gfl_edge.parsing.numbers import number
from gfl_edge.progress import track
from gfl_edge.redact import shown_source

if TYPE_CHECKING:
    from gfl_edge.detector import Detector, Prepared
    from gfl_edge.ops.preprocess import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image: the file it came from, its annotated copy, and what was found."""

    source: Path
    output: Path
    detections: Detections

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``detections`` as by :meth:`Detections.to_dicts`."""
        return {
            "source": str(self.source),
            "output": str(self.output),
            "detections": self.detections.to_dicts(),
        }


@dataclass(frozen=True, eq=False)
class ImagesSummary:
    """What was done with some images.

    Attributes:
        images: those that were detected in.
        skipped: paths of those that could not be used.
        invalid: candidates of the model that can be no detections, such as boxes of NaN; they were left out.
    """

    images: tuple[AnnotatedImage, ...]
    skipped: tuple[str, ...]
    invalid: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        # "pictures" is what scripts that read the output of gfl-edge detect know
        pictures = [image.to_dict() for image in self.images]
        return {"pictures": pictures, "skipped": list(self.skipped), "invalid": self.invalid}


def detect_images(
    detector: Detector, paths: Sequence[str | Path], *, output_dir: str | Path, score: float | None = None
) -> ImagesSummary:
    """Detect in image files and write annotated copies, with progress on stderr.

    Args:
        detector: run once per image; fastest with ``performance="throughput"``.
        paths: image files, and folders of which the images directly inside are taken, sorted by name.
        output_dir: made if it is missing. A copy keeps its image's name; where another copy or an input has that name
            already, a number is added: ``dog-2.jpg``. Older files of that name are replaced, inputs never.
        score: detections with at least this score are drawn and returned; None: what the model recommends, see
            :attr:`gfl_edge.spec.ModelSpec.shown_score`.

    Raises:
        SourceError: a path that does not exist or is no image, a folder without images, or no image can be used.
        InputError: ``score``, or ``output_dir`` cannot be written.
    """
    if score is None:
        score = detector.spec.shown_score
    number("score", score, 0, 1)
    sources = _collect(paths)
    outputs = _output_paths(sources, Path(output_dir))
    check_output(outputs[0])
    readable = _Readable(zip(sources, outputs, strict=True), len(sources), detector)
    images, invalid = [], 0
    for found in detector.infer_all(readable):
        source, output, image = readable.under_way.popleft()
        detections = found.detections[0].above(score)
        invalid += found.invalid[0]
        write_image(output, draw_detections(image, detections, out=image))
        images.append(AnnotatedImage(source, output, detections))
    skipped, reasons = list(readable.reasons), list(readable.reasons.values())
    if not images:
        several = f"none of {len(reasons)} images can be used: " if len(reasons) > 1 else ""
        raise SourceError(several + reasons[0])
    return ImagesSummary(tuple(images), tuple(skipped), invalid)


class _Readable:
    """Reads image files and prepares them, with progress on stderr; those that cannot be used are left out and logged.

    Attributes:
        under_way: source, output and image of those that are not yet written.
        reasons: why an image cannot be used, by its path.
    """

    def __init__(self, paths: Iterable[tuple[Path, Path]], count: int, detector: Detector) -> None:
        self.under_way: deque[tuple[Path, Path, Image]] = deque()
        self.reasons: dict[str, str] = {}
        self._paths, self._count, self._detector = paths, count, detector

    def __iter__(self) -> Iterator[Prepared]:
        for source, output in track(self._paths, "detect", self._count, enabled=self._count > 1):
            try:
                image = read_image(source)
                prepared = self._detector.prepare([image])
            except (ImageError, FrameError) as error:
                reason = f"it {error.reason}" if isinstance(error, ImageError) else str(error)
                logger.warning("%s skipped: %s", source, reason)
                self.reasons[str(source)] = f"{source}: {reason}"
                continue
            self.under_way.append((source, output, image))
            yield prepared


def _collect(paths: Iterable[str | Path]) -> list[Path]:
    """Image files in the order given, folders opened, each file once."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not os.path.exists(path):  # noqa: PTH110  no error for what is no path
            raise SourceError(f"{shown_source(path)} does not exist: expected an image file or a folder of images")
        if not path.is_dir() and not is_image(path):
            raise SourceError(
                f"{shown_source(path)} is no image: expected a file ending in {', '.join(IMAGE_SUFFIXES)}. For videos "
                f"use: gfl-edge camera --source {shown_source(path)}"
            )
        for file in image_files(path) if path.is_dir() else [path]:
            found.setdefault(Path(os.path.realpath(file)), file)  # of a link in a circle resolve() raises
    if not found:
        raise SourceError("no images: give image files or folders of them")
    return list(found.values())


def _output_paths(sources: Sequence[Path], folder: Path) -> list[Path]:
    """A path in ``folder`` for every source, none twice and none that is itself a source."""
    # Compared in lower case, as Windows and macOS take Dog.jpg and dog.JPG for one file
    taken = {os.path.realpath(source).lower() for source in sources}
    outputs = []
    for source in sources:
        output, number = folder / source.name, 1
        while os.path.realpath(output).lower() in taken:
            number += 1
            output = folder / f"{source.stem}-{number}{source.suffix}"
        taken.add(os.path.realpath(output).lower())
        outputs.append(output)
    return outputs
