"""Which layers stay float: measure what INT8 costs, rank the layers by what each costs by itself, choose the fewest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calib import qdq
from calib.agreement import Agreement, wrong_layers
from calib.bisection import fewest
from calib.candidates import Candidates
from calib.gauge import Gauge
from calib.journal import Journal
from calib.record import Accuracy
from calib.sensitivity import Probe, Sensitivity, ranked
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

AP_LAYERS = 8  # whose cost in AP is measured, not only in signal to noise


@dataclass(frozen=True)
class Cost:
    """What INT8 costs.

    Attributes:
        wrong: layers that the run time computes wrongly in INT8; they stay float whatever they cost.
        reference: accuracy of the float model; None where there are no annotations.
        int8: with all other layers in INT8.
        passes: whether that costs no more AP than it may; True where it was not measured.
    """

    wrong: list[str]
    reference: Accuracy | None = None
    int8: Accuracy | None = None
    passes: bool = True


def measure(candidates: Candidates, probe: Probe, gauge: Gauge | None, journal: Journal) -> Cost:
    """What INT8 costs with every layer in INT8 that the run time computes rightly."""
    model = candidates.model
    wrong: list[str] = []
    if model.target == "cpu":
        wrong = journal.wrong_layers(lambda: find_wrong(candidates, probe.images[:1]))
        if wrong:
            logger.info("OpenVINO computes %d layers wrongly in INT8, they stay float: %s", len(wrong), wrong)
    if gauge is None:
        return Cost(wrong)
    reference = journal.reference("all images", lambda: gauge.measure(model.whole()))
    int8 = journal.trial(wrong, lambda: gauge.measure(candidates.finished(wrong)))
    logger.info("AP %.2f in %s, %.2f with all layers INT8", reference.AP, model.spec.precision, int8.AP)
    return Cost(wrong, reference, int8, gauge.passes(int8, reference))


def find_wrong(candidates: Candidates, images: Sequence[NDArray[np.uint8]]) -> list[str]:
    """The layers that OpenVINO computes wrongly in INT8 on these images, see :mod:`calib.agreement`."""
    agreement = Agreement(qdq.to_float32(candidates.model.graph), candidates.model.spec, images)

    def lost_db(float_layers: list[str]) -> float:
        model = candidates.float32(float_layers)
        qdq.fold_weights(model)
        return agreement.lost_db(model)

    return wrong_layers([layer.name for layer in candidates.layers], lost_db)


def rank(candidates: Candidates, probe: Probe, gauge: Gauge | None, journal: Journal) -> list[Sensitivity]:
    """The layers, the one that costs most by itself first.

    By signal to noise at the head. With a gauge also by AP, which is measured for the ``AP_LAYERS`` worst.
    """
    missing = [layer for layer in candidates.layers if layer.name not in journal.layers]
    for layer in track(missing, "sensitivity", len(missing)):
        snr_db = round(probe.snr_db(candidates.alone(layer.name)), 2)
        journal.add_layer(Sensitivity(layer.name, layer.kind, snr_db))
    if gauge is None:
        return ranked(journal.layers.values())
    reference = journal.reference("few images", lambda: gauge.measure(candidates.model.whole(), few=True))
    worst = sorted(journal.layers.values(), key=lambda row: row.snr_db)[:AP_LAYERS]
    for row in track(worst, "AP of single layers", len(worst)):
        if row.ap_drop is None:
            found = gauge.measure(candidates.finish(candidates.alone(row.layer)), few=True)
            journal.add_layer(replace(row, ap_drop=round(reference.AP - found.AP, 3)))
    return ranked(journal.layers.values(), gauge.max_drop)


def choose(
    candidates: Candidates, cost: Cost, ranking: Sequence[Sensitivity], gauge: Gauge | None, journal: Journal
) -> list[str] | None:
    """The fewest layers that have to stay float: the wrong ones, and the first of ``ranking`` where that is not enough.

    None where INT8 costs too much with all but one of them float.
    """
    reference = cost.reference
    if cost.passes or gauge is None or reference is None:
        return cost.wrong
    others = [row.layer for row in ranking if row.layer not in cost.wrong]

    def passes(count: int) -> bool:
        float_layers = cost.wrong + others[:count]
        found = journal.trial(float_layers, lambda: gauge.measure(candidates.finished(float_layers)))
        logger.info("%d layers float: AP %.2f", count, found.AP)
        return gauge.passes(found, reference)

    count = fewest(len(others) - 1, passes)
    return None if count is None else cost.wrong + others[:count]
