"""From a checkpoint to the detector it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError, InputError
from gfl_edge.parsing.validation import build
from train.models.build import Architecture, Network, build_network
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.weights import mmdet, nanodet
from train.weights.keys import copy_strictly
from train.weights.reading import StateDict
from train.weights.soundness import check_kinds, check_values
from train.weights.unwrapping import CheckpointFile, read_checkpoint, unwrap

PROJECT_KEYS = (nanodet.PROJECT_KEY, mmdet.PROJECT_KEY)


def load_detector(
    source: str | Path | CheckpointFile | Mapping[str, Tensor], family: str | None = None, ema: bool | None = None
) -> Network:
    """Build the detector that a checkpoint belongs to and load it.

    The architecture is read off the keys and shapes; a file of our own also names it, and what shapes do not show.

    Args:
        source: a checkpoint file, what was read of it, or its state dict. Prefixes of wrappers are taken off.
        family: fail unless the checkpoint is of this family ("nanodet", "nanodet-plus", "gfl", "gflv2").
        ema: which weights of a file to take, see :func:`train.weights.unwrapping.read_checkpoint`.

    Returns:
        The detector in eval mode: normalized float32 ``[N, 3, H, W]`` -> ``(cls_logits, reg_logits)``, a map per level.

    Raises:
        CheckpointError: unreadable, of another model, with missing, unexpected or misshapen keys (listed), or with
            values that no training leaves behind.
    """
    origin, stripped, named = _open(source, ema)
    state = mmdet.rename_old_keys(stripped)
    check_kinds(_used(state), origin)
    try:
        config = infer_config(state) if named is None else _named_config(named)
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:  # no key, or a shape that cannot be
        raise CheckpointError(f"{origin}: its architecture cannot be read off its keys: {error!r}") from error
    if family is not None and family != config.family:
        raise CheckpointError(
            f"{origin} is a {config.family} checkpoint, {family} was requested. Leave out --model to have it recognized"
        )
    detector = _build_empty(config)
    _check_projection(state, config.reg_max, origin)
    copy_strictly(detector, _used(state), f"{origin} does not fit {config.family}")
    check_values(_used(state), origin)
    return detector.eval()


def _open(
    source: str | Path | CheckpointFile | Mapping[str, Tensor], ema: bool | None
) -> tuple[str, StateDict, Mapping[str, Any] | None]:
    """How messages call a source, its weights, and what it names their network by."""
    if isinstance(source, Mapping):
        return "state dict", unwrap(source, ema), None
    file = source if isinstance(source, CheckpointFile) else read_checkpoint(source, ema)
    return str(file.path), file.state, file.architecture


def infer_config(state: Mapping[str, Tensor]) -> Architecture:
    """Read the architecture off the keys and shapes of a stripped state dict.

    Raises:
        CheckpointError: not a checkpoint of one of our families.
    """
    config = nanodet.infer_nanodet(state) or mmdet.infer_gfl(state)
    if config is None:
        known = ", ".join(sorted(state)[:3])
        raise CheckpointError(
            "no checkpoint of NanoDet, NanoDet-Plus, GFL or GFLv2: expected the keys "
            f"{', '.join((*nanodet.FAMILY_KEYS, *nanodet.NEEDED_KEYS))}, or {', '.join(mmdet.NEEDED_KEYS)}. "
            f"Its {len(state)} keys start with: {known}"
        )
    return config


@dataclass(frozen=True)
class _Named:
    """How a checkpoint of our own names its network; one of the fields is given."""

    nanodet: NanoDetConfig | None = None
    gfl: GFLConfig | None = None


def describe_architecture(config: Architecture) -> dict[str, Any]:
    """Plain values for a checkpoint file from which :func:`load_detector` builds the same network."""
    return {"nanodet" if isinstance(config, NanoDetConfig) else "gfl": asdict(config)}


def _named_config(named: Mapping[str, Any]) -> Architecture:
    try:
        architecture = build(_Named, named, "architecture")
    except InputError as error:
        raise CheckpointError(f"{error}. It was written by another version; train again or export with that") from error
    config = architecture.nanodet or architecture.gfl
    if config is None:
        raise CheckpointError("architecture: names neither nanodet nor gfl. Train again")
    return config


def _build_empty(architecture: Architecture) -> Network:
    """The network with zeros for weights; on the meta device first, because random weights take time."""
    with torch.device("meta"):
        detector = build_network(architecture)
    detector.to_empty(device="cpu")
    for value in detector.state_dict().values():
        value.zero_()
    return detector


def _used(state: StateDict) -> StateDict:
    """Without constants and without what inference does not need."""
    return {
        key: value
        for key, value in state.items()
        if key not in PROJECT_KEYS and not nanodet.UNUSED_KEYS.match(key) and not mmdet.UNUSED_KEYS.match(key)
    }


def _check_projection(state: StateDict, reg_max: int, origin: str) -> None:
    for key in PROJECT_KEYS:
        project = state.get(key)
        if project is not None and not torch.equal(project.float(), torch.arange(reg_max + 1.0)):
            raise CheckpointError(f"{origin}: {key} is {project.tolist()}, expected 0..{reg_max}")
