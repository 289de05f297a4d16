"""Reading PyTorch checkpoints of other people's detectors, without ever executing what is pickled in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError
from train.models import NanoDet, NanoDetConfig

StateDict = dict[str, Tensor]

# Of no use at inference: NanoDet-Plus' auxiliary head (aux_*), and NanoDet-m's gfl_reg, which its head never calls.
UNUSED_KEYS = re.compile(r"(aux_fpn|aux_head)\.|head\.gfl_reg\.\d+\.(weight|bias)$")
PROJECT_KEY = "head.distribution_project.project"  # the constant 0, 1, ... reg_max


def read_state_dict(path: str | Path) -> StateDict:
    """Read the tensors of a checkpoint file.

    Accepts a plain state dict or one under ``state_dict``; pickled code is refused, not run.

    Raises:
        CheckpointError: missing, empty, truncated or foreign file, or one that would have to execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file. Give the path of a .pth or .ckpt file with --weights")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes). Download or copy it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path} contains the Python object {refused[1]}, which would run code when loaded; refused. "
                "Save its tensors alone with: torch.save(model.state_dict(), PATH)"
            ) from error
        raise CheckpointError(_unreadable(path)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(_unreadable(path)) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict: expected key -> tensor, plain or under 'state_dict'")
    return dict(content)


def _unreadable(path: Path) -> str:
    size = path.stat().st_size
    return f"{path} is truncated or not a PyTorch checkpoint ({size} bytes read). Download or copy it again"


def strip_prefixes(state: Mapping[str, Tensor]) -> StateDict:
    """Remove Lightning's ``model.``; take averaged weights (``avg_model.``) where there are some, as nanodet does."""
    averaged = {k.removeprefix("avg_model."): v for k, v in state.items() if k.startswith("avg_model.")}
    if averaged:
        return averaged
    return {k.removeprefix("model."): v for k, v in state.items()}


def infer_config(state: Mapping[str, Tensor]) -> NanoDetConfig:
    """Read the architecture off the keys and shapes of a stripped state dict.

    Raises:
        CheckpointError: not a NanoDet or NanoDet-Plus checkpoint.
    """
    families = {"fpn.reduce_layers.0.conv.weight": "nanodet-plus", "fpn.lateral_convs.0.conv.weight": "nanodet"}
    family = next((name for key, name in families.items() if key in state), None)
    needed = ("head.gfl_cls.0.weight", "head.cls_convs.0.0.depthwise.weight", "backbone.conv1.0.weight")
    if family is None or any(key not in state for key in needed):
        known = ", ".join(sorted(state)[:3])
        raise CheckpointError(
            f"no NanoDet or NanoDet-Plus checkpoint: of the keys {', '.join((*families, *needed))} some are missing. "
            f"Its {len(state)} keys start with: {known}"
        )
    reg_max = len(state[PROJECT_KEY]) - 1 if PROJECT_KEY in state else NanoDetConfig.reg_max
    outputs, neck_channels = state["head.gfl_cls.0.weight"].shape[:2]
    widths = [2 * len(state[f"backbone.{stage}.0.branch2.0.weight"]) for stage in ("stage2", "stage3", "stage4")]
    towers = {key.split(".")[3] for key in state if key.startswith("head.cls_convs.0.")}
    return NanoDetConfig(
        family=family,  # type: ignore[arg-type]  # one of the two literals above
        num_classes=outputs - 4 * (reg_max + 1),
        reg_max=reg_max,
        stage_channels=(widths[0], widths[1], widths[2]),
        neck_channels=neck_channels,
        stacked_convs=len(towers),
    )


def load_detector(source: str | Path | Mapping[str, Tensor], family: str | None = None) -> NanoDet:
    """Build the detector that a checkpoint belongs to and load it.

    Args:
        source: a checkpoint file, or its state dict.
        family: fail unless the checkpoint is of this family ("nanodet", "nanodet-plus").

    Returns:
        The detector in eval mode: normalised float32 ``[N, 3, H, W]`` -> ``(cls_logits, reg_logits)``, a map per level.

    Raises:
        CheckpointError: unreadable, of another model, or with missing, unexpected or misshapen keys (listed).
    """
    if isinstance(source, Mapping):
        origin, raw = "state dict", dict(source)
    else:
        origin, raw = str(source), read_state_dict(source)
    state = strip_prefixes(raw)
    try:
        config = infer_config(state)
    except (CheckpointError, KeyError, IndexError) as error:
        raise CheckpointError(f"{origin}: {error}") from error
    if family is not None and family != config.family:
        raise CheckpointError(
            f"{origin} is a {config.family} checkpoint, {family} was asked for. Leave out --model to have it recognised"
        )
    detector = NanoDet(replace(config))
    _load_strictly(detector, state, origin)
    return detector.eval()


def _load_strictly(detector: NanoDet, state: StateDict, origin: str) -> None:
    """Copy ``state`` into ``detector``; every key must be used, known to be unused, or constant."""
    _check_projection(state, detector.config.reg_max, origin)
    given = {k: v for k, v in state.items() if k != PROJECT_KEY and not UNUSED_KEYS.match(k)}
    expected = detector.state_dict()
    counters = {
        k for k in expected if k.endswith("num_batches_tracked")
    }  # statistics of training; absent in some exports
    missing = sorted(expected.keys() - given.keys() - counters)
    unexpected = sorted(given.keys() - expected.keys())
    misshapen = [
        f"{k} {list(given[k].shape)} (expected {list(expected[k].shape)})"
        for k in sorted(given.keys() & expected.keys())
        if given[k].shape != expected[k].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(f"{len(keys)} keys {what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
        raise CheckpointError(f"{origin} does not fit {detector.config.family}: {listed}")
    detector.load_state_dict(given, strict=False)


def _check_projection(state: StateDict, reg_max: int, origin: str) -> None:
    project = state.get(PROJECT_KEY)
    if project is not None and not torch.equal(project.float(), torch.arange(reg_max + 1.0)):
        raise CheckpointError(f"{origin}: {PROJECT_KEY} is {project.tolist()}, expected 0..{reg_max}")
