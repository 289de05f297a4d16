"""Find small objects in a large image: detect in tiles that overlap, and join what was found, by supervision."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge import optional
from gfl_edge.console import run_command
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.filters.arguments import add_filter, read_filter
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.images import read_image, write_image
from gfl_edge.ops.preprocess import Image
from gfl_edge.parsing.numbers import whole_argument


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="examples/tiles.py", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="annotated copy")
    parser.add_argument("--tile", type=whole_argument(32, 16384), default=448, metavar="PX", help="side (default: 448)")
    parser.add_argument("--model", type=Path, metavar="M", help=".onnx or .engine file (default: the bundled detector)")
    add_filter(parser)
    return run_command(parser, _run, argv)


def in_tiles(detector: Detector, image: Image, tile: int) -> Detections:
    """What is found in tiles of ``tile`` x ``tile`` pixels, which overlap by a fifth, and in the image as a whole."""
    sv = optional.load("supervision")

    def found_in(part: Any) -> Any:
        return detector(part).to_supervision()

    overlap = tile // 5
    # Of two boxes the share of the smaller one: what the border of a tile cut off lies within the whole
    rule = {"overlap_metric": sv.OverlapMetric.IOS}
    limit = detector.spec.iou_threshold
    slicer = sv.InferenceSlicer(
        found_in, slice_wh=(tile, tile), overlap_wh=(overlap, overlap), iou_threshold=limit, **rule
    )
    whole = found_in(image)  # objects larger than a tile
    joined = sv.Detections.merge([slicer(image), whole]).with_nms(limit, **rule)
    return Detections.from_supervision(joined, detector.spec.class_names)


def _run(args: argparse.Namespace) -> int:
    image = read_image(args.image)
    with Detector(args.model) as detector:
        keep = read_filter(args).for_model(detector.spec)
        alone, found = (
            keep.apply(one, (image.shape[0], image.shape[1]))
            for one in (detector(image), in_tiles(detector, image, args.tile))
        )
    write_image(args.output, draw_detections(image, found))
    print(f"{len(found)} objects, {len(alone)} without tiles: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
