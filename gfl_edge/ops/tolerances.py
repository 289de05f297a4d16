"""How far a model that was made of another, by an export or an adoption, may be from it."""

from __future__ import annotations

from dataclasses import dataclass

from gfl_edge.spec import Precision


@dataclass(frozen=True)
class Tolerance:
    """Largest differences from float32 that pass."""

    score: float  # 0..1
    # Of a box, and of its standard deviation, in strides of its anchor's level: FP16 errs by a fraction of a bin,
    # whatever the stride
    edge: float


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(score=1e-4, edge=1e-3),
    "fp16": Tolerance(score=0.02, edge=0.15),
    # With four published NanoDets 0.031 and 1.11, PyTorch's own bfloat16 0.030 and 1.31; edges are those of all
    # anchors, most of which see nothing and are unsure of theirs
    "bf16": Tolerance(score=0.06, edge=2.5),
}
