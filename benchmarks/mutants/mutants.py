"""Of small changes of the code whose faults would cost AP silently, how many do its own fast tests notice?"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.mutants import trial
from benchmarks.mutants.accepted import accepted
from benchmarks.mutants.mutate import Mutant, mutants_of
from gfl_edge.files import write_atomically
from gfl_edge.parsing.json_text import json_text
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

# Of each module, the tests that are to notice, as arguments of pytest
MODULES = {
    "gfl_edge.ops.decode": "tests/gfl_edge/ops/test_decode.py tests/gfl_edge/ops/test_sigma.py",
    "gfl_edge.ops.boxes": (
        "tests/gfl_edge/ops/test_boxes.py tests/gfl_edge/ops/test_sound.py tests/gfl_edge/ops/test_sigma.py"
    ),
    "gfl_edge.ops.postprocess": (
        "tests/gfl_edge/ops/test_postprocess_by_hand.py tests/gfl_edge/ops/test_postprocess.py "
        "tests/gfl_edge/ops/test_sound.py tests/gfl_edge/ops/test_sigma.py"
    ),
    "train.objective.losses": "tests/train/test_losses.py",
    "train.objective.positives": "tests/train/test_assigners.py",
    "train.objective.atss": "tests/train/test_assigners.py -k 'atss or assignment'",
    "train.objective.dynamic_soft_label": "tests/train/test_assigners.py -k 'not atss'",
    "gfl_edge.spec": (
        "tests/gfl_edge/test_spec_contract.py tests/gfl_edge/test_spec_messages.py tests/gfl_edge/test_spec.py"
    ),
    "gfl_edge.engine.sidecar": "tests/gfl_edge/engine/test_sidecar_check.py tests/gfl_edge/engine/test_sidecar.py",
}

MIN_KILLED_SHARE = 0.85  # of the mutants of each module
TIMES_AS_LONG, MORE_SECONDS = 5, 5  # than the tests of the unchanged module take: what takes longer goes on for ever


def measure(folder: Path) -> dict[str, Any]:
    """Try the mutants of every module; those that an earlier run into ``folder`` killed are not tried again."""
    trial.prepare()
    return {"modules": [measure_module(module, folder / f"{module}.json") for module in MODULES]}


def measure_module(module: str, kept: Path) -> dict[str, Any]:
    """Counts and survivors of a module; ``kept`` is the file of its killed mutants."""
    source = (trial.CHECKOUT / f"{module.replace('.', '/')}.py").read_text()
    mutants = mutants_of(source)
    outcomes = _outcomes(module, source, mutants, kept)
    survivors = [mutant for mutant in mutants if outcomes[_digest(mutant)] == "survived"]
    counts, reasons = Counter(outcomes.values()), accepted(module)
    rows = [_row(mutant, reasons) for mutant in survivors]
    _warn(module, rows, reasons)
    return {
        "module": module,
        "tests": MODULES[module],
        "mutants": len(mutants),
        "killed": counts["killed"],
        "timed_out": counts["timed out"],
        "survived": counts["survived"],
        "killed_share": round(1 - counts["survived"] / len(mutants), 3),
        "equivalent": [row for row in rows if row["reason"] is not None],
        "unexplained": [row for row in rows if row["reason"] is None],
    }


def _outcomes(module: str, source: str, mutants: list[Mutant], kept: Path) -> dict[str, trial.Outcome]:
    """By the digest of each mutant; every one that is noticed is stored at once, as this takes long."""
    tests = ["--noconftest", *shlex.split(MODULES[module])]  # the fixtures of all tests take longer than most of these
    limit_s = TIMES_AS_LONG * _seconds_unchanged(module, source, tests) + MORE_SECONDS
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    outcomes: dict[str, trial.Outcome] = {}
    for mutant in track(mutants, module, len(mutants)):
        digest = _digest(mutant)
        outcomes[digest] = known.get(digest) or trial.run(module, mutant.source, tests, limit_s)
        if outcomes[digest] != "survived":
            known[digest] = outcomes[digest]
            write_atomically(kept, json_text(known).encode())
    return outcomes


def _digest(mutant: Mutant) -> str:
    return hashlib.sha256(mutant.source.encode()).hexdigest()


def _warn(module: str, rows: list[dict[str, str | None]], reasons: dict[tuple[str, str], str]) -> None:
    """Of survivors without a reason, and of reasons without a survivor."""
    for row in rows:
        if row["reason"] is None:
            logger.warning("%s, in %s: survives without a reason: %s", module, row["place"] or "it", row["after"])
    for place, after in sorted(reasons.keys() - {(row["place"], row["after"]) for row in rows}):
        logger.warning("%s, in %s: has a reason, but does not survive: %s", module, place or "it", after)


def _seconds_unchanged(module: str, source: str, tests: list[str]) -> float:
    start = time.monotonic()
    if (outcome := trial.run(module, source, tests, limit_s=600)) != "survived":
        raise RuntimeError(f"the tests of {module} fail without a change ({outcome}): pytest {shlex.join(tests)}")
    return time.monotonic() - start


def _row(mutant: Mutant, reasons: dict[tuple[str, str], str]) -> dict[str, str | None]:
    reason = reasons.get((mutant.place, mutant.after))
    return {"place": mutant.place, "before": mutant.before, "after": mutant.after, "reason": reason}
