"""What the YAML of RangiLyu/nanodet says of a checkpoint that was trained with it.

nanodet writes the configuration of a run as ``train_cfg.yml`` beside the run's checkpoints, and keeps the best of them
in a folder ``model_best`` there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.annotations.class_names import YAML_SUFFIXES, compose_yaml
from gfl_edge.errors import InputError
from train.models.csp_net import RESIDUALS, WIDENING
from train.models.efficientnet_lite import LITE_SIZES
from train.models.repvgg import REPVGG_SIZES
from train.models.tan import EXPANSION, HEADS
from train.models.traits import Family
from train.weights.trained import Claim, Entries, Trained, Triple

RUN_CONFIG, BEST_FOLDER = "train_cfg.yml", "model_best"
MAX_NODES, MAX_NODE_DEPTH = 20_000, 50  # with what aliases stand for; nanodet's own files have 200

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
    entries = Entries(_Plain(path).value(compose_yaml(path), 0), str(path))
    if entries.get("model.arch.head") is None or entries.get("data.val") is None:
        raise InputError(
            f"{path} is no configuration of nanodet: expected model.arch.head and data.val, as in its config/*.yml"
        )
    mean_bgr, std_bgr = _normalization(entries)
    width_height = entries.integers("data.val.input_size", 2)
    keep_ratio = entries.flag("data.val.keep_ratio")
    return Trained(
        origin=str(path),
        class_names=entries.names(entries.at("class_names", "data.val.class_names")),
        input_hw=None if width_height is None else (width_height[1], width_height[0]),
        resize="stretch" if keep_ratio is False else "letterbox",  # nanodet's own default
        mean_bgr=mean_bgr,
        std_bgr=std_bgr,
        channel_order="bgr",
        claims=_claims(entries),
    )


def _normalization(entries: Entries) -> tuple[Triple | None, Triple | None]:
    place = "data.val.pipeline.normalize"
    value = entries.get(place)
    if value is None:
        return None, None
    if not isinstance(value, list) or len(value) != 2:
        raise entries.error(place, value, "[mean, std], three numbers each")
    both = Entries({"mean": value[0], "std": value[1]}, f"{entries.origin}: {place}")
    return both.triple("mean"), both.triple("std", positive=True)


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
            expected = f"{activation}, the activation that is supported"
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


class _Plain:
    """Turns YAML's nodes into values, as many as a configuration can have.

    Class names stay as they are written, so that ``no`` is a name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._yaml = optional.load("yaml")
        self._constructor = self._yaml.constructor.SafeConstructor()
        self._left = MAX_NODES

    def value(self, node: Any, depth: int, as_text: bool = False) -> Any:
        yaml = self._yaml
        self._left -= 1
        if self._left < 0 or depth > MAX_NODE_DEPTH:
            raise InputError(
                f"{self._path} is no configuration: more than {MAX_NODES} values, or {MAX_NODE_DEPTH} levels"
            )
        if node is None:  # an empty file
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1, as_text) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if as_text and node.value:
            return node.value
        return self._scalar(node)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key.value, str) else "?"
            found = self.value(value, depth + 1, name == "class_names")
            if key.tag == "tag:yaml.org,2002:merge":
                for part in found if isinstance(found, list) else [found]:
                    merged = {**part, **merged} if isinstance(part, dict) else merged
            elif name in own:
                raise InputError(f"{self._path}, line {key.start_mark.line + 1}: {name!r} comes twice")
            else:
                own[name] = found
        return {**merged, **own}

    def _scalar(self, node: Any) -> Any:
        constructor = self._constructor
        kinds = {
            "null": lambda node: None,
            "bool": constructor.construct_yaml_bool,
            "int": constructor.construct_yaml_int,
            "float": constructor.construct_yaml_float,
        }
        construct = kinds.get(node.tag.rpartition(":")[2])
        try:
            return construct(node) if construct else node.value
        except (ValueError, KeyError):  # a tag that its text does not fit
            return node.value
