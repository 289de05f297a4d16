"""From a checkpoint to the detector it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError, InputError
from gfl_edge.parsing.validation import build, shown
from train.models.build import Architecture, Network, build_network
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.models.repvgg import split_branches
from train.weights import mmdet, nanodet
from train.weights.keys import check_keys
from train.weights.naming import short
from train.weights.reading import StateDict
from train.weights.soundness import check_kinds, check_values
from train.weights.unwrapping import CheckpointFile, read_checkpoint, unwrap

MAX_LAYERS = 64  # of a tower or stage, or levels; published networks have 4, 14 and 5
MAX_CHANNELS = 1 << 16  # classes, bins; published networks have 2,048

PROJECT_KEYS = (nanodet.PROJECT_KEY, mmdet.PROJECT_KEY)
_KNOWN_KEYS = (*(keys for _, keys in nanodet.FAMILY_KEYS), *mmdet.NEEDED_KEYS.values())


def load_detector(
    source: str | Path | CheckpointFile | Mapping[str, Tensor], family: str | None = None, ema: bool | None = None
) -> Network:
    """Build the detector that a checkpoint belongs to and load it.

    The architecture is read off the keys and shapes; a file of our own also names it, and what shapes do not show.

    Args:
        source: a checkpoint file, what was read of it, or its state dict. Prefixes of wrappers are taken off.
        family: fail unless the checkpoint is of this one of :data:`train.models.traits.Family`.
        ema: which weights of a file to take, see :func:`train.weights.unwrapping.read_checkpoint`.

    Returns:
        The detector in eval mode: normalized float32 ``[N, 3, H, W]`` -> ``(cls_logits, reg_logits)``, a map per level.

    Raises:
        CheckpointError: unreadable, of another model, with missing, unexpected or misshapen keys (listed), or with
            values that no training leaves behind.
    """
    origin, state, config = find_architecture(source, ema)
    if family is not None and family != config.family:
        raise CheckpointError(
            f"{origin} is a {config.family} checkpoint, {family} was requested. Leave out --model to have it recognized"
        )
    used = _used(state)
    with torch.device("meta"):  # without memory for weights, until their keys and shapes are known to fit
        detector = _build(config, origin)
    _check_projection(state, config.reg_max, origin)
    check_values(used, origin)
    used = split_branches(used, detector)
    try:
        check_keys(detector, used, f"{origin} does not fit {config.family}")
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_hint(state)}") from error
    detector.to_empty(device="cpu")
    for value in detector.state_dict().values():
        value.zero_()
    detector.load_state_dict(used, strict=False)
    return detector.eval()


def find_architecture(
    source: str | Path | CheckpointFile | Mapping[str, Tensor], ema: bool | None = None
) -> tuple[str, StateDict, Architecture]:
    """How messages call a source, its weights, and the network that they are of; see :func:`load_detector`."""
    origin, stripped, named = _open(source, ema)
    state = mmdet.rename_old_keys(stripped)
    check_kinds(_used(state), origin)
    try:
        return origin, state, infer_config(state) if named is None else _named_config(named)
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:  # no key, or a shape that cannot be
        raise CheckpointError(
            f"{origin}: its architecture cannot be read off its keys: {error!r}{_hint(state)}"
        ) from error


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
        known = ", ".join(map(short, sorted(state)[:3]))
        raise CheckpointError(
            "no checkpoint of a NanoDet, GFL, GFLv2 or ATSS: expected the keys "
            f"{'; or '.join(', '.join(keys) for keys in _KNOWN_KEYS)}. "
            f"Its {len(state)} keys start with: {known}{_hint(state)}"
        )
    return config


def _hint(state: Mapping[str, Tensor]) -> str:
    """The way that is left for networks of nanodet; empty for others."""
    return f". {nanodet.BUILT_OTHERWISE}" if any(key.startswith("head.gfl_cls.") for key in state) else ""


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


def _build(architecture: Architecture, origin: str) -> Network:
    """The network, unless it is so large that no checkpoint can be of it, or cannot be."""
    sizes = {name: value for name, value in asdict(architecture).items() if not isinstance(value, (str, bool))}
    for name, value in sizes.items():
        limit = MAX_LAYERS if name in ("stacked_convs", "stage_blocks") else MAX_CHANNELS
        numbers = value if isinstance(value, (tuple, list)) else (value,)
        if len(numbers) > MAX_LAYERS or any(isinstance(number, int) and number > limit for number in numbers):
            raise CheckpointError(f"{origin}: its architecture has {name} {shown(value)}, expected at most {limit}")
    try:
        return build_network(architecture)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        what = short(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise CheckpointError(f"{origin}: its architecture is none that can be built: {what}") from error


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
        if project is None:
            continue
        if project.shape != (reg_max + 1,) or not torch.equal(project.float(), torch.arange(reg_max + 1.0)):
            values = shown(project.flatten()[:MAX_LAYERS].tolist())
            raise CheckpointError(f"{origin}: {key} is {values}, expected 0..{reg_max}. Copy the file again")
