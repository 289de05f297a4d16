"""Finding the weights in what a checkpoint file holds: under which entry, behind which prefixes, averaged or not.

Trainers save a network as it stands in their hands: in an entry of their own naming, with the prefixes of everything
that is wrapped around it, and often twice, as trained and as the running average of that (EMA).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gfl_edge.errors import CheckpointError
from train.weights.naming import listed
from train.weights.placeholder import Placeholder
from train.weights.reading import StateDict, read_content
from train.weights.refusing import PLAIN, refusal

logger = logging.getLogger(__name__)

# Names of entries and of prefixes; whichever of an entry comes first here is taken. torchvision, timm, Lightning ...
RAW = ("state_dict", "model_state_dict", "model", "net", "network", "detector", "params", "weights", "module")
AVERAGED = re.compile(r"(^|_)(ema|avg|averaged?|teacher)(_|$)")  # ema_state_dict, avg_model, params_ema, teacher ...
STUDENT = re.compile(r"student(_|$)")
# These stand anywhere in a key: torch.compile, DataParallel, FSDP, activation checkpointing, Lightning's Fabric
INNER = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
MAX_DEPTH = 3  # of entries in entries: {"ema": {"module": {...}}}

# The parts of our networks, and what other projects keep beside them
PARTS = ("backbone", "neck", "bbox_head", "fpn", "head", "aux_fpn", "aux_head", "data_preprocessor")
BUFFERS = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)$")
# Of torch's and mmengine's averages, and of loops
COUNTERS = ("n_averaged", "steps", "step", "global_step", "epoch", "iter")
MMCV_PREFIX = "ema_"  # of mmcv's averages, which lie among the weights: ema_backbone_conv1_weight


@dataclass(frozen=True)
class Weights:
    """One state dict of a file, without prefixes.

    Attributes:
        state: its tensors.
        averaged: whether they are the running average of those trained.
        where: in the file, for messages.
    """

    state: StateDict
    averaged: bool
    where: str


@dataclass(frozen=True)
class CheckpointFile:
    """What was read of a checkpoint file.

    Attributes:
        path: the file.
        state: the weights chosen, without prefixes.
        content: everything, inert; empty where the file holds only weights.
    """

    path: Path
    state: StateDict
    content: Mapping[str, Any]

    @property
    def architecture(self) -> Mapping[str, Any] | None:
        """What a checkpoint of our own names its network by."""
        named = self.content.get("architecture")
        return named if isinstance(named, Mapping) else None


def read_checkpoint(path: str | Path, ema: bool | None = None) -> CheckpointFile:
    """Read the weights of a checkpoint file, whatever they are wrapped in, and what lies beside them.

    Objects that are no tensors are skipped, and named in the log.

    Args:
        path: the file.
        ema: take the averaged weights, or not these; None: the averaged ones where there are some.

    Raises:
        CheckpointError: missing, empty, truncated or foreign file, weights that are or hold objects which would have to
            execute code, or none of the kind that ``ema`` asks for.
    """
    path = Path(path)
    content = read_content(path)
    refused: dict[str, str] = {}
    found = list(_find(content, "", False, refused))
    if not found and refused:
        raise CheckpointError(refusal(str(path), refused))
    if not found:
        raise CheckpointError(
            f"{path} holds no state dict: expected key -> tensor, plain or under 'state_dict', 'model', 'ema' ..."
        )
    if len(found) > 1 and _is_swapped(content):
        found = [replace(weights, averaged=not weights.averaged) for weights in found]
    return CheckpointFile(path, _choose(found, ema, str(path)), content if isinstance(content, Mapping) else {})


def read_state_dict(path: str | Path) -> StateDict:
    """Only the weights of a checkpoint file; see :func:`read_checkpoint`."""
    return read_checkpoint(path).state


def unwrap(state: Mapping[str, Tensor], ema: bool | None = None) -> StateDict:
    """The weights of a state dict without the prefixes of wrappers; see :func:`read_checkpoint`."""
    return _choose(_by_role(state, False, ""), ema, "state dict")


def _is_swapped(content: Any) -> bool:
    """Whether average and weights changed places, as mmengine has them do before it saves."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    known = isinstance(meta, Mapping) and any(str(key).startswith(("mmengine_", "mmdet_", "mmcv_")) for key in meta)
    return known and isinstance(content.get("ema_state_dict"), Mapping)


