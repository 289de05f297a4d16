"""Weights between those that a run started from and those it ended with: python train/blend.py train/configs/coco.toml.

Fine-tuning on few images gains on what they show and forgets some of the rest. Weights on the straight line between
both ends (Wortsman et al., CVPR 2022) often have the higher AP. Of ten steps along it this takes the smallest share of
the end that is within --tolerance of the best AP on the validation images of the run: few images tell shares apart only
by chance, and where they are more like those that were trained on than those to come, they praise the end too much.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.console import CommandParser, log, run_command
from gfl_edge.errors import CheckpointError, InputError
from gfl_edge.files import check_output
from gfl_edge.parsing.json_text import json_text
from gfl_edge.parsing.numbers import number_argument
from gfl_edge.terminal.printable import word
from train.arguments import add_config_arguments, config_of
from train.leaving import leave

if TYPE_CHECKING:
    from torch import Tensor

    from gfl_edge.evaluation.ap import Metrics
    from train.config import Config
    from train.models.build import Network

logger = logging.getLogger(__name__)

BLEND = "blend.pt"
SHARES = tuple(tenths / 10 for tenths in range(11))  # of the end's weights
TOLERANCE = 0.1  # points of AP


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(prog="train/blend.py", description=__doc__)
    add_config_arguments(parser)
    parser.add_argument("--end", type=Path, metavar="FILE", help="where it ended (default: its last.pt)")
    parser.add_argument(
        "--tolerance",
        type=number_argument(0, 100),
        default=TOLERANCE,
        metavar="POINTS",
        help="take the smallest share whose AP is at most this far below the best (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"default: {BLEND} beside last.pt")
    return run_command(parser, _run, argv)


def blended(start: Network, end: Network, share: float) -> dict[str, Tensor]:
    """The state dict of the weights ``share`` of the way from one network to another of the same architecture.

    Batch norms are folded first, as their statistics are of the one or the other; what they are in the result is what
    :func:`train.models.batch_norm.unfuse_batch_norm` makes of them. At 0 and 1 it computes what start and end do.

    Raises:
        CheckpointError: the networks differ.
    """
    from train.models.batch_norm import fuse_batch_norm, unfuse_batch_norm

    if start.config != end.config:
        raise CheckpointError(f"start and end are of different networks: {start.config} and {end.config}")
    ends = fuse_batch_norm(start).state_dict(), fuse_batch_norm(end).state_dict()
    between = {name: value.lerp(ends[1][name], share) for name, value in ends[0].items()}
    return unfuse_batch_norm(between, start)


def without_training_parts(network: Network) -> Network:
    """The same network without what exists only in training, which ends of runs that are blended do not have."""
    from train.models.build import build_network

    plain = build_network(network.config)
    kept = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name in kept})
    return plain


def smallest_within(found: Mapping[float, float], tolerance: float) -> float:
    """The smallest of the shares whose AP (in percent, by share) is at most ``tolerance`` points below the highest."""
    best = max(found.values())
    # 17.8 - 17.7 is a little more than 0.1 in floating point
    return min(share for share, ap in found.items() if best - ap <= tolerance + 1e-9)


def _run(args: argparse.Namespace) -> int:
    # torch takes seconds to import and --help must work without it
    from gfl_edge.evaluation.ap import rounded
    from train.checkpoint import LAST
    from train.memory import enough_memory
    from train.weights.loading import load_detector

    config = config_of(args)
    output = args.output or config.train.output / BLEND
    check_output(output)
    end = load_detector(args.end or config.train.output / LAST)
    with enough_memory("Set train.evaluation_batch lower"):
        share, metrics = write_best(config, end, output, args.tolerance)
    print(json_text({"share": share, **rounded(metrics)}))
    log(f"next: python export/to_onnx.py --weights {word(output)} -o {word(output.with_suffix('.onnx'))}")
    return 0


def write_best(config: Config, end: Network, output: Path, tolerance: float = TOLERANCE) -> tuple[float, Metrics]:
    """Write weights between ``model.weights`` and ``end`` as a checkpoint, see :func:`smallest_within` for which.

    AP is that on ``data.val``.

    Returns:
        Their share of the end's weights, and their metrics in percent.

    Raises:
        InputError: the settings have no validation data, or name no detector to start from.
        CheckpointError: start and end are of different networks.
    """
    from train.checkpoint import Checkpoint
    from train.data.load import load_data
    from train.describe import describe
    from train.distributed import joined
    from train.network import build_detector
    from train.validation import Validation
    from train.weights.loading import describe_architecture

    if config.data.val is None or config.model.weights is None:
        raise InputError("data.val and model.weights: expected both, to blend and to choose by")
    whole = load_data(config.data).val
    assert whole is not None
    val = replace(whole, records=whole.records[: config.train.first_images])
    with joined(config.train.device) as process:
        network = without_training_parts(build_detector(config, len(val.class_names))).to(process.device)
        size, names = config.data.input_hw, val.class_names
        spec = describe(network, input_hw=size, class_names=names, short_long=config.data.short_long)
        validation = Validation(config.data, val, spec, process, config.train.evaluation_batch, config.train.workers)
        states = {share: blended(network, end.to(process.device), share) for share in SHARES}
        found: dict[float, Metrics] = {}
        for share, state in states.items():
            network.load_state_dict(state)
            found[share] = validation(network)
            logger.info("%.1f of the end: AP %.2f", share, found[share]["AP"] or 0.0)
    best = smallest_within({share: metrics["AP"] or 0.0 for share, metrics in found.items()}, tolerance)
    architecture = describe_architecture(network.config)
    Checkpoint(states[best], architecture, names, config.to_dict(), dict(found[best])).save(output)
    return best, found[best]


if __name__ == "__main__":
    leave(main())
