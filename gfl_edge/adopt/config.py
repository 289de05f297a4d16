"""What the configuration of a training or an export says of how a detector is run: nanodet's, or PaddleDetection's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfl_edge.adopt.choices import Choices
from gfl_edge.adopt.families import AdoptedFamily
from gfl_edge.adopt.nanodet_yml import check_nanodet, nanodet_input
from gfl_edge.errors import InputError
from gfl_edge.parsing.entries import Entries, Triple
from gfl_edge.parsing.yaml_values import read_yaml
from gfl_edge.spec import ResizeRule

_FAMILIES_OF_HEADS: dict[str, AdoptedFamily] = {
    "GFLHead": "nanodet",
    "NanoDetHead": "nanodet",
    "NanoDetPlusHead": "nanodet-plus",
}
# PaddleDetection, ppdet/engine/export_utils.py: with its post-processing, a PicoDet is called GFL
_PADDLE_ARCHITECTURES: dict[str, AdoptedFamily | None] = {"PicoDet": "picodet", "GFL": None}
_LINEAR, _CUBIC = 1, 2  # of OpenCV
_GRAY_LEVELS = 255


@dataclass(frozen=True, kw_only=True)
class Configured:
    """What a configuration says; None: nothing.

    Attributes:
        class_names: in the order of the outputs.
        input_hw: (height, width) in pixels.
        num_classes, reg_max, strides: of the head.
        strides_at: where the strides stand in it.
        choices: how frames reach the network.
    """

    class_names: tuple[str, ...] | None
    input_hw: tuple[int, int] | None
    num_classes: int | None = None
    reg_max: int | None = None
    strides: tuple[int, ...] | None
    strides_at: str
    choices: Choices


def read_config(path: Path) -> Configured:
    """The configuration of nanodet, or ``infer_cfg.yml``, which PaddleDetection writes beside what it exports.

    Raises:
        InputError: unreadable, of another project or another detector.
        MissingDependencyError: PyYAML is not installed.
    """
    entries = Entries(read_yaml(path), str(path))
    return _of_nanodet(entries) if entries.get("Preprocess") is None else _of_paddle(entries)


def _of_nanodet(entries: Entries) -> Configured:
    check_nanodet(entries)
    taken = nanodet_input(entries)
    family = _FAMILIES_OF_HEADS.get(entries.text("model.arch.head.name") or "")
    return Configured(
        class_names=taken.class_names,
        input_hw=taken.input_hw,
        num_classes=entries.integer("model.arch.head.num_classes"),
        reg_max=entries.integer("model.arch.head.reg_max"),
        strides=entries.integers("model.arch.head.strides"),
        strides_at="model.arch.head.strides",
        choices=Choices(family, None, taken.resize, "bgr", taken.mean_bgr, taken.std_bgr),
    )


def _of_paddle(entries: Entries) -> Configured:
    architecture = entries.text("arch")
    if architecture not in _PADDLE_ARCHITECTURES:
        raise InputError(
            f"{entries.origin} is of the architecture {architecture}, expected {' or '.join(_PADDLE_ARCHITECTURES)}"
        )
    resize = _step(entries, "Resize")
    size = resize.integers("target_size", 2)
    return Configured(
        class_names=entries.names("label_list"),
        input_hw=None if size is None else (size[0], size[1]),
        strides=entries.integers("fpn_stride"),
        strides_at="fpn_stride",
        choices=Choices(
            _PADDLE_ARCHITECTURES[architecture], None, _resize_rule(resize), "rgb", *_normalization(entries)
        ),
    )


def _step(entries: Entries, kind: str) -> Entries:
    """One of the steps before the network; empty where there is none of that kind."""
    steps: Any = entries.get("Preprocess")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise entries.error("Preprocess", steps, "a list of steps, each with its type")
    found: dict[str, Any] = next((step for step in steps if step.get("type") == kind), {})
    return Entries(found, f"{entries.origin}: Preprocess, {kind}")


def _resize_rule(step: Entries) -> ResizeRule | None:
    interpolation = step.integer("interp", 0)
    if step.flag("keep_ratio"):
        return "fit" if interpolation == _LINEAR else None
    rules: dict[int | None, ResizeRule] = {_LINEAR: "stretch", _CUBIC: "stretch-cubic"}
    return rules.get(interpolation)


def _normalization(entries: Entries) -> tuple[Triple | None, Triple | None]:
    """Mean and deviation in gray levels, red first; None where the exported network has them inside."""
    step = _step(entries, "NormalizeImage")
    if not step.values:
        return None, None
    plain = step.text("norm_type") == "none"
    mean = (0.0,) * 3 if plain else step.triple("mean")
    std = (1.0,) * 3 if plain else step.triple("std", positive=True)
    factor = _GRAY_LEVELS if step.flag("is_scale") in (None, True) else 1
    return _times(mean, factor), _times(std, factor)


def _times(values: Any, factor: int) -> Triple | None:
    return None if values is None else (values[0] * factor, values[1] * factor, values[2] * factor)