def _find(content: Any, where: str, averaged: bool, refused: dict[str, str]) -> Iterator[Weights]:
    """The state dicts of a file or entry, those preferred first; objects in place of tensors go into ``refused``."""
    if isinstance(content, Placeholder):
        refused[where] = content.original
    if not isinstance(content, Mapping) or where.count(".") >= MAX_DEPTH:
        return
    names = [name for name in content if isinstance(name, str) and (name in RAW or _is_averaged(name))]
    names.sort(key=lambda name: RAW.index(name) if name in RAW else len(RAW))
    found = [
        weights
        for name in names
        for weights in _find(content[name], f"{where}.{name}".strip("."), averaged or _is_averaged(name), refused)
    ]
    if found:
        yield from found
    elif where or any(isinstance(value, Tensor) for value in content.values()):
        objects = {str(key): what for key, value in content.items() if (what := _no_tensor(key, value))}
        refused.update(objects)
        if not objects:
            yield from _by_role(content, averaged, where)


def _no_tensor(key: Any, value: Any) -> str | None:
    """What stands where a tensor is expected; None where that is one, or something beside the weights."""
    if isinstance(value, Placeholder):
        return value.original
    in_network = isinstance(key, str) and "." in key and _peel(key)[0].split(".")[0] in PARTS
    if isinstance(value, Tensor) or not in_network:
        return None
    return "None" if value is None else f"{PLAIN}{type(value).__name__}"


def _is_averaged(name: str) -> bool:
    return AVERAGED.search(name) is not None


def _by_role(state: Mapping[Any, Any], averaged: bool, where: str) -> list[Weights]:
    """A state dict as one, or as two where prefixes tell averaged weights from the others."""
    roles: dict[bool, StateDict] = {}
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    peeled = {key: _peel(key) for key in tensors if key not in COUNTERS}
    wrapped = any(name != key for key, (name, _) in peeled.items())
    around = {key for key, (name, _) in peeled.items() if wrapped and name == key and key.split(".")[0] not in PARTS}
    for key, (name, is_averaged) in peeled.items():
        if key in around:
            continue
        roles.setdefault(averaged or is_averaged, {})[name] = tensors[key]
    if around:
        logger.info("left out what lies around the network, not in it: %s", listed(sorted(around)))
    found = [Weights(_without_common(values), role, where) for role, values in roles.items()]
    return _split_mmcv(found[0]) if len(found) == 1 and not averaged else found


def _peel(key: str) -> tuple[str, bool]:
    """A key without the wrappers' prefixes, and whether one of them is that of an average."""
    parts = [part for part in key.split(".") if part not in INNER] or [key]
    averaged = False
    while len(parts) > 1 and (parts[0] in RAW or STUDENT.match(parts[0]) or _is_averaged(parts[0])):
        averaged |= _is_averaged(parts[0])
        parts = parts[1:]
    return ".".join(parts), averaged


def _without_common(state: StateDict) -> StateDict:
    """Without a prefix of any name that all keys share, where it hides the parts of our networks."""
    first = {key.partition(".")[0] for key in state}
    if len(first) != 1 or first & set(PARTS):
        return state
    inner = {_peel(key.partition(".")[2])[0]: value for key, value in state.items()}
    return inner if any(key.partition(".")[0] in PARTS for key in inner) else state


def _split_mmcv(weights: Weights) -> list[Weights]:
    """mmcv 1.x keeps what was trained as ``ema_backbone_conv1_weight`` beside the average, which has the keys."""
    flat = {key.replace(".", "_"): key for key in weights.state}
    trained = {
        flat[key.removeprefix(MMCV_PREFIX)]: value
        for key, value in weights.state.items()
        if key.startswith(MMCV_PREFIX) and key.removeprefix(MMCV_PREFIX) in flat
    }
    if not trained:
        return [weights]
    average = {key: value for key, value in weights.state.items() if not key.startswith(MMCV_PREFIX)}
    return [Weights(average, True, weights.where), Weights({**average, **trained}, False, f"{MMCV_PREFIX}*")]


def _choose(found: list[Weights], ema: bool | None, origin: str) -> StateDict:
    averaged, raw = (next((weights for weights in found if weights.averaged is role), None) for role in (True, False))
    if ema and averaged is None:
        raise CheckpointError(f"{origin} holds no averaged (EMA) weights. Leave out --ema")
    if ema is False and raw is None:
        raise CheckpointError(f"{origin} holds only averaged (EMA) weights. Leave out --no-ema")
    if averaged is None or raw is None:
        chosen = averaged or raw
        return chosen.state if chosen else {}
    alike = all(value.shape == raw.state[key].shape for key, value in averaged.state.items() if key in raw.state)
    taken = averaged if ema or (ema is None and alike) else raw  # a teacher may be another network
    logger.info(
        "%s holds averaged (EMA) weights and those trained: taking the %s%s; --%s takes the others",
        origin,
        "averaged" if taken.averaged else "trained",
        f" under {taken.where!r}" if taken.where else "",
        "no-ema" if taken.averaged else "ema",
    )
    # Some average only parameters; the statistics of batch norms are then those of the network that was trained
    shared = {key: value for key, value in raw.state.items() if BUFFERS.match(key)} if taken.averaged else {}
    return {**shared, **taken.state}
