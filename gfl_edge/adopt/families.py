"""How each family was trained, which its graphs do not say, and what of a graph shows the family."""

from __future__ import annotations

import re
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
        is_yolo: whether it looks like YOLOv8 and its successors, which have distributions of 16 bins and SiLU.
    """

    family: AdoptedFamily | None
    reason: str
    is_yolo: bool = False


def guess_family(foreign: Foreign, head: Head) -> FamilyGuess:
    """The family by activations, levels, neck and head.

    NanoDet has three levels, leaky ReLU and depthwise convolutions of 3 x 3 cells in its head; NanoDet-EfficientLite
    has ReLU6 and others of 5 x 5 in its backbone, NanoDet-RepVGG a long chain of plain convolutions with ReLU.
    NanoDet-Plus has four levels and ghost modules in its neck; PicoDet has hard swish; GFL of mmdetection has ReLU,
    group normalization in its head and five levels from stride 8 on. What resembles two of them, or has points
    elsewhere, is left open.
    """
    graph = OnnxGraph(foreign.model)
    maps = [piece.tensor for level in head.levels for piece in (level.scores, level.distributions)]
    nodes = ancestors(graph, maps)
    kinds = {str(node.op_type) for node in nodes}
    ghosts, count = _ghosts(graph, nodes), len(head.levels)
    activations = _activations(graph, nodes)
    seen = [
        f"{count} levels of strides {', '.join(map(str, head.strides))}",
        " and ".join(activations),
        f"{ghosts} ghost modules" if ghosts else "",
        f"made by {foreign.producer}" if foreign.producer else "",
        "" if head.point_offset is None else f"points at {head.point_offset:g} of their cells",
    ]
    by_paddle = "paddle" in foreign.producer.lower() or any(_PADDLE_WEIGHT.match(name) for name in graph.initializers)
    found: list[AdoptedFamily] = []
    swish = activations[:1] == ["hard swish"] and set(activations) <= {"hard swish", "ReLU"}
    if count == 4 and (by_paddle or (swish and not ghosts)):
        found.append("picodet")
    if count == 3 and not ghosts:
        found += _nanodets(graph, nodes, maps, activations)
    if count == 4 and ghosts and activations == ["leaky ReLU"] and not by_paddle:
        found.append("nanodet-plus")
    grouped = bool(kinds & {"GroupNormalization", "InstanceNormalization"})
    if grouped and activations == ["ReLU"] and head.strides == (8, 16, 32, 64, 128):
        found.append("gfl")
    found = [family for family in found if head.point_offset in (None, TRAITS[family].point_offset)]
    is_yolo = activations == ["SiLU"] and (head.reg_max, count, ghosts) == (15, 3, 0)
    return FamilyGuess(found[0] if len(found) == 1 else None, ", ".join(filter(None, seen)), is_yolo)


_PADDLE_WEIGHT = re.compile(r"(conv2d|batch_norm2d)_\d+\.w_\d+")
_ACTIVATING = (
    *("LeakyRelu", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "BatchNormalization"),
    *("Mul", "Div", "Add"),  # of which activations are written
)
CHAIN = 12  # convolutions with ReLU, one after the other; the shortest RepVGG has 22


def _activations(graph: OnnxGraph, nodes: list[Any]) -> list[str]:
    kinds = {str(node.op_type) for node in nodes}
    swish = _has_hard_swish(graph, nodes)
    shown = {
        "hard swish": swish,
        "leaky ReLU": "LeakyRelu" in kinds,
        "ReLU": "Relu" in kinds,
        "ReLU6": "Clip" in kinds and not swish,
        "SiLU": any(_is_gated(graph, node, ("Sigmoid",)) for node in nodes),
        "GELU": bool(kinds & {"Erf", "Gelu"}),
    }
    return [name for name, there in shown.items() if there]


def _nanodets(graph: OnnxGraph, nodes: list[Any], maps: list[str], activations: list[str]) -> list[AdoptedFamily]:
    """Those of three levels without ghost modules; none where the head is one of NanoDet-Plus, whose points differ."""
    depthwise = [node for node in nodes if _groups(node) > 1]
    of_head = [node for name in maps if (node := _last_depthwise(graph, name)) is not None]
    if any(_kernel(node) > 3 for node in of_head):
        return []
    if activations == ["leaky ReLU"]:
        return ["nanodet"]
    if activations == ["leaky ReLU", "ReLU"]:  # of a backbone of another kind, or of the attention in NanoDet-t's neck
        return ["nanodet-t" if any(node.op_type == "Softmax" for node in nodes) else "nanodet"]
    if activations == ["ReLU"] and _chain(graph, nodes) >= CHAIN:
        return ["nanodet-repvgg"]
    if activations in (["ReLU6"], ["leaky ReLU", "ReLU6"]) and any(_kernel(node) > 3 for node in depthwise):
        return ["nanodet-efficientlite"]  # without such kernels it may be MobileNetV2, which ImageNet's mean goes with
    return []


def _last_depthwise(graph: OnnxGraph, name: str) -> Any:
    """The depthwise convolution that is met first on the way back from a tensor, past one 1 x 1 convolution each."""
    for _ in range(8):
        node = graph.producers.get(name)
        if node is None or _groups(node) > 1:
            return node
        name = node.input[0]
    return None


def _kernel(conv: Any) -> int:
    get = optional.load("onnx.helper").get_attribute_value
    return max((max(get(a)) for a in conv.attribute if a.name == "kernel_shape"), default=0)


def _chain(graph: OnnxGraph, nodes: list[Any]) -> int:
    """How many convolutions of 3 x 3 with ReLU follow one after the other from the image on."""
    lengths: dict[str, int] = {}
    for node in nodes:
        if node.op_type == "Relu":
            conv = graph.producers.get(node.input[0])
            if conv is not None and conv.op_type == "Conv" and _kernel(conv) == 3:
                lengths[node.output[0]] = lengths.get(conv.input[0], 0) + 1
    return max(lengths.values(), default=0)


def _has_hard_swish(graph: OnnxGraph, nodes: list[Any]) -> bool:
    """As a node, or written as x * clip(x + 3, 0, 6) / 6, or with a hard sigmoid."""
    return any(node.op_type == "HardSwish" or _is_gated(graph, node, ("Clip", "HardSigmoid")) for node in nodes)


def _is_gated(graph: OnnxGraph, node: Any, gates: tuple[str, ...]) -> bool:
    """Whether it is the product of a tensor and a gate of the same tensor, or of that and a number."""
    if node.op_type != "Mul":
        return False
    for first, second in (tuple(node.input), tuple(node.input)[::-1]):
        gate = graph.producers.get(first)
        if gate is None or gate.op_type not in gates:
            continue
        source = gate.input[0]
        added = graph.producers.get(source)
        if second == source or (added is not None and added.op_type == "Add" and second in added.input):
            return True
    return False


def _ghosts(graph: OnnxGraph, nodes: list[Any]) -> int:
    """How many maps are joined with what a depthwise convolution makes of them (GhostNet, Han et al. 2020)."""
    found = 0
    for node in (node for node in nodes if node.op_type == "Concat" and len(node.input) == 2):
        maker = _convolution_before(graph, node.input[1])
        found += maker is not None and maker.input[0] == node.input[0] and _groups(maker) > 1
    return found


def _convolution_before(graph: OnnxGraph, name: str) -> Any:
    """The convolution that a tensor comes from by an activation, a batch normalization or both; None: from no one."""
    wanted, found = [name], {}
    seen: set[str] = set()
    while wanted:
        tensor = wanted.pop()
        node = graph.producers.get(tensor)
        if tensor in seen or node is None:
            continue
        seen.add(tensor)
        if node.op_type == "Conv":
            found[node.output[0]] = node
        elif node.op_type in _ACTIVATING:
            wanted.extend(node.input)
    return next(iter(found.values())) if len(found) == 1 else None


def _groups(conv: Any) -> int:
    get = optional.load("onnx.helper").get_attribute_value
    return next((int(get(attribute)) for attribute in conv.attribute if attribute.name == "group"), 1)
