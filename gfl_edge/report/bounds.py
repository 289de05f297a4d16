"""What a model costs and what a GPU can do at most, as ``report.json`` holds it; docs/report.md describes every key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gfl_edge.parsing.fields import Natural, NotNegative, Positive

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True)
class Cost:
    """Of one image: multiply-accumulates, all and by the precision that they compute in, and bytes."""

    macs: Natural
    weight_bytes: Natural
    input_bytes: Natural
    output_bytes: Natural
    traffic_bytes: Natural
    unknown_tensors: Natural
    fp32_macs: Natural
    bf16_macs: Natural
    fp16_macs: Natural
    int8_macs: Natural


@dataclass(frozen=True)
class Bound:
    """What a GPU cannot do better.

    Attributes:
        gpu: its name.
        compute_ms: of only the multiplications; None where the GPU cannot compute in the graph's precision.
        memory_ms: of only the bytes.
        bound_ms: the larger one; None likewise.
        bound_fps: images per second at ``bound_ms``; None where that is None or 0.
        unfused_ms: what it would take if every operation read and wrote memory: no bound, but what fusion can save.
        limit: what the bound comes from; None where there is none.
    """

    gpu: str
    compute_ms: NotNegative | None
    memory_ms: NotNegative
    bound_ms: NotNegative | None
    bound_fps: NotNegative | None
    unfused_ms: NotNegative | None
    limit: Literal["compute", "memory"] | None


@dataclass(frozen=True)
class GpuPeaks:
    """What a GPU can do at most, at its boost clock and without sparsity.

    Attributes:
        name: as NVIDIA sells it.
        fp32_tera_ops: 10^12 operations a second, a multiply-accumulate being two; None: it cannot. TF32 on tensor cores
            where it has them, which TensorRT may use for FP32.
        bf16_tera_ops: likewise.
        fp16_tera_ops: likewise.
        int8_tera_ops: likewise.
        bandwidth_gb_s: of its memory, 10^9 bytes a second.
        l2_bytes: of its last cache.
        source: of the figures.
    """

    name: str
    fp32_tera_ops: Positive | None
    bf16_tera_ops: Positive | None
    fp16_tera_ops: Positive | None
    int8_tera_ops: Positive | None
    bandwidth_gb_s: Positive
    l2_bytes: Natural
    source: str

    def tera_ops(self, precision: Precision) -> Positive | None:
        """10^12 operations a second in ``precision``; None: it cannot."""
        return {
            "fp32": self.fp32_tera_ops,
            "bf16": self.bf16_tera_ops,
            "fp16": self.fp16_tera_ops,
            "int8": self.int8_tera_ops,
        }[precision]
