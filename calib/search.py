"""Which layers stay float: measure what INT8 costs, rank the layers by what each costs by itself, choose the fewest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from calib.bisection import fewest
from calib.candidates import Candidates
from calib.gauge import Gauge
from calib.journal import Journal
from calib.record import Accuracy
from calib.sensitivity import Probe, Sensitivity
from gfl_edge.progress import track

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What INT8 costs.

    Attributes:
        reference: accuracy of the float model; None where there are no annotations.
        int8: with all layers in INT8.
        passes: whether that costs no more AP than it may; True where it was not measured.
    """

    reference: Accuracy | None = None
    int8: Accuracy | None = None
    passes: bool = True


def measure(candidates: Candidates, gauge: Gauge | None, journal: Journal) -> Cost:
    """What INT8 costs with every layer in INT8."""
    if gauge is None:
        return Cost()
    model = candidates.model
    reference = journal.measure_reference(lambda: gauge.measure(model.whole()))
    int8 = journal.trial([], lambda: gauge.measure(candidates.finished([])))
    logger.info("AP %.2f in %s, %.2f with all layers INT8", reference.AP, model.spec.precision, int8.AP)
    return Cost(reference, int8, gauge.passes(int8, reference))


def rank(candidates: Candidates, probe: Probe, journal: Journal) -> list[Sensitivity]:
    """The layers, the one that makes most noise by itself first.

    The AP that a single layer costs is less than what chance adds to it on hundreds of images.
    """
    missing = [layer for layer in candidates.layers if layer.name not in journal.layers]
    for layer in track(missing, "sensitivity", len(missing)):
        snr_db = round(probe.snr_db(candidates.alone(layer.name)), 2)
        journal.add_layer(Sensitivity(layer.name, layer.kind, snr_db))
    return sorted(journal.layers.values(), key=lambda row: row.snr_db)


def choose(
    candidates: Candidates, cost: Cost, ranking: Sequence[Sensitivity], gauge: Gauge | None, journal: Journal
) -> list[str] | None:
    """The fewest layers of ``ranking``, from the first on, that have to stay float.

    None where INT8 costs too much with all but one of them float.
    """
    reference = cost.reference
    if cost.passes or gauge is None or reference is None:
        return []
    layers = [row.layer for row in ranking]

    def passes(count: int) -> bool:
        found = journal.trial(layers[:count], lambda: gauge.measure(candidates.finished(layers[:count])))
        logger.info("%d layers float: AP %.2f", count, found.AP)
        return gauge.passes(found, reference)

    count = fewest(len(layers) - 1, passes)
    return None if count is None else layers[:count]
