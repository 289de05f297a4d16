"""How each family was trained, which its graphs do not say, and what of a graph shows the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from gfl_edge import optional
from gfl_edge.adopt.foreign import Foreign, ancestors
from gfl_edge.adopt.recognize import Head
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.parsing.entries import Triple
from gfl_edge.spec import ResizeRule

AdoptedFamily = Literal[
    "nanodet", "nanodet-g", "nanodet-t", "nanodet-efficientlite", "nanodet-repvgg", "nanodet-plus", "picodet", "gfl"
]
ChannelOrder = Literal["bgr", "rgb"]

# ImageNet statistics in BGR order, gray levels
IMAGENET_MEAN_BGR: Triple = (103.53, 116.28, 123.675)
IMAGENET_STD_BGR: Triple = (57.375, 57.12, 58.395)
# EfficientNet-Lite saw (gray level - 127) / 128; tensorflow/tpu: efficientnet/lite/efficientnet_lite_builder.py
LITE_MEAN, LITE_STD = 127.0, 128.0


@dataclass(frozen=True)
class AdoptedTraits:
    """How frames reach a network of the family, and where its points lie.

    Attributes:
        resize: how frames are brought to the input.
        point_offset: cell i of a level lies at ``(i + point_offset) * stride``.
        channel_order: in which the network takes its three channels.
        mean_bgr, std_bgr: gray levels.
    """

    resize: ResizeRule
    point_offset: float
    channel_order: ChannelOrder
    mean_bgr: Triple = IMAGENET_MEAN_BGR
    std_bgr: Triple = IMAGENET_STD_BGR


TRAITS: dict[AdoptedFamily, AdoptedTraits] = {
    # RangiLyu/nanodet, nanodet/model/head/gfl_head.py (get_single_level_center_point) and nanodet_plus_head.py
    "nanodet": AdoptedTraits("letterbox", 0.5, "bgr"),
    "nanodet-g": AdoptedTraits("letterbox", 0.5, "bgr"),
    "nanodet-t": AdoptedTraits("letterbox", 0.5, "bgr"),
    "nanodet-efficientlite": AdoptedTraits("letterbox", 0.5, "bgr", (LITE_MEAN,) * 3, (LITE_STD,) * 3),
    "nanodet-repvgg": AdoptedTraits("letterbox", 0.5, "bgr"),
    "nanodet-plus": AdoptedTraits("stretch", 0.0, "bgr"),
    # PaddleDetection, configs/picodet: TestReader resizes without keeping the ratio, interp 2 (cubic); pico_head.py has
    # cell_offset 0.5; ImageNet mean and std on RGB
    "picodet": AdoptedTraits("stretch-cubic", 0.5, "rgb"),
    # mmdetection 3.3.0, configs/gfl: AnchorGenerator with center_offset 0, data_preprocessor with bgr_to_rgb
    "gfl": AdoptedTraits("fit", 0.0, "rgb"),
}
FAMILIES = get_args(AdoptedFamily)
SCORE_THRESHOLDS = {"picodet": 0.025}  # of the family's own evaluation, where it is not that of all others


@dataclass(frozen=True)
class FamilyGuess:
    """What a graph looks like.

    Attributes:
        family: None where it looks like none, or like several.
        reason: what was seen.
    """

    family: AdoptedFamily | None
    reason: str


def guess_family(foreign: Foreign, head: Head) -> FamilyGuess:
    """The family by activations, levels and neck.

    NanoDet has leaky ReLU, three levels and adds maps in its neck, and ReLU or ReLU6 besides where its backbone is
    RepVGG or EfficientNet-Lite; NanoDet-Plus has four levels and ghost modules in its neck; PicoDet has hard swish; GFL
    of mmdetection has ReLU, group normalization in its head and five levels from stride 8 on.
    """
    graph = OnnxGraph(foreign.model)
    maps = [piece.tensor for level in head.levels for piece in (level.scores, level.distributions)]
    nodes = ancestors(graph, maps)
    kinds = {str(node.op_type) for node in nodes}
    swish, ghosts = _has_hard_swish(graph, nodes), _ghosts(graph, nodes)
    count = len(head.levels)
    shown = {"leaky ReLU": "LeakyRelu" in kinds, "ReLU": "Relu" in kinds, "ReLU6": "Clip" in kinds and not swish}
    activations = [name for name, there in {"hard swish": swish, **shown}.items() if there]
    seen = [
        f"{count} levels of strides {', '.join(map(str, head.strides))}",
        " and ".join(activations),
        f"{ghosts} ghost modules" if ghosts else "",
        f"made by {foreign.producer}" if foreign.producer else "",
    ]
    reason = ", ".join(filter(None, seen))
    by_paddle = "paddle" in foreign.producer.lower()
    grouped = bool(kinds & {"GroupNormalization", "InstanceNormalization"})
    found: list[AdoptedFamily] = []
    if (swish and (by_paddle or count == 4)) or (by_paddle and count == 4):
        found.append("picodet")
    if count == 3 and not ghosts:
        found += [family for family, own in _BY_ACTIVATIONS.items() if own == activations]
    if count == 4 and ghosts and activations == ["leaky ReLU"]:
        found.append("nanodet-plus")
    if grouped and activations == ["ReLU"] and head.strides == (8, 16, 32, 64, 128):
        found.append("gfl")
    return FamilyGuess(found[0] if len(found) == 1 else None, reason)


_BY_ACTIVATIONS: dict[AdoptedFamily, list[str]] = {
    "nanodet": ["leaky ReLU"],
    "nanodet-repvgg": ["leaky ReLU", "ReLU"],
    "nanodet-efficientlite": ["leaky ReLU", "ReLU6"],
}


def _has_hard_swish(graph: OnnxGraph, nodes: list[Any]) -> bool:
    """As a node, or written as x * clip(x + 3, 0, 6) / 6, or with a hard sigmoid."""
    for node in nodes:
        if node.op_type == "HardSwish":
            return True
        if node.op_type == "Mul":
            for first, second in (tuple(node.input), tuple(node.input)[::-1]):
                gate = graph.producers.get(first)
                if gate is None or gate.op_type not in ("Clip", "HardSigmoid"):
                    continue
                source = gate.input[0]
                added = graph.producers.get(source)
                if second == source or (added is not None and added.op_type == "Add" and second in added.input):
                    return True
    return False


def _ghosts(graph: OnnxGraph, nodes: list[Any]) -> int:
    """How many maps are joined with what a depthwise convolution makes of them (GhostNet, Han et al. 2020)."""
    simple = ("LeakyRelu", "Relu", "BatchNormalization")
    found = 0
    for node in (node for node in nodes if node.op_type == "Concat" and len(node.input) == 2):
        maker = graph.producers.get(node.input[1])
        while maker is not None and maker.op_type in simple:
            maker = graph.producers.get(maker.input[0])
        if maker is not None and maker.op_type == "Conv" and maker.input[0] == node.input[0]:
            found += _groups(maker) > 1
    return found


def _groups(conv: Any) -> int:
    get = optional.load("onnx.helper").get_attribute_value
    return next((int(get(attribute)) for attribute in conv.attribute if attribute.name == "group"), 1)
