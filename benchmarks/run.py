"""Measure: python benchmarks/run.py WHAT. Results go to benchmarks/results/ with device, versions and command."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import fingerprints
from gfl_edge import environment
from gfl_edge.console import run_command
from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text
from train.weights.find import CHECKPOINTS

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Measurement:
    """What can be measured, by the names of the functions, since their modules need more than ``--help`` may.

    Attributes:
        name: of its result file, without suffix, below benchmarks/results.
        module: where the functions are, below benchmarks.
        subjects: what it is measured on, of :func:`benchmarks.fingerprints.subjects`; its result records them.
        measure: takes a folder for files of its own; returns plain values.
        draw: a chart of the result, as SVG.
        write: puts other files of the result into the folder of its JSON.
    """

    name: str
    module: str
    subjects: tuple[str, ...] = ()
    measure: str = "measure"
    draw: str | None = None
    write: str | None = None

    def function(self, name: str) -> Callable[..., Any]:
        """One of the functions."""
        found: Callable[..., Any] = getattr(importlib.import_module(f"benchmarks.{self.module}"), name)
        return found


GRAPHS = ("graph of nanodet", "graph of nanodet-g", "graph of nanodet-plus")
PUBLISHED = (*GRAPHS, *(f"weights of {name}" for name in CHECKPOINTS))
PLUS_416 = ("graph of nanodet-plus", "weights of nanodet-plus-m-416")
GROUPS = "groups of engines"
BUNDLED = ("bundled model",)
LEARNED = ("losses of nanodet", "losses of gfl")
FAMILY = (
    *PUBLISHED,
    *(f"graph of {family}" for family in ("nanodet-t", "nanodet-efficientlite", "nanodet-repvgg", "gfl")),
    GROUPS,
)
ABLATED = ("losses of gfl", "losses of sapd")

MEASUREMENTS = {
    "ap": Measurement("ap_mix397", "accuracy.ap", PUBLISHED),
    "nms": Measurement("nms", "accuracy.nms", PUBLISHED),
    "assigner": Measurement("assigner", "training.assigner", ("losses of gfl",)),
    "batch": Measurement("batch", "speed.batch", BUNDLED),
    "camera": Measurement("camera", "camera.camera", BUNDLED, draw="draw"),
    "coverage": Measurement("coverage", "coverage.coverage"),
    "dead-channels": Measurement(
        "dead_channels", "accuracy.dead_channels", (*PLUS_416, "settings efficientnet_coco128", *LEARNED)
    ),
    "engine-options": Measurement("engine_options", "artifacts.options", (*PLUS_416, GROUPS)),
    "engines": Measurement("engines", "artifacts.engines", (*PUBLISHED, GROUPS)),
    "evaluation": Measurement("evaluation", "accuracy.evaluation", PLUS_416),
    "family": Measurement("family", "artifacts.family", FAMILY),
    "faults": Measurement("faults", "faults.faults", BUNDLED),
    "gfl-engines": Measurement("gfl_engines", "artifacts.gfl_engines", ("graph of gfl", GROUPS)),
    "int8": Measurement("int8", "accuracy.int8", (*PUBLISHED, "graph of gfl", GROUPS)),
    "int8-bccd": Measurement("int8_bccd", "accuracy.int8_bccd", ("settings bccd_nanodet_m", *LEARNED, GROUPS)),
    "iteration": Measurement("iteration", "training.iteration", LEARNED, draw="draw"),
    "kernels": Measurement("kernels", "kernels.kernels", ("kernels of NMS", "kernel of resizing")),
    "mutants": Measurement("mutants", "mutants.mutants"),
    "pipeline": Measurement("pipeline", "speed.pipeline", PUBLISHED),
    "peers": Measurement("peers", "peers.peers", PUBLISHED, draw="draw"),
    "bundled": Measurement("bundled", "accuracy.bundled", BUNDLED),
    "soak": Measurement("soak", "camera.soak", ()),
    "triton": Measurement("triton", "serving.triton", BUNDLED),
    "uncertainty": Measurement("uncertainty", "accuracy.uncertainty", PUBLISHED, draw="draw"),
    "tracking": Measurement("tracking", "tracking.tracking", ("identities of a clip",)),
    "report": Measurement("report/report", "speed.report", PUBLISHED, write="write"),
    "bccd": Measurement(
        "bccd", "training.training", ("settings bccd_nanodet_m", *LEARNED), "measure_bccd", draw="draw_bccd"
    ),
    "overfit": Measurement("overfit", "training.training", ("settings overfit_gfl_r18", *LEARNED), "measure_overfit"),
    "ablation": Measurement(
        "ablation", "training.ablation", ("settings ablation_bccd", *ABLATED), "measure_bccd", draw="draw_bccd"
    ),
    "ablation-coco": Measurement(
        "ablation_coco", "training.ablation", ("settings ablation_coco", *ABLATED), "measure_coco", draw="draw_coco"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("what", choices=MEASUREMENTS, help="what to measure")
    parser.add_argument(
        "--folder", type=Path, help="for files of its own, kept: a long measurement that was stopped goes on there"
    )
    parser.add_argument(
        "--only",
        metavar="MODULE",
        help="of faults or ablation, these rows: others stay as they are; of tracking, counts",
    )
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    measurement = MEASUREMENTS[args.what]
    commit, taken = fingerprints.commit(), fingerprints.take(measurement.subjects)  # of the code that is loaded now
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        part = {} if args.only is None else {"only": args.only}
        result = measurement.function(measurement.measure)(folder, **part)
    described = {**environment.describe(["python", "benchmarks/run.py", args.what]), **result}
    text = json_text({**described, "commit": commit, "fingerprint": taken}, indent=1)
    path = RESULTS / f"{measurement.name}.json"
    write_atomically(path, f"{text}\n".encode())
    print(path)
    if measurement.draw is not None:
        chart = measurement.function(measurement.draw)(json.loads(text))
        write_atomically(path.with_suffix(".svg"), chart)
        print(path.with_suffix(".svg"))
    if measurement.write is not None:
        measurement.function(measurement.write)(json.loads(text), path.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
