"""Count the objects in zones of each frame, by supervision's PolygonZone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gfl_edge import optional
from gfl_edge.camera import run_camera
from gfl_edge.console import run_command
from gfl_edge.detections import Detections
from gfl_edge.filters import Region
from gfl_edge.filters.arguments import add_filter, argument, read_filter
from gfl_edge.filters.regions import parse_region
from gfl_edge.media.sources import Frame


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/zone_count.py", description=__doc__)
    parser.add_argument("source", help="video file, URL, camera number or folder of images")
    parser.add_argument(
        "--zone",
        type=argument(parse_region),
        action="append",
        required=True,
        metavar="XY",
        help="corners; again for more",
    )
    parser.add_argument("--model", type=Path, metavar="M", help=".onnx or .engine file (default: the bundled detector)")
    add_filter(parser, "count")
    return run_command(parser, _run, argv)


def zones(regions: Sequence[Region], frame_hw: tuple[int, int]) -> list[Any]:
    """Zones of supervision; an object is in one with the middle of its lower edge."""
    sv = optional.load("supervision")
    corners = [np.rint(region.corners(frame_hw)).astype(np.int64) for region in regions]
    return [sv.PolygonZone(polygon=one, triggering_anchors=[sv.Position.BOTTOM_CENTER]) for one in corners]


def _run(args: argparse.Namespace) -> int:
    made: dict[tuple[int, int], list[Any]] = {}  # by the size of the frame, since zones may be in shares of it

    def count(frame: Frame, found: Detections) -> None:
        size = frame.image.shape[0], frame.image.shape[1]
        if size not in made:
            made[size] = zones(args.zone, size)
        there = found.to_supervision()
        print(frame.name, *(int(zone.trigger(there).sum()) for zone in made[size]))

    run_camera(args.model, args.source, keep=read_filter(args), show=False, on_frame=count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
