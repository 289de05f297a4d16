"""How an engine is built, beyond what it is built from and for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from gfl_edge.engine.flavor import Flavor
from gfl_edge.errors import BackendError, InputError
from gfl_edge.files import write_atomically
from gfl_edge.parsing.fields import Limits
from gfl_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

MAX_WORKSPACE_MIB = 1 << 20
BuildNms = Literal["auto", "graph"]


@dataclass(frozen=True)
class BuildOptions:
    """What the sidecar of an engine says again.

    Attributes:
        nms: "auto" leaves NMS in the graph of the ONNX file out, where the kernels of this project can do it after the
            engine, which takes a GPU a fraction of the time; "graph" keeps it.
        tf32: whether FP32 convolutions may round their inputs to the mantissa of FP16, as GPUs from sm80 on do.
        workspace_mib: MiB of memory that one layer may take for itself; None: all that there is.
    """

    nms: BuildNms = "auto"
    tf32: bool = True
    workspace_mib: Annotated[int, Limits(ge=1, le=MAX_WORKSPACE_MIB)] | None = None

    @property
    def arguments(self) -> str:
        """As ``gfl-edge build`` takes them, each after a space."""
        workspace = "" if self.workspace_mib is None else f" --workspace {self.workspace_mib}"
        return ("" if self.nms == "auto" else " --nms graph") + ("" if self.tf32 else " --no-tf32") + workspace

    def spec_of(self, file: ModelSpec, max_batch: int) -> ModelSpec:
        """Of what is built from a file: without NMS where it is left out."""
        if self.nms == "graph" or file.nms != "graph":
            return file
        from gfl_edge.cuda.kernels import nms_params  # it compiles nothing

        spec = replace(file, nms="none")
        try:
            nms_params(spec, max_batch, spec.size_range[1])
        except BackendError as error:
            logger.info("NMS stays in the graph: %s", error)
            return file
        return spec

    def apply(self, config: Any, trt: Any) -> None:
        """Set the options of TensorRT, of either flavor."""
        if not self.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_mib << 20)


class TimingCache:
    """What full TensorRT measured when it chose kernels, in a file, so that the next build need not measure it again.

    Args:
        path: of the file; it need not be there.
        flavor: that builds.

    Raises:
        InputError: TensorRT-RTX, which measures nothing.
    """

    def __init__(self, path: Path, flavor: Flavor) -> None:
        if flavor == "rtx":
            raise InputError(f"--timing-cache {path} is for full TensorRT: TensorRT-RTX measures nothing. Leave it out")
        self._path = path

    def use(self, config: Any) -> None:
        """Have a build read and fill it."""
        content = self._path.read_bytes() if self._path.is_file() else b""
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            logger.warning("%s is of another GPU or TensorRT, and is written anew", self._path)
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def save(self, config: Any) -> None:
        """Write what a build has left in it."""
        write_atomically(self._path, bytes(config.get_timing_cache().serialize()))
