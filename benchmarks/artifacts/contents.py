"""What is inside an engine of TensorRT-RTX: kernels as CUDA source, which the GPU's machine compiles, and weights."""

from __future__ import annotations

import re
import zlib
from typing import Any

# A generated kernel's name lists what it does, in words of four letters: MulMinMaxRounCast scales, clips, rounds, casts
_KERNEL = re.compile(rb"__global__ void [^{(]*?(?P<name>__myl_\w+)\((?P<parameters>[^{]*?)\)\s*\{")


def contents(engine: bytes) -> dict[str, Any]:
    """What an engine holds.

    Returns:
        ``kernels`` in source, how many of them round (as a quantization does) and how many of those hand on INT8; and
        ``compressed_bytes`` of the engine by zlib.
    """
    kernels = list(_KERNEL.finditer(engine))
    rounding = [kernel for kernel in kernels if b"Roun" in kernel["name"]]
    return {
        "kernels": len(kernels),
        "rounding_kernels": len(rounding),
        "rounding_kernels_to_int8": sum(b"int8" in kernel["parameters"] for kernel in rounding),
        "compressed_bytes": len(zlib.compress(engine)),
    }
