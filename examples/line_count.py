"""Count the objects that cross a line, by supervision's LineZone and the identities of the camera."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gfl_edge import optional
from gfl_edge.camera import run_camera
from gfl_edge.console import run_command
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.filters.arguments import add_filter, argument, read_filter
from gfl_edge.filters.regions import parse_numbers
from gfl_edge.media.sources import Frame

Ends = tuple[float, float, float, float]  # x1, y1, x2, y2

LINE = "its ends, in pixels of the frame or, where all numbers are 0..1, as shares of it"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/line_count.py", description=__doc__)
    parser.add_argument("source", help="video file, URL or camera number")
    parser.add_argument("--line", type=argument(parse_line), required=True, metavar="X1,Y1,X2,Y2", help=LINE)
    parser.add_argument("--model", type=Path, metavar="M", help=".onnx or .engine file (default: the bundled detector)")
    add_filter(parser, "count")
    return run_command(parser, _run, argv)


def parse_line(text: str) -> Ends:
    """The ends of a line."""
    ends = parse_numbers(text)
    if len(ends) != 4 or not np.isfinite(ends).all() or ends[:2] == ends[2:]:
        raise InputError(f"{text!r}: expected the two ends of a line, as 0,240,640,240 or 0,0.5,1,0.5")
    return ends


def in_pixels(ends: Ends, frame_hw: tuple[int, int]) -> Ends:
    """The ends of a line, which may be shares of a frame of that size, in its pixels."""
    if not all(0 <= end <= 1 for end in ends):
        return ends
    height, width = frame_hw
    return ends[0] * width, ends[1] * height, ends[2] * width, ends[3] * height


def line_zone(x1: float, y1: float, x2: float, y2: float) -> Any:
    """A line of supervision; an object crosses it with the middle of its lower edge."""
    sv = optional.load("supervision")
    return sv.LineZone(sv.Point(x1, y1), sv.Point(x2, y2), triggering_anchors=[sv.Position.BOTTOM_CENTER])


def _run(args: argparse.Namespace) -> int:
    lines: list[Any] = []

    def count(frame: Frame, found: Detections) -> None:
        if not lines:
            lines.append(line_zone(*in_pixels(args.line, (frame.image.shape[0], frame.image.shape[1]))))
        assert found.track_ids is not None
        lines[0].trigger(found[found.track_ids >= 0].to_supervision())  # others have no identity yet

    run_camera(args.model, args.source, keep=read_filter(args), show=False, track=True, on_frame=count)
    (line,) = lines  # a run without a frame is an error
    print(f"in {line.in_count}, out {line.out_count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
