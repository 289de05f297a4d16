"""A chunk of images in, its part of the result out: what every worker does, here or on a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gfl_edge.backends.onnx_cpu import cores
from gfl_edge.batch.reading import REMOTE_READERS, UnansweredError, read_ahead
from gfl_edge.batch.rows import Row, encode_part
from gfl_edge.batch.source import Source, is_address
from gfl_edge.detector import Detector, Prepared
from gfl_edge.errors import GflEdgeError, InputError, SourceError
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.media.images import reason_of
from gfl_edge.redact import redact

MAX_UNANSWERED = 100  # images in a row, before a service is taken to be away: its images are not marked as failed
MIN_READERS = 2  # so that an image is read while another is decoded


class ChunkDetector:
    """Detects in images, chunk after chunk.

    Args:
        detector: fastest with ``performance="throughput"``.
        keep: which detections count, after :meth:`gfl_edge.filters.DetectionFilter.for_model`.
        source: of the images.
    """

    def __init__(self, detector: Detector, keep: DetectionFilter, source: Source) -> None:
        self._detector, self._keep, self._source = detector, keep, source

    def part(self, names: Sequence[str], progress: Callable[[], object] = lambda: None) -> bytes:
        """The part of these images, as :func:`gfl_edge.batch.rows.encode_part` has it, a row for each in their order.

        Args:
            names: of the images, as the source has them.
            progress: called after each image.

        Raises:
            BackendError: the library that runs the model failed.
        """
        rows: list[Row] = [Row(self._source.shown(name)) for name in names]
        under_way: deque[tuple[int, tuple[int, int]]] = deque()
        for found in self._detector.infer_all(self._prepared(names, rows, under_way, progress)):
            number, size_hw = under_way.popleft()
            kept = self._keep.apply(found.detections[0], size_hw)
            rows[number] = Row(rows[number].image, size_hw, kept, found.invalid[0])
        return encode_part(rows, self._detector.spec.edge_sigma)

    def _prepared(
        self,
        names: Sequence[str],
        rows: list[Row],
        under_way: deque[tuple[int, tuple[int, int]]],
        progress: Callable[[], object],
    ) -> Iterator[Prepared]:
        """The images that can be used, their numbers and sizes to ``under_way``; why others cannot, to their rows."""
        locations = [self._source.location(name) for name in names]
        remote = any(map(is_address, locations))
        threads = REMOTE_READERS if remote else max(MIN_READERS, cores())
        unanswered = 0  # images in a row
        for number, image in enumerate(read_ahead(locations, threads, self._source.is_one_service)):
            failing = isinstance(image, UnansweredError) and self._source.is_one_service(locations[number])
            unanswered = unanswered + 1 if failing else 0
            if unanswered == min(MAX_UNANSWERED, len(names)):
                raise SourceError(
                    f"the last {unanswered} images could not be read ({image}): give the same command again, which "
                    "goes on where this run was, when they can be"
                )
            try:
                if isinstance(image, GflEdgeError):
                    raise image
                size_hw = image.shape[0], image.shape[1]
                self._keep.check_frame(size_hw)
                prepared = self._detector.prepare([image])
            except InputError as error:
                rows[number] = Row(rows[number].image, error=redact(" ".join(reason_of(error).split())))
            else:
                under_way.append((number, size_hw))
                yield prepared
            progress()
