"""What the YAML of RangiLyu/nanodet says of a checkpoint that was trained with it.

nanodet writes the configuration of a run as ``train_cfg.yml`` beside the run's checkpoints, and keeps the best of them
in a folder ``model_best`` there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfl_edge.adopt.nanodet_yml import nanodet_input, read_nanodet_entries
from gfl_edge.annotations.class_names import YAML_SUFFIXES
from gfl_edge.parsing.entries import Entries
from train.models.csp_net import RESIDUALS, WIDENING
from train.models.efficientnet_lite import LITE_SIZES
from train.models.repvgg import REPVGG_SIZES
from train.models.tan import EXPANSION, HEADS
from train.models.traits import Family
from train.weights.trained import Claim, Trained

RUN_CONFIG, BEST_FOLDER = "train_cfg.yml", "model_best"

# By the name of the neck
FAMILY_OF_BACKBONE: dict[str, dict[str, Family]] = {
    "ShuffleNetV2": {"PAN": "nanodet", "GhostPAN": "nanodet-plus", "TAN": "nanodet-t"},
    "CustomCspNet": {"PAN": "nanodet-g"},
    "EfficientNetLite": {"PAN": "nanodet-efficientlite"},
    "RepVGG": {"PAN": "nanodet-repvgg"},
}
# nanodet/model/backbone/shufflenetv2.py, by model_size
STAGE_CHANNELS = {
    "0.5x": (48, 96, 192),
    "1.0x": (116, 232, 464),
    "1.5x": (176, 352, 704),
    "2.0x": (244, 488, 976),
}
# Of every layer that has one, which weights do not show
ACTIVATION = {"EfficientNetLite": "ReLU6", "RepVGG": "ReLU"}
LEAKY = "LeakyReLU"  # of the other backbones
ACTIVATED = {
    "PAN": ("backbone", "head"),
    "GhostPAN": ("backbone", "fpn", "head"),
    "TAN": ("backbone", "fpn", "head"),
}


def config_beside(weights: Path) -> Path | None:
    """The configuration of the run that wrote a checkpoint, where it lies beside it; None where none does."""
    named = [weights.with_suffix(suffix) for suffix in YAML_SUFFIXES if suffix != ".json"]
    folders = [weights.parent, weights.parent.parent] if weights.parent.name == BEST_FOLDER else [weights.parent]
    return next((path for path in (*named, *(folder / RUN_CONFIG for folder in folders)) if path.is_file()), None)


def read_nanodet_config(path: Path) -> Trained:
    """Read a configuration; nothing in it is executed.

    Raises:
        InputError: unreadable, none of nanodet's, a value of another kind, or a network that is none of ours.
        MissingDependencyError: PyYAML is not installed.
    """
    entries = read_nanodet_entries(path)
    taken = nanodet_input(entries)
    return Trained(
        origin=str(path),
        class_names=taken.class_names,
        input_hw=taken.input_hw,
        resize=taken.resize,
        mean_bgr=taken.mean_bgr,
        std_bgr=taken.std_bgr,
        channel_order="bgr",
        claims=_claims(entries),
    )


def _claims(entries: Entries) -> tuple[Claim, ...]:
    arch = "model.arch"
    neck, backbone = entries.text(f"{arch}.fpn.name"), entries.text(f"{arch}.backbone.name")
    if backbone is not None and backbone not in FAMILY_OF_BACKBONE:
        expected = f"one of {', '.join(FAMILY_OF_BACKBONE)}, the backbones that are supported"
        raise entries.error(f"{arch}.backbone.name", backbone, expected)
    family_of_neck = FAMILY_OF_BACKBONE[backbone or "ShuffleNetV2"]
    if neck is not None and neck not in family_of_neck:
        raise entries.error(f"{arch}.fpn.name", neck, f"one of {', '.join(family_of_neck)}, which are supported")
    _check_hidden(entries, arch, backbone, neck)
    feature_hw = entries.integers(f"{arch}.fpn.feature_hw", 2)
    claimed = {
        f"{arch}.fpn.name": ("family", family_of_neck[neck] if neck else None),
        **_backbone_claims(entries, f"{arch}.backbone"),
        f"{arch}.fpn.feature_hw": ("attention_hw", feature_hw if neck == "TAN" else None),
        f"{arch}.fpn.out_channels": ("neck_channels", entries.integer(f"{arch}.fpn.out_channels")),
        f"{arch}.head.num_classes": ("num_classes", entries.integer(f"{arch}.head.num_classes")),
        f"{arch}.head.reg_max": ("reg_max", entries.integer(f"{arch}.head.reg_max")),
        f"{arch}.head.strides": ("strides", entries.integers(f"{arch}.head.strides")),
        f"{arch}.head.stacked_convs": ("stacked_convs", entries.integer(f"{arch}.head.stacked_convs", 0)),
    }
    return tuple(Claim(place, field, value) for place, (field, value) in claimed.items() if value is not None)


def _check_hidden(entries: Entries, arch: str, backbone: str | None, neck: str | None) -> None:
    """Raise InputError where what weights do not show is not as in the published networks."""
    activation = ACTIVATION.get(backbone or "", LEAKY)
    for part in ACTIVATED.get(neck or "", ()):
        found = entries.text(f"{arch}.{part}.activation")
        if found not in (None, activation):
            expected = f"{activation}, the activation that is supported (of others take the ONNX file: gfl-edge adopt)"
            raise entries.error(f"{arch}.{part}.activation", found, expected)
    for name, only in (("num_heads", HEADS), ("mlp_ratio", EXPANSION)):
        number = entries.get(f"{arch}.fpn.{name}") if neck == "TAN" else only
        if number not in (None, only):
            raise entries.error(f"{arch}.fpn.{name}", number, f"{only}, the only one that is supported")


def _backbone_claims(entries: Entries, place: str) -> dict[str, tuple[str, Any]]:
    """By the place in the configuration: a field of the network and its value, None where nothing is said."""
    claimed: dict[str, tuple[str, Any]] = {
        f"{place}.net_cfg": ("stage_channels", _csp_channels(entries, f"{place}.net_cfg"))
    }
    for name, sizes in (("model_size", STAGE_CHANNELS), ("model_name", LITE_SIZES), ("arch", REPVGG_SIZES)):
        size = entries.text(f"{place}.{name}")
        if size is None:
            continue
        if size not in sizes:
            raise entries.error(f"{place}.{name}", size, f"one of {', '.join(sizes)}")
        if name == "model_size":
            claimed[f"{place}.{name}"] = ("stage_channels", STAGE_CHANNELS[size])
            continue
        form = (LITE_SIZES if name == "model_name" else REPVGG_SIZES)[size]
        claimed[f"{place}.{name}"] = ("stage_blocks", form.stage_blocks)
        last = entries.integer(f"{place}.last_channel") or form.stage_channels[-1]
        claimed[f"{place}.{name} (channels)"] = ("stage_channels", (*form.stage_channels[:2], last))
    return claimed


def _csp_channels(entries: Entries, place: str) -> tuple[int, ...] | None:
    """The channels of the maps that a CustomCspNet of NanoDet-g's form gives; None where none is described."""
    layers = entries.get(place)
    if layers is None:
        return None
    match layers:
        case [["Conv", 3, int(stem), 3, 2], *_] if layers == _csp_layers(stem):
            return tuple(WIDENING * stem << level for level in range(3))
    raise entries.error(place, layers, "the layers of nanodet-g.yml, or all of them so many times as wide")


def _csp_layers(stem: int) -> list[list[Any]]:
    blocks = [["CspBlock", stem << level, count, 3, 1 if level == 0 else 2] for level, count in enumerate(RESIDUALS)]
    return [["Conv", 3, stem, 3, 2], ["MaxPool", 3, 2], *blocks]
