"""CUDA C++ that is compiled at run time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CudaSource:
    """One translation unit."""

    name: str  # "gfl_kernels.cu", in the compiler's messages
    text: str
    headers: dict[str, str] = field(default_factory=dict)  # text by the name that #include has
