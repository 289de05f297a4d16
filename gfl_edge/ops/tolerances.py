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


@dataclass(frozen=True)
class Parity:
    """Largest differences between a model and the one that it was made of.

    Attributes:
        against: what it was compared with.
        images: on which they were compared.
        score: of scores, 0..1.
        edge: of the edges of boxes, in strides.
        detections_differing: images whose detections in the graph are not those of greedy NMS over its candidates.
        tolerance: what passes.
        sigma: of the standard deviations of edges, in strides; None: the model gives none.
    """

    against: str
    images: int
    score: float
    edge: float
    detections_differing: int
    tolerance: Tolerance
    sigma: float | None = None

    @property
    def passed(self) -> bool:
        """Whether everything is within tolerance, within which no NaN is."""
        edges = [self.edge] if self.sigma is None else [self.edge, self.sigma]
        within = self.score <= self.tolerance.score and all(edge <= self.tolerance.edge for edge in edges)
        return within and not self.detections_differing

    def __str__(self) -> str:
        """Each quantity with its tolerance, in one line."""
        sigma = "" if self.sigma is None else f"sigma {self.sigma:.2e} strides (tolerance {self.tolerance.edge:g}), "
        return (
            f"largest difference from {self.against} on {self.images} images: "
            f"score {self.score:.2e} (tolerance {self.tolerance.score:g}), "
            f"box edge {self.edge:.2e} strides (tolerance {self.tolerance.edge:g}), {sigma}"
            f"images whose detections differ from greedy NMS: {self.detections_differing}"
        )
