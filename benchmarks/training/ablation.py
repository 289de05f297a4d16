"""The paper's comparison in small: one network and one schedule, trained in six ways, with three seeds each.

Evaluated after the last epoch, so that nothing is chosen by it. A finished run leaves ``run.json`` in its folder and is
not made again; an unfinished one goes on. So several processes may share a folder, each with rows of its own.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import fingerprints
from benchmarks.training.training import REPORTED, curve, read_shipped, train_seconds
from gfl_edge.environment import cpu_name
from gfl_edge.errors import InputError
from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text
from gfl_edge.report.plots import dot_chart
from train.config import Config
from train.distributed import joined

logger = logging.getLogger(__name__)

RESULTS = Path(__file__).resolve().parent.parent / "results"
RUN = "run.json"
SEEDS = (0, 1, 2)

# ATSS without and with its branch for the centerness, SAPD, and the paper's changes to ATSS one by one: a score that
# learns the quality (QFL), edges as distributions (DFL). Each by the fields of the network that it sets
VARIANTS: dict[str, dict[str, str]] = {
    "focal loss": {"quality": "none", "regression": "dirac"},
    "ATSS": {"quality": "centerness", "regression": "dirac"},
    "SAPD": {"family": "sapd", "quality": "none", "regression": "dirac"},
    "ATSS + QFL": {"quality": "joint", "regression": "dirac"},
    "ATSS + DFL": {"quality": "centerness", "regression": "distribution"},
    "GFL (both)": {"quality": "joint", "regression": "distribution"},
}


def measure_bccd(folder: Path, only: str | None = None) -> dict[str, Any]:
    """On 205 images of blood cells, evaluated on the test list; see :func:`measure`."""
    return measure(read_shipped("ablation_bccd", folder), "ablation", folder, only)


def measure_coco(folder: Path, only: str | None = None) -> dict[str, Any]:
    """On 4,078 images of COCO, evaluated on 397 others; see :func:`measure`."""
    return measure(read_shipped("ablation_coco", folder), "ablation_coco", folder, only)


def measure(base: Config, result: str, folder: Path, only: str | None = None) -> dict[str, Any]:
    """Train what ``folder`` does not have yet.

    Args:
        base: what all runs have in common.
        result: name of the committed result.
        folder: of the runs.
        only: rows to measure, of :data:`VARIANTS`, between commas; the others are those of ``folder`` and, where that
            has none, of the committed result. Default all.

    Raises:
        InputError: no such rows, or those of the committed result were measured on something else.
    """
    runs = [finished_run(base, folder / f"{name}-{seed}", name, seed) for name in chosen_rows(only) for seed in SEEDS]
    runs += [run for run in kept_runs(folder, result if only else None) if run["variant"] not in chosen_rows(only)]
    order = list(VARIANTS)
    runs.sort(key=lambda run: (order.index(run["variant"]), run["seed"]))
    return {
        "config": f"train/configs/{base.train.output.name}.toml",
        "epochs": base.train.epochs,
        "summary": {
            name: summary(found) for name in order if (found := [run for run in runs if run["variant"] == name])
        },
        "runs": runs,
    }


def chosen_rows(only: str | None) -> list[str]:
    """The rows of :data:`VARIANTS` that ``only`` names; raises InputError for others."""
    chosen = list(VARIANTS) if only is None else [name.strip() for name in only.split(",")]
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise InputError(f"--only {', '.join(unknown)}: expected rows of {', '.join(VARIANTS)}")
    return chosen


def finished_run(base: Config, folder: Path, variant: str, seed: int) -> dict[str, Any]:
    """The result of one run, which is made or finished if ``folder`` does not have it."""
    done = folder / RUN
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    logger.info("== %s, seed %d", variant, seed)
    assert base.model.gfl is not None
    config = replace(
        base,
        model=replace(base.model, gfl=replace(base.model.gfl, **VARIANTS[variant])),  # type: ignore[arg-type]  # literals
        train=replace(base.train, seed=seed, output=folder),
    )
    commit, seconds = fingerprints.commit(), train_seconds(config)
    metrics = curve(config, "metrics.csv", ("epoch", *REPORTED))[-1]
    named = {"variant": variant, "seed": seed, "device": device_name(config), "commit": commit}
    run = {**named, "seconds": round(seconds, 1), **metrics}
    write_atomically(done, json_text(run).encode())
    return run


def device_name(config: Config) -> str:
    """The processor or GPU that such a run trains on."""
    with joined(config.train.device) as process:
        return torch.cuda.get_device_name(process.device) if process.device.type == "cuda" else cpu_name()


def kept_runs(folder: Path, result: str | None) -> list[dict[str, Any]]:
    """The runs that ``folder`` has finished and, of rows that it has none of, those of a committed result.

    Raises:
        InputError: that was measured on something else than today's code would measure.
    """
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{RUN}"))]
    path = RESULTS / f"{result}.json"
    if result is None or not path.is_file():
        return runs
    committed = json.loads(path.read_text())
    rows = {run["variant"] for run in runs}
    if stale := fingerprints.stale(committed["fingerprint"]):
        raise InputError(f"{path} was measured on other {', '.join(stale)}: measure all rows, without --only")
    return runs + [{"commit": committed["commit"], **run} for run in committed["runs"] if run["variant"] not in rows]


def summary(runs: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Mean and standard deviation of each number; the latter is None of a single run."""
    found: dict[str, float | None] = {}
    for name in REPORTED:
        values = [run[name] for run in runs]
        found[f"{name}_mean"] = round(statistics.mean(values), 2)
        found[f"{name}_std"] = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return found


def draw_bccd(result: dict[str, Any]) -> bytes:
    """AP of all runs."""
    return draw(result, "BCCD test list")


def draw_coco(result: dict[str, Any]) -> bytes:
    """AP of all runs."""
    return draw(result, "397 images of COCO")


def draw(result: dict[str, Any], images: str) -> bytes:
    """AP of all runs on those images."""
    groups = {name: [run["AP"] for run in result["runs"] if run["variant"] == name] for name in result["summary"]}
    return dot_chart(f"{images}, three seeds each; the line is the mean", "AP, percent", groups)
