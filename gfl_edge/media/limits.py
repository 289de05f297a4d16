"""How large an image may be: some bytes of a file can stand for gigabytes of pixels."""

from __future__ import annotations

import os

from gfl_edge.errors import InputError

PIXELS_VARIABLE = "GFL_EDGE_MAX_PIXELS"
MAX_PIXELS = 2**27  # 134 million, 0.4 GB as BGR: more than cameras have, and what a small device can hold
MAX_BYTES_PER_PIXEL = 8  # in a file: four values of 16 bits, not compressed


def max_pixels() -> int:
    """Pixels that an image or video frame may have: ``GFL_EDGE_MAX_PIXELS``, else ``MAX_PIXELS``.

    Raises:
        InputError: the variable is no whole number above 0.
    """
    named = os.environ.get(PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not named.isdecimal() or int(named[:20]) == 0:
        raise InputError(
            f"{PIXELS_VARIABLE} is {named[:40]!r}: expected a whole number of pixels, such as {MAX_PIXELS}"
        )
    return int(named[:20])


def too_large(width: float, height: float) -> str:
    """Why an image of so many pixels is not decoded, and what to do; "" if it may be."""
    allowed = max_pixels()
    if width * height <= allowed:
        return ""
    return (
        f"too large, at most {allowed} pixels are decoded. Scale it down or cut it into tiles, or set "
        f"{PIXELS_VARIABLE} to {round(width * height)} if there is memory for {3 * width * height / 1e9:.1f} GB"
    )
