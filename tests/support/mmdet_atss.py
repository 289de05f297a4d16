"""What mmdetection 3.3.0 itself computes with an ATSS of small numbers that NumPy draws alike everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SMALL = {"base_channels": 8, "neck_channels": 32, "head_channels": 32, "stacked_convs": 2, "num_classes": 3}
INPUT_HW = (128, 160)
IMAGES = 2
STRIDES = (8, 16, 32, 64, 128)
BOXES = (
    [[10.0, 12.0, 71.0, 93.0], [60.0, 30.0, 150.0, 120.0], [100.0, 5.0, 118.0, 25.0]],
    [[0.0, 0.0, 159.0, 127.0]],
)
LABELS = ([0, 2, 1], [1])

# Its state dict at full size: digests of keys and shapes
KEYS = {
    "atss-r50-1x": "986280c98d2f71aa7bacd43884a11ee722edb11ff4db5aaf2c34eef467a27567",
    "atss-r101-1x": "be598ead06787133dc491345cd3da7fe76140c654cc2a4ff1aaa6b73239f61af",
}

# Of the small network, for each level: mean magnitude, mean, the value in the middle
MAPS = {
    "cls_scores": [
        [5.93764, -5.93021, -3.62497],
        [5.93798, -5.93762, -7.63114],
        [5.96283, -5.94879, -4.88767],
        [5.90516, -5.90516, -5.11218],
        [5.75669, -5.75669, -5.26418],
    ],
    "bbox_preds": [
        [1.0304, 0.24771, 0.69194],
        [0.42546, 0.10221, 0.7504],
        [0.3685, 0.14705, 0.87657],
        [0.55302, 0.10234, 1.07115],
        [0.60485, 0.08462, 1.12303],
    ],
    "centernesses": [
        [0.56464, 0.08875, 1.77084],
        [0.59082, 0.13818, 0.66996],
        [0.60112, 0.20819, 0.84084],
        [0.46274, 0.39249, 0.02625],
        [0.41724, 0.35914, 0.34451],
    ],
}
# Of each image: detections in all, those above 0.05, the sum of these scores; the first of them and the last,
# x1, y1, x2, y2, score, class
DETECTIONS = (
    (
        55,
        32,
        3.497,
        [
            [0.0, 0.0, 43.2319, 44.8414, 0.3311, 0.0],
            [117.2051, 0.0, 160.0, 41.4756, 0.2429, 1.0],
            [139.638, 72.4758, 160.0, 123.7478, 0.2402, 0.0],
            [52.8733, 0.0, 106.3702, 51.3545, 0.2313, 1.0],
        ],
        [48.2912, 54.6417, 114.6529, 128.0, 0.0515, 0.0],
    ),
    (
        54,
        34,
        5.4843,
        [
            [0.0, 0.0, 38.1508, 49.4267, 0.4601, 0.0],
            [56.0287, 0.0, 160.0, 56.5213, 0.422, 0.0],
            [128.5095, 59.608, 160.0, 128.0, 0.4165, 0.0],
            [96.2598, 0.0, 160.0, 39.3144, 0.3857, 1.0],
        ],
        [92.3383, 23.135, 160.0, 63.2772, 0.0513, 1.0],
    ),
)
# Of the drawn maps and BOXES: image, cell, label of each positive; losses and norms of gradients by level
ASSIGNED = [
    [0, 33, 1],
    [0, 34, 1],
    [0, 53, 1],
    [0, 54, 1],
    [0, 73, 1],
    [0, 74, 1],
    [0, 105, 0],
    [0, 124, 0],
    [0, 125, 0],
    [0, 126, 0],
    [0, 144, 0],
    [0, 145, 0],
    [0, 146, 0],
    [0, 165, 0],
    [0, 166, 0],
    [0, 173, 2],
    [0, 174, 2],
    [0, 192, 2],
    [0, 193, 2],
    [0, 194, 2],
    [0, 212, 2],
    [0, 213, 2],
    [0, 214, 2],
    [0, 233, 2],
    [1, 354, 1],
    [1, 355, 1],
    [1, 356, 1],
    [1, 364, 1],
    [1, 365, 1],
    [1, 366, 1],
    [1, 374, 1],
    [1, 375, 1],
    [1, 376, 1],
]
LOSSES = {
    "giou": [0.946774, 0.453042, 0.0, 0.0, 0.0],
    "focal": [3.078991, 0.846952, 0.184423, 0.027971, 0.022544],
    "centerness": [0.678365, 0.221512, 0.0, 0.0, 0.0],
}
GRADIENT_NORMS = {
    "cls_scores": [0.201926, 0.1068156, 0.0538398, 0.019638, 0.0179675],
    "bbox_preds": [0.0415213, 0.0272719, 0.0, 0.0, 0.0],
    "centernesses": [0.05955, 0.0298677, 0.0, 0.0, 0.0],
}


def drawn_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """Weights for keys and shapes, by the order of the keys: activations neither vanish nor grow."""
    rng = np.random.default_rng(5)
    return {key: _drawn(rng, key, tuple(shapes[key])) for key in sorted(shapes)}


def _drawn(rng: np.random.Generator, key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if key.endswith(("running_var", ".scale")) or (key.endswith(".weight") and len(shape) == 1):
        values = rng.uniform(0.5, 1.5, shape) * (0.3 if ".bn3." in key else 1)
    elif len(shape) == 4:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) * (3 if "atss_cls" in key else 1)
    else:
        values = rng.standard_normal(shape) * 0.1 - (6 if key.endswith("atss_cls.bias") else 0)
    return np.asarray(values, np.float32)


def drawn_images() -> NDArray[np.uint8]:
    """Images ``[IMAGES, H, W, 3]`` BGR of coarse noise."""
    coarse = np.random.default_rng(6).integers(0, 256, (IMAGES, INPUT_HW[0] // 16, INPUT_HW[1] // 16, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def drawn_maps() -> dict[str, list[NDArray[np.float32]]]:
    """What a head may say of images of that size, by mmdetection's names: class logits, deltas, centerness."""
    rng = np.random.default_rng(7)
    kinds = {"cls_scores": (3, -2.0, 1.5), "bbox_preds": (4, 0.0, 2.0), "centernesses": (1, 0.0, 1.0)}
    cells = [(-(-INPUT_HW[0] // stride), -(-INPUT_HW[1] // stride)) for stride in STRIDES]
    return {
        name: [rng.normal(mean, std, (IMAGES, channels, *hw)).astype(np.float32) for hw in cells]
        for name, (channels, mean, std) in kinds.items()
    }


def digest(shapes: Mapping[str, list[int]]) -> str:
    """Of keys and shapes."""
    return hashlib.sha256(json.dumps(dict(shapes), sort_keys=True).encode()).hexdigest()
