"""Which layers stay float: rank them by the noise that each makes by itself, and choose the fewest.

The noise of layers adds up, and one layer often makes as much as dozens of others. AP says less: on hundreds of images
chance moves it by as much as INT8 costs. So noise comes first: layers stay float until little is left, but no more of
them than leave ``MIN_SHARE`` of the convolutions INT8. If AP is measured and still drops by too much, more do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from calib.bisection import fewest
from calib.candidates import Candidates
from calib.gauge import Gauge
from calib.journal import Journal
from calib.record import Accuracy
from calib.sensitivity import Probe, Sensitivity
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

MIN_SHARE = 0.8  # of the convolutions, which are INT8 if AP does not ask for more


@dataclass(frozen=True)
class Choice:
    """Which layers stay float, and what that costs.

    Attributes:
        float_layers: None where INT8 costs too much with all but one of them float.
        reference: accuracy of the float model; None where there are no annotations.
        ranking: the layers, the noisiest first; empty where none had to stay float.
    """

    float_layers: list[str] | None
    reference: Accuracy | None
    ranking: list[Sensitivity]


def rank(candidates: Candidates, probe: Probe, journal: Journal) -> list[Sensitivity]:
    """The layers, the one that makes most noise by itself first.

    The AP that a single layer costs is less than what chance adds to it on hundreds of images.
    """
    missing = [layer for layer in candidates.layers if layer.name not in journal.layers]
    for layer in track(missing, "sensitivity", len(missing)):
        snr_db = round(probe.snr_db(candidates.alone(layer.name)), 2)
        journal.add_layer(Sensitivity(layer.name, layer.kind, snr_db))
    nodes = {layer.name: len(layer.nodes) for layer in candidates.layers}
    # Of a convolution whose weights a head's levels share, each counts
    found = [journal.layers[name] for name in nodes]
    return sorted(found, key=lambda row: row.snr_db + 10 * math.log10(nodes[row.layer]))


def affordable(candidates: Candidates, layers: Iterable[str]) -> list[str]:
    """Those of ``layers``, taken in order, that can stay float with ``MIN_SHARE`` of the convolutions in INT8."""
    convolutions = {layer.name: len(layer.nodes) for layer in candidates.layers if layer.kind == "Conv"}
    left = max(0, sum(convolutions.values()) - math.ceil(MIN_SHARE * candidates.convolutions))
    found = []
    for layer in layers:
        count = convolutions.get(layer, 0)
        if count <= left:
            found.append(layer)
            left -= count
    return found


def choose(candidates: Candidates, probe: Probe, gauge: Gauge | None, journal: Journal, min_snr_db: float) -> Choice:
    """The fewest of the noisiest layers that have to stay float: for the noise, and then for the AP.

    Args:
        candidates: to choose of.
        probe: measures noise.
        gauge: measures AP; None: the noise decides.
        journal: what is measured.
        min_snr_db: signal to noise from which on no more stay float for its sake.
    """

    def snr_db(float_layers: list[str]) -> float:
        found = probe.snr_db(candidates.float32(float_layers))
        logger.info("%d layers float: %.1f dB", len(float_layers), found)
        return found

    ranking: list[Sensitivity] = []
    quiet: list[str] = []
    if snr_db([]) < min_snr_db:
        ranking = rank(candidates, probe, journal)
        quiet = affordable(candidates, [row.layer for row in ranking])
        enough = fewest(len(quiet), lambda count: snr_db(quiet[:count]) >= min_snr_db) if quiet else 0
        quiet = quiet[:enough]  # all of them where not even these are enough
    if gauge is None:
        return Choice(quiet, None, ranking)
    reference = journal.measure_reference(lambda: gauge.measure(candidates.model.whole()))

    def passes(float_layers: list[str]) -> bool:
        found = journal.trial(float_layers, lambda: gauge.measure(candidates.finished(float_layers)))
        logger.info("%d layers float: AP %.2f, %.2f without INT8", len(float_layers), found.AP, reference.AP)
        return gauge.passes(found, reference)

    if passes(quiet):
        return Choice(quiet, reference, ranking)
    ranking = ranking or rank(candidates, probe, journal)
    others = [row.layer for row in ranking if row.layer not in quiet][:-1]
    more = fewest(len(others), lambda count: passes([*quiet, *others[:count]])) if others else None
    return Choice(None if more is None else [*quiet, *others[:more]], reference, ranking)
