"""Images read and decoded ahead of who needs them, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from gfl_edge.batch.source import is_address, open_address
from gfl_edge.errors import GflEdgeError, ImageError
from gfl_edge.media.images import decode_image, read_image
from gfl_edge.media.limits import MAX_BYTES_PER_PIXEL, max_pixels
from gfl_edge.ops.preprocess import Image

AHEAD = 2  # images for each thread that are read and not yet taken
REMOTE_READERS = 16  # threads that wait for answers of a server most of the time


def read_location(location: str) -> Image:
    """The image at a path or address, as :func:`gfl_edge.media.images.read_image`; raises ImageError."""
    if not is_address(location):
        return read_image(Path(location))
    try:
        system, path = open_address(location)
        content = system.cat_file(path, end=MAX_BYTES_PER_PIXEL * max_pixels())
    except Exception as error:  # of any library below fsspec: a server's answer must not end a run of millions
        words = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            words = "No such file or directory"
        raise ImageError(location, f"cannot be read ({words})") from error
    return decode_image(location, content)


def read_ahead(locations: Iterable[str], threads: int) -> Iterator[Image | GflEdgeError]:
    """Each image, or why it cannot be used, in order; at most ``AHEAD`` for each thread are held."""
    with ThreadPoolExecutor(threads, "gfl_edge batch") as pool:
        under_way: deque[Future[Image | GflEdgeError]] = deque()
        try:
            for location in locations:
                under_way.append(pool.submit(_attempt, location))
                if len(under_way) >= AHEAD * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _attempt(location: str) -> Image | GflEdgeError:
    try:
        return read_location(location)
    except ImageError as error:
        return error
