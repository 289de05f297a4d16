"""How fast a graph can be at most on a GPU that is not at hand: a bound, never a measurement.

A frame takes at least as long as its multiplications do at the peak of their precision, and at least as long as the
bytes that have to come from memory: input, outputs and weights once, less what the last cache can hold from one frame
to the next. Whichever is longer is the bound.
"""

from __future__ import annotations

from gfl_edge.bench.graph_cost import GraphCost
from gfl_edge.report.bounds import Bound, GpuPeaks

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

ASSUMPTIONS = (
    "batch 1; the network of the file with its decode and NMS, without resize, upload and download",
    "convolutions and matrix products run at the published dense peak of their precision, at boost clock; everything "
    "else costs no time",
    "direct convolutions: a Winograd convolution multiplies less, so that an FP32 network of 3 x 3 convolutions "
    "could pass its bound",
    "intermediate results never leave the caches, and of weights, input and outputs only what the last cache cannot "
    "hold comes from memory",
    "real engines reach a part of this; how large a part has to be measured",
)


def bound(cost: GraphCost, gpu: GpuPeaks) -> Bound:
    """The bound of a graph on a GPU."""
    needed = cost.weight_bytes + cost.input_bytes + cost.output_bytes
    memory_ms = _transfer_ms(max(0, needed - gpu.l2_bytes), gpu)
    compute_ms = 0.0
    for precision, macs in cost.macs.items():
        tera_ops = gpu.tera_ops(precision)
        if macs and tera_ops is None:  # the GPU does not compute in it
            return Bound(gpu.name, None, memory_ms, None, None, None, None)
        compute_ms += 2e3 * macs / (tera_ops * 1e12) if tera_ops is not None else 0.0
    bound_ms = max(compute_ms, memory_ms)
    return Bound(
        gpu=gpu.name,
        compute_ms=compute_ms,
        memory_ms=memory_ms,
        bound_ms=bound_ms,
        bound_fps=1000 / bound_ms if bound_ms else None,
        unfused_ms=max(compute_ms, _transfer_ms(cost.traffic_bytes, gpu)),
        limit="compute" if compute_ms >= memory_ms else "memory",
    )


def _transfer_ms(nbytes: int, gpu: GpuPeaks) -> float:
    return nbytes / (gpu.bandwidth_gb_s * 1e6)


def bounds(cost: GraphCost) -> tuple[Bound, ...]:
    """The bounds of a graph on all GPUs that are known."""
    return tuple(bound(cost, gpu) for gpu in GPUS)
