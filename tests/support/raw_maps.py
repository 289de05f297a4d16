"""Raw maps of a small detector, of random logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.support.tiny_spec import TINY

SPEC = replace(TINY, class_names=("a", "b", "c"), input_hw=(96, 64), nms="raw", max_candidates=60, max_detections=25)


def random_maps(seed, spec=SPEC, dtype=np.float32, spread=3.0):
    rng = np.random.default_rng(seed)
    cls = rng.normal(-3, spread, (spec.num_anchors, spec.num_classes)).astype(dtype)
    return cls, rng.normal(0, 2, (spec.num_anchors, 4 * (spec.reg_max + 1))).astype(dtype)
