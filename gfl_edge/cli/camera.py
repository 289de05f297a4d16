"""The command ``gfl-edge camera``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from gfl_edge.camera import run_camera
from gfl_edge.camera.run import performance_for
from gfl_edge.cli.options import add_draw_sigma, add_model, open_detector
from gfl_edge.filters.arguments import add_filter, read_filter
from gfl_edge.parsing.json_text import json_text
from gfl_edge.parsing.numbers import number_argument, whole_argument


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    add_filter(parser, "show and write")
    add_draw_sigma(parser)
    parser.add_argument(
        "--track", action="store_true", help="follow objects from frame to frame, with an identity each"
    )
    parser.add_argument(
        "--source",
        action="append",
        help="camera number, video file, URL, GStreamer pipeline or folder (default: 0); again for each further one",
    )
    window = parser.add_mutually_exclusive_group()
    window.add_argument("--show", action="store_true", default=None, help="open a window (default: where there is one)")
    window.add_argument("--headless", action="store_false", dest="show", help="open no window")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="VIDEO",
        help="annotated video to write, .mp4 or .avi; with several "
        "sources VIDEO-0.mp4 and so on, or with their number for {source}",
    )
    parser.add_argument("--json-lines", metavar="FILE", help="one JSON object per frame; - for stdout")
    parser.add_argument(
        "--max-frames", type=whole_argument(), metavar="N", help="stop after so many frames, of all sources"
    )
    parser.add_argument(
        "--reconnect-seconds",
        type=number_argument(0, math.inf),
        default=30.0,
        metavar="S",
        help="keep trying a live source so long that is lost or not there; inf: for ever",
    )


def run(args: argparse.Namespace) -> int:
    """Detect until the sources end or a signal comes; print the summary."""
    sources, keep = args.source or [0], read_filter(args)
    with open_detector(args, performance_for(sources)) as detector:
        summary = run_camera(
            detector,
            sources,
            keep=keep,
            show=args.show,
            output=args.output,
            json_lines=args.json_lines,
            max_frames=args.max_frames,
            reconnect_seconds=args.reconnect_seconds,
            draw_sigma=args.draw_sigma,
            track=args.track,
        )
    # With the frames' JSON on stdout the summary goes where the status goes
    print(json_text(summary.to_dict(), indent=2), file=sys.stderr if args.json_lines == "-" else sys.stdout)
    return 0
