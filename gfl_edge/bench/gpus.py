"""What GPUs can do at most, by NVIDIA's own figures, without sparsity."""

from __future__ import annotations

from gfl_edge.report.schema import GpuPeaks

_ORIN = (
    "NVIDIA Jetson AGX Orin Series Technical Brief v1.2 and module data sheets: tensor cores x clock; INT8 is half of "
    "the published sparse TOPS of the GPU, without the DLA; NX and Nano at the MAXN_SUPER clocks of JetPack 6.2"
)


GPUS = (
    GpuPeaks(
        name="GeForce RTX 2080 Ti",
        fp32_tera_ops=14.2,
        bf16_tera_ops=None,
        fp16_tera_ops=113.8,
        int8_tera_ops=227.7,
        bandwidth_gb_s=616.0,
        l2_bytes=5632 << 10,
        source="NVIDIA Turing GPU Architecture whitepaper WP-09183-001, Founders Edition, FP16 accumulation",
    ),
    GpuPeaks(
        name="GeForce RTX 4090",
        fp32_tera_ops=82.6,
        bf16_tera_ops=165.2,
        fp16_tera_ops=330.3,
        int8_tera_ops=660.6,
        bandwidth_gb_s=1008.0,
        l2_bytes=73728 << 10,
        source="NVIDIA Ada GPU Architecture whitepaper v2, appendix A, FP16 accumulation",
    ),
    GpuPeaks("Jetson AGX Orin 64GB", 21.3, 42.6, 42.6, 85.2, 204.8, 4 << 20, _ORIN),
    GpuPeaks("Jetson Orin NX 16GB", 9.6, 19.2, 19.2, 38.4, 102.4, 4 << 20, _ORIN),
    GpuPeaks("Jetson Orin Nano 8GB", 8.4, 16.7, 16.7, 33.4, 102.4, 4 << 20, _ORIN),
)
