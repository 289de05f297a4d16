"""Detect in image files, and write annotated copies and files of results."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfl_edge._version import __version__
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError, SourceError
from gfl_edge.files import check_output
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.filters.draw import draw_regions
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.images import IMAGE_SUFFIXES, image_files, is_image, read_image, reason_of, write_image
from gfl_edge.progress import progress_bar
from gfl_edge.redact import shown_source
from gfl_edge.results.formats import Format, Formats, check_results, loadable, result_files
from gfl_edge.results.image_result import numbered
from gfl_edge.results.journal import Finished, Journal, state_of
from gfl_edge.results.write import write_results
from gfl_edge.terminal.printable import word

if TYPE_CHECKING:
    from gfl_edge.detector import Detector, Prepared
    from gfl_edge.ops.preprocess import Image

JOURNAL = ".gfl_edge-detect.journal"  # in the output folder, until a run is finished

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image: the file it came from, its annotated copy, if there is one, its size, and what was found."""

    source: Path
    output: Path | None
    size_hw: tuple[int, int]
    detections: Detections

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``detections`` as by :meth:`Detections.to_dicts`."""
        return {
            "source": str(self.source),
            "output": None if self.output is None else str(self.output),
            "detections": self.detections.to_dicts(),
        }


@dataclass(frozen=True, eq=False)
class ImagesSummary:
    """What was done with some images.

    Attributes:
        images: those that were detected in.
        skipped: paths of those that could not be used.
        invalid: candidates of the model that can be no detections, such as boxes of NaN; they were left out.
        files: of results.
    """

    images: tuple[AnnotatedImage, ...]
    skipped: tuple[str, ...]
    invalid: int
    files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        # "pictures" is what scripts that read the output of gfl-edge detect know
        pictures = [image.to_dict() for image in self.images]
        files = [str(path) for path in self.files]
        return {"pictures": pictures, "skipped": list(self.skipped), "invalid": self.invalid, "files": files}


def detect_images(
    detector: Detector,
    paths: Sequence[str | Path],
    *,
    output_dir: str | Path,
    keep: DetectionFilter | None = None,
    copies: bool = True,
    formats: Formats | Sequence[Format] = (),
    draw_sigma: bool = False,
) -> ImagesSummary:
    """Detect in image files and write annotated copies and files of results, with progress on stderr.

    A run that was stopped, however that was, goes on where it was when it is started again with the same model and
    options: images that are finished, unchanged, and have their copies are not detected in again. Files of results are
    written at the end, all of them or none.

    Args:
        detector: run once per image; fastest with ``performance="throughput"``.
        paths: image files, and folders of which the images directly inside are taken, sorted by name.
        output_dir: made if it is missing. A copy keeps its image's name; where another copy or an input has that name
            already, a number is added: ``dog-2.jpg``. Older files of that name are replaced, inputs never.
        keep: which detections are drawn, written and returned; None: those from the score on that the model
            recommends, see :attr:`gfl_edge.spec.ModelSpec.shown_score`. Its regions are drawn, too; images beside them
            are left out.
        copies: whether annotated copies are written.
        formats: of files of results, in ``output_dir``; with the name of each, or as
            :data:`gfl_edge.results.formats.NAMES` has it.
        draw_sigma: whether copies show how sure the model is of each edge, see
            :func:`gfl_edge.media.draw.draw_detections`.

    Raises:
        SourceError: a path that does not exist or is no image, a folder without images, or no image can be used.
        InputError: ``keep`` does not fit the model, or ``output_dir`` cannot be written.
    """
    keep = (keep or DetectionFilter()).for_model(detector.spec)
    keep.check_sources(1)
    if draw_sigma:
        detector.spec.require_sigmas("draw_sigma")
    folder, sources = Path(output_dir), _collect(paths)
    outputs = _output_paths(sources, folder) if copies else []
    if outputs:
        check_output(outputs[0])
    files = result_files(formats, folder)
    check_results(files, [*sources, *outputs])
    drawn = {"copies": copies, "draw_sigma": draw_sigma}
    settings = {**detector.describe(), "keep": dataclasses.asdict(keep), **drawn, "version": __version__}
    pairs = list(zip(sources, outputs or itertools.repeat(None, len(sources)), strict=True))
    with Journal(folder / JOURNAL, settings, detector.spec.class_names) as journal:
        images, skipped, invalid = _detected(detector, pairs, keep, journal, bool(outputs or files), draw_sigma)
        if files:
            results = numbered((image.source, image.size_hw, image.detections) for image in images)
            write_results(results, files, detector.spec.class_names)
        journal.remove(sources)
    written = [*files.values(), *([loadable(files["coco"])] if "coco" in files else [])]
    return ImagesSummary(tuple(images), skipped, invalid, tuple(written))


def _detected(
    detector: Detector,
    pairs: Sequence[tuple[Path, Path | None]],
    keep: DetectionFilter,
    journal: Journal,
    writes: bool,
    draw_sigma: bool,
) -> tuple[list[AnnotatedImage], tuple[str, ...], int]:
    """What is in the images, in their order, paths of those that could not be used, and how much was invalid."""
    finished = {
        source: done
        for source, output in pairs
        if (done := journal.finished.get(str(source))) is not None and done.output == output and done.holds()
    }
    if finished:
        logger.info("going on with a run that was stopped: %d of %d images are done", len(finished), len(pairs))
    readable = _Readable([pair for pair in pairs if pair[0] not in finished], len(finished), detector, keep)
    for found in detector.infer_all(readable):
        source, output, state, image = readable.under_way.popleft()
        size = image.shape[0], image.shape[1]
        detections = keep.apply(found.detections[0], size)
        if output is not None:
            image = draw_regions(image, keep)
            write_image(output, draw_detections(image, detections, out=image, bands=draw_sigma))
        finished[source] = Finished(source, state, output, size, detections, found.invalid[0])
        if writes:
            journal.add(finished[source])
    if not finished:
        reasons = list(readable.reasons.values())
        several = f"none of {len(reasons)} images can be used: " if len(reasons) > 1 else ""
        raise SourceError(several + reasons[0])
    used = [finished[source] for source, _ in pairs if source in finished]
    images = [AnnotatedImage(one.source, one.output, one.size_hw, one.detections) for one in used]
    return images, tuple(readable.reasons), sum(one.invalid for one in used)


class _Readable:
    """Reads image files and prepares them, with progress on stderr; those that cannot be used are left out and logged.

    Attributes:
        under_way: source, output, state and image of those that are not yet written.
        reasons: why an image cannot be used, by its path.
    """

    def __init__(
        self, pairs: Sequence[tuple[Path, Path | None]], done: int, detector: Detector, keep: DetectionFilter
    ) -> None:
        self.under_way: deque[tuple[Path, Path | None, tuple[int, int], Image]] = deque()
        self.reasons: dict[str, str] = {}
        self._pairs, self._done, self._detector, self._keep = pairs, done, detector, keep

    def __iter__(self) -> Iterator[Prepared]:
        total = self._done + len(self._pairs)
        with progress_bar("detect", total, enabled=total > 1, done=self._done) as bar:
            for source, output in self._pairs:
                try:
                    state, image = state_of(source), read_image(source)
                    self._keep.check_frame((image.shape[0], image.shape[1]))
                    prepared = self._detector.prepare([image])
                except (InputError, OSError) as error:
                    reason = reason_of(error)
                    logger.warning("%s skipped: %s", source, reason)
                    self.reasons[str(source)] = f"{source}: {reason}"
                else:
                    self.under_way.append((source, output, state, image))
                    yield prepared
                bar.update()


def _collect(paths: Iterable[str | Path]) -> list[Path]:
    """Image files in the order given, folders opened, each file once."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not os.path.exists(path):  # noqa: PTH110  no error for what is no path
            raise SourceError(f"{shown_source(path)} does not exist: expected an image file or a folder of images")
        if not path.is_dir() and not is_image(path):
            raise SourceError(
                f"{shown_source(path)} is no image: expected a file ending in {', '.join(IMAGE_SUFFIXES)}. For videos "
                f"use: gfl-edge camera --source {word(shown_source(path))}"
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
