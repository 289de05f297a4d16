"""Frames of clips with the detections of the bundled detector, as one image: docs/images/detections.webp.

The clips of the committed image are named in THIRD_PARTY_NOTICES.md; none is part of the repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge import optional
from gfl_edge.console import run_command
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError
from gfl_edge.files import write_atomically
from gfl_edge.media.draw import contact_sheet, draw_detections
from gfl_edge.media.opening import open_source
from gfl_edge.ops.preprocess import Image

OUTPUT = Path("docs/images/detections.webp")
COLUMNS, WIDTH = 2, 964
QUALITY = 82  # of WebP, 0..100


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/readme_images.py", description=__doc__)
    parser.add_argument("frames", nargs="+", metavar="CLIP:FRAME", help="a video or GIF, and the frame's index from 0")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT, metavar="FILE", help=f"a WebP (default: {OUTPUT})")
    return run_command(parser, _run, argv)


def read_frame(text: str) -> Image:
    """The frame that ``CLIP:FRAME`` names, uint8 ``[H, W, 3]`` BGR.

    Raises:
        InputError: no index, or the clip has no such frame.
        SourceError: the clip cannot be read.
    """
    clip, _, index = text.rpartition(":")
    if not clip or not index.isdecimal():
        raise InputError(f"'{text}' was given: expected CLIP:FRAME, such as street.mp4:120")
    with open_source(clip) as source:
        for frame in source:
            if frame.index == int(index):
                return frame.image
    raise InputError(f"{clip} has no frame {index}: expected an index from 0 to the number of its frames less one")


def _run(args: argparse.Namespace) -> int:
    images = [read_frame(text) for text in args.frames]
    with Detector() as detector:
        drawn = [draw_detections(image, detector(image).above(detector.spec.shown_score)) for image in images]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2 = optional.load("cv2")
    sheet = contact_sheet(drawn, COLUMNS, WIDTH)
    write_atomically(args.output, cv2.imencode(".webp", sheet, (cv2.IMWRITE_WEBP_QUALITY, QUALITY))[1].tobytes())
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
