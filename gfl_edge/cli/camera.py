"""The command ``gfl-edge camera``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gfl_edge.camera import run_camera
from gfl_edge.camera.run import performance_for
from gfl_edge.camera.summary import CameraSummary
from gfl_edge.cli.options import add_draw_sigma, add_model, open_detector
from gfl_edge.console import log
from gfl_edge.errors import InputError
from gfl_edge.filters.arguments import add_filter, argument, read_filter
from gfl_edge.media.lines import STDOUT
from gfl_edge.parsing.json_text import readable_json
from gfl_edge.parsing.numbers import number_argument, whole_argument
from gfl_edge.terminal.streams import results_alone_on_stdout, stderr
from gfl_edge.web.address import read_address, read_token
from gfl_edge.web.page import LivePage

TOKEN_VARIABLE = "GFL_EDGE_SERVE_TOKEN"


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
        metavar="VIDEO",
        help="annotated video: a file .mp4 or .avi, or, where OpenCV has GStreamer, rtsp://..., srt://..., udp://... "
        "or a pipeline 'appsrc ! ...'; with several sources VIDEO-0.mp4 and so on, or with their number for {source}",
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
    parser.add_argument(
        "--serve",
        type=argument(_checked_address),
        metavar="[HOST:]PORT",
        help="live page with images and statistics, /metrics and /healthz; without a host only for this machine",
    )
    parser.add_argument(
        "--serve-token",
        type=argument(read_token),
        metavar="TOKEN",
        help=f"what lets in to the page; default: ${TOKEN_VARIABLE}, or, with a host, a random one that is printed",
    )


def run(args: argparse.Namespace) -> int:
    """Detect until the sources end or a signal comes; print the summary."""
    sources, keep = args.source or [0], read_filter(args)
    if args.serve_token and not args.serve:
        raise InputError("--serve-token is for the live page: add --serve [HOST:]PORT")
    with ExitStack() as stack:
        page = stack.enter_context(_page(args)) if args.serve else None  # a port in use is known before the model loads
        if args.json_lines == STDOUT:
            stack.enter_context(results_alone_on_stdout())
        detector = stack.enter_context(open_detector(args, performance_for(sources)))
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
            serve=page,
        )
    # With the frames' JSON on stdout the summary goes where the status goes
    print(readable_json(summary.to_dict()), file=sys.stderr if args.json_lines == STDOUT else sys.stdout)
    log(_said(summary))
    return 0


def _said(summary: CameraSummary) -> str:
    """What the run did, for the person at the terminal."""
    dropped = f", {summary.dropped} dropped" if summary.dropped else ""
    written = [str(source.output) for source in summary.sources if source.output is not None]
    written += [summary.json_lines] if summary.json_lines not in (None, STDOUT) else []
    wrote = f"; wrote {', '.join(written)}" if written else ""
    return f"{summary.frames} frames{dropped} in {summary.seconds:.1f} s, {summary.fps:.1f} FPS{wrote}"


def _checked_address(text: str) -> str:
    """The address as it was given, if it is one."""
    read_address(text)
    return text


@contextmanager
def _page(args: argparse.Namespace) -> Iterator[LivePage]:
    """The page that was asked for, its address on stderr; a token that the user chose is not shown."""
    chosen = args.serve_token or os.environ.get(TOKEN_VARIABLE) or None
    with LivePage(args.serve, chosen) as page:
        # Not logged: logs are kept and sent around, and hide what may be a secret
        print(f"live page: {page.address.url if chosen else page.url}", file=stderr(), flush=True)
        yield page
