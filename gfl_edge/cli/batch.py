"""The command ``gfl-edge batch``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gfl_edge.batch.cluster import Cluster
from gfl_edge.batch.run import DEFAULT_CHUNK, Batch, run_batch
from gfl_edge.cli.options import add_model, say_model
from gfl_edge.errors import InputError
from gfl_edge.filters.arguments import add_filter, read_filter
from gfl_edge.parsing.json_text import readable_json
from gfl_edge.parsing.numbers import number_argument, whole_argument

MAX_CHUNK, MAX_WORKERS, MAX_CPUS, MAX_GPUS = 100_000, 10_000, 1024, 64


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    add_filter(parser, "write")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder with all that is in it, list of images, or an address of either, such as s3://bucket/folder",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.parquet", help="file of the result")
    parser.add_argument("--root", metavar="DIR", help="what relative paths in a list start from (default: its folder)")
    parser.add_argument(
        "--chunk",
        type=whole_argument(1, MAX_CHUNK),
        default=DEFAULT_CHUNK,
        metavar="N",
        help=f"images that are finished together, and lost together by a stop (default: {DEFAULT_CHUNK})",
    )
    parser.add_argument(
        "--address",
        metavar="RAY",
        help="run on Ray: ray://HOST:10001, HOST:6379, auto, or local (default: without Ray)",
    )
    ray = parser.add_argument_group("with --address")
    ray.add_argument(
        "--workers",
        type=whole_argument(1, MAX_WORKERS),
        metavar="N",
        help="detectors (default: as many as there is room)",
    )
    ray.add_argument("--worker-cpus", type=whole_argument(1, MAX_CPUS), metavar="N", help="cores of each (default: 1)")
    ray.add_argument(
        "--worker-gpus",
        type=number_argument(0, MAX_GPUS),
        metavar="N",
        help="GPUs of each, 0.5 where two share one (default: 1 for an engine, else 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Detect in all images; print the summary."""
    keep = read_filter(args)
    say_model(args)
    batch = Batch(
        source=args.source,
        output=args.output,
        model=args.model,
        backend=args.backend,
        nms=args.nms,
        keep=keep,
        root=args.root,
        chunk=args.chunk,
        cluster=_cluster(args),
    )
    print(readable_json(run_batch(batch).to_dict()))
    return 0


def _cluster(args: argparse.Namespace) -> Cluster | None:
    given = [name for name in ("workers", "worker_cpus", "worker_gpus") if getattr(args, name) is not None]
    if args.address is None:
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} is for workers of Ray: add --address, as --address local")
        return None
    is_engine = args.model is not None and args.model.suffix == ".engine"
    gpus = float(is_engine) if args.worker_gpus is None else args.worker_gpus
    return Cluster(args.address, args.workers, args.worker_cpus or 1, gpus)
