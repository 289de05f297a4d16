"""The command ``gfl-edge detect``."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from gfl_edge.cli.options import add_draw_sigma, add_format, add_model, open_detector
from gfl_edge.console import log
from gfl_edge.filters.arguments import add_filter, read_filter
from gfl_edge.media.annotate import ImagesSummary, detect_images
from gfl_edge.parsing.json_text import readable_json
from gfl_edge.results.formats import join_formats

NAMED = 5  # classes, of what was found


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    add_filter(parser)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files or folders of them")
    parser.add_argument(
        *("-o", "--output-dir"),
        type=Path,
        default=Path("detections"),
        metavar="DIR",
        help="where to write (default: detections)",
    )
    add_format(parser)
    add_draw_sigma(parser)
    parser.add_argument("--no-images", action="store_false", dest="copies", help="write no annotated copies")


def run(args: argparse.Namespace) -> int:
    """Write annotated copies of the images; print the summary."""
    keep, formats = read_filter(args), join_formats(args.format)
    with open_detector(args, "throughput") as detector:
        summary = detect_images(
            detector,
            args.images,
            output_dir=args.output_dir,
            keep=keep,
            copies=args.copies,
            formats=formats,
            draw_sigma=args.draw_sigma,
        )
    print(readable_json(summary.to_dict()))
    log(_said(summary, args.output_dir if args.copies else None))
    return 0


def _said(summary: ImagesSummary, copies: Path | None) -> str:
    """What was found, for the person at the terminal."""
    counts = Counter(name for image in summary.images for _, _, name in image.detections)
    often = [f"{count} {name}" for name, count in counts.most_common(NAMED)]
    often += [f"{len(counts) - NAMED} classes more"] if len(counts) > NAMED else []
    left_out = f"; images left out: {len(summary.skipped)}" if summary.skipped else ""
    written = [f"annotated copies in {copies}"] if copies else []
    written += map(str, summary.files)
    return f"found {', '.join(often) or 'nothing'}{left_out}{''.join(f'; {one}' for one in written)}"
