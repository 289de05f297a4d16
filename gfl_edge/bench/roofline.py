"""How fast a graph can be at most on a GPU that is not at hand: a bound, never a measurement.

A frame takes at least as long as its multiplications do at the peak of their precision, and at least as long as the
bytes that have to come from memory: input, outputs and weights once, less what the last cache can hold from one frame
to the next. Whichever is longer is the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gfl_edge.bench.gpus import GPUS, Gpu
from gfl_edge.bench.graph_cost import GraphCost

ASSUMPTIONS = (
    "batch 1; the network of the file with its decode and NMS, without resize, upload and download",
    "convolutions and matrix products run at the published dense peak of their precision, at boost clock; everything "
    "else costs no time",
    "direct convolutions: a Winograd convolution multiplies less, so that a float32 network of 3 x 3 convolutions "
    "could pass its bound",
    "intermediate results never leave the caches, and of weights, input and outputs only what the last cache cannot "
    "hold comes from memory",
    "real engines reach a part of this; how large a part has to be measured",
)


@dataclass(frozen=True)
class Bound:
    """What a GPU cannot do better.

    Attributes:
        gpu: its name.
        compute_ms: of the multiplications alone; None where the GPU cannot compute in the graph's precision.
        memory_ms: of the bytes alone.
        bound_ms: the larger one; None likewise.
        bound_fps: images per second at ``bound_ms``; None where that is None or 0.
        unfused_ms: what it would take if every operation read and wrote memory: no bound, but what fusion can save.
        limit: what the bound comes from, "compute" or "memory"; None where there is none.
    """

    gpu: str
    compute_ms: float | None
    memory_ms: float
    bound_ms: float | None
    bound_fps: float | None
    unfused_ms: float | None
    limit: str | None


def bound(cost: GraphCost, gpu: Gpu) -> Bound:
    """The bound of a graph on a GPU."""
    needed = cost.weight_bytes + cost.input_bytes + cost.output_bytes
    memory_ms = _transfer_ms(max(0, needed - gpu.l2_bytes), gpu)
    if any(precision not in gpu.tera_ops for precision, macs in cost.macs.items() if macs):
        return Bound(gpu.name, None, memory_ms, None, None, None, None)
    compute_ms = sum(2e3 * macs / (gpu.tera_ops[precision] * 1e12) for precision, macs in cost.macs.items() if macs)
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


def _transfer_ms(nbytes: int, gpu: Gpu) -> float:
    return nbytes / (gpu.bandwidth_gb_s * 1e6)


def bounds(cost: GraphCost) -> list[Bound]:
    """The bounds of a graph on all GPUs that are known."""
    return [bound(cost, gpu) for gpu in GPUS]


def gpu_table() -> list[dict[str, Any]]:
    """The peaks that bounds rest on, as plain values."""
    return [
        {
            "name": gpu.name,
            **{f"{precision}_tera_ops": gpu.tera_ops.get(precision) for precision in ("fp32", "bf16", "fp16", "int8")},
            "bandwidth_gb_s": gpu.bandwidth_gb_s,
            "l2_bytes": gpu.l2_bytes,
            "source": gpu.source,
        }
        for gpu in GPUS
    ]
