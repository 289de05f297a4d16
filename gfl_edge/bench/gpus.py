"""What GPUs can do at most, by NVIDIA's own figures, without sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ORIN = (
    "NVIDIA Jetson AGX Orin Series Technical Brief v1.2 and module data sheets: tensor cores x clock; INT8 is half of "
    "the published sparse TOPS of the GPU, without the DLA; NX and Nano at the MAXN_SUPER clocks of JetPack 6.2"
)


@dataclass(frozen=True)
class Gpu:
    """Peaks of a GPU at its boost clock.

    Attributes:
        name: as NVIDIA sells it.
        tera_ops: 10^12 operations a second by precision, a multiply-accumulate being two; what is missing it cannot.
            "fp32" is TF32 on tensor cores where it has them, which TensorRT may use for float32.
        bandwidth_gb_s: of its memory, 10^9 bytes a second.
        l2_bytes: of its last cache.
        source: of the figures.
    """

    name: str
    tera_ops: Mapping[str, float]
    bandwidth_gb_s: float
    l2_bytes: int
    source: str


GPUS = (
    Gpu(
        "GeForce RTX 2080 Ti",
        {"fp32": 14.2, "fp16": 113.8, "int8": 227.7},
        616.0,
        5632 << 10,
        "NVIDIA Turing GPU Architecture whitepaper WP-09183-001, Founders Edition, FP16 accumulation",
    ),
    Gpu(
        "GeForce RTX 4090",
        {"fp32": 82.6, "bf16": 165.2, "fp16": 330.3, "int8": 660.6},
        1008.0,
        73728 << 10,
        "NVIDIA Ada GPU Architecture whitepaper v2, appendix A, FP16 accumulation",
    ),
    Gpu("Jetson AGX Orin 64GB", {"fp32": 21.3, "bf16": 42.6, "fp16": 42.6, "int8": 85.2}, 204.8, 4 << 20, _ORIN),
    Gpu("Jetson Orin NX 16GB", {"fp32": 9.6, "bf16": 19.2, "fp16": 19.2, "int8": 38.4}, 102.4, 4 << 20, _ORIN),
    Gpu("Jetson Orin Nano 8GB", {"fp32": 8.4, "bf16": 16.7, "fp16": 16.7, "int8": 33.4}, 102.4, 4 << 20, _ORIN),
)
