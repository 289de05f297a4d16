"""Images read and decoded ahead of who needs them, in their order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from gfl_edge.batch.source import is_address, open_address
from gfl_edge.errors import GflEdgeError, ImageError, InputError, MissingDependencyError
from gfl_edge.media.images import decode_image, read_image
from gfl_edge.media.limits import MAX_BYTES_PER_PIXEL, max_pixels
from gfl_edge.ops.preprocess import Image

AHEAD = 2  # images for each thread that are read and not yet taken
PAUSES_SECONDS = (0.5, 2.0, 8.0)  # before a service that failed is asked again
REMOTE_READERS = 16  # threads that wait for answers of a server most of the time


class UnansweredError(ImageError):
    """An image at an address could not be had, and not because it is not there or not for us: the service fails."""


def read_location(location: str) -> Image:
    """The image at a path or address, as :func:`gfl_edge.media.images.read_image`; raises ImageError."""
    if not is_address(location):
        return read_image(Path(location))
    try:
        system, path = open_address(location)
        content = system.cat_file(path, end=MAX_BYTES_PER_PIXEL * max_pixels())
    except MissingDependencyError:  # for all of its kind
        raise
    except Exception as error:  # of any library below fsspec: a server's answer must not end a run of millions
        if isinstance(error, FileNotFoundError):
            raise ImageError(location, "cannot be read (No such file or directory)") from error
        words = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        known = isinstance(error, (PermissionError, InputError))
        raise (ImageError if known else UnansweredError)(location, f"cannot be read ({words})") from error
    return decode_image(location, content)


def read_ahead(
    locations: Iterable[str], threads: int, patient: Callable[[str], bool] = lambda _: False
) -> Iterator[Image | GflEdgeError]:
    """Each image, or why it cannot be used, in order; at most ``AHEAD`` for each thread are held.

    Args:
        locations: paths and addresses.
        threads: that read and decode.
        patient: whether an image at this location is asked for again where the service fails.
    """
    with ThreadPoolExecutor(threads, "gfl_edge batch") as pool:
        under_way: deque[Future[Image | GflEdgeError]] = deque()
        try:
            for location in locations:
                under_way.append(pool.submit(_attempt, location, PAUSES_SECONDS if patient(location) else ()))
                if len(under_way) >= AHEAD * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _attempt(location: str, pauses: Sequence[float]) -> Image | GflEdgeError:
    """The image, or why it cannot be used; a service that failed is asked again after each pause."""
    try:
        return read_location(location)
    except UnansweredError as error:
        if not pauses:
            return error
        time.sleep(pauses[0])
        return _attempt(location, pauses[1:])
    except ImageError as error:
        return error
