"""The JSON file beside every engine that says what it is, so that a mismatch is found before it is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from gfl_edge.engine.flavor import Flavor
from gfl_edge.engine.options import BuildOptions
from gfl_edge.errors import ContractError, EngineMismatchError, InputError, ModelFileError
from gfl_edge.parsing.fields import Amount, Limits, NotNegative, Sha256
from gfl_edge.parsing.json_text import json_text, read_json
from gfl_edge.parsing.validation import build
from gfl_edge.spec import ModelSpec
from gfl_edge.terminal.printable import word

_LOG = logging.getLogger(__name__)

ENGINE_SUFFIX = ".engine"


def sidecar_path(engine: str | Path) -> Path:
    """``model.engine`` -> ``model.engine.json``."""
    return Path(f"{engine}.json")


Version = Annotated[str, Limits(pattern=r"^[0-9]+(\.[0-9A-Za-z+_-]+)*$", max_length=64)]
Target = Annotated[str, Limits(pattern="^sm[1-9][0-9]{1,2}[af]?$")]


@dataclass(frozen=True)
class Sidecar:
    """What an engine was built from, by and for."""

    flavor: Flavor
    version: Version  # of TensorRT, "1.7.1.116"
    targets: Annotated[tuple[Target, ...], Limits(min_length=1, max_length=64)]  # "sm75", ...
    max_batch: Annotated[int, Limits(ge=1, le=65536)]
    onnx_sha256: Sha256
    engine_sha256: Sha256
    spec: ModelSpec
    build_seconds: NotNegative
    convolutions: Amount  # of the network that TensorRT was given, as it read them
    int8_convolutions: Amount  # those whose input and weights are INT8
    options: BuildOptions = field(default_factory=BuildOptions)
    cut_nms: bool = False  # whether NMS, which the ONNX file has in its graph, was left out
    device: Annotated[str, Limits(max_length=256)] | None = None  # GPU that kernels were tried on; None: TensorRT-RTX

    @property
    def rebuild_command(self) -> str:
        """The command that builds this engine again for the machine at hand."""
        batch = f" --max-batch {self.max_batch}" if self.max_batch > 1 else ""
        onnx = (dataclasses.replace(self.spec, nms="graph") if self.cut_nms else self.spec).file_stem
        options = f"{batch} --flavor {self.flavor} --target current{self.options.arguments}"
        return f"gfl-edge build --model {word(f'{onnx}.onnx')}{options}"

    def to_json(self) -> bytes:
        """The content of the file, which is written together with its engine."""
        return f"{json_text(dataclasses.asdict(self), indent=2)}\n".encode()

    @classmethod
    def read(cls, engine: str | Path) -> Sidecar:
        """Read the sidecar of ``engine``.

        Raises:
            ModelFileError: the engine or its sidecar does not exist.
            ContractError: the sidecar is not what this version of gfl_edge writes.
        """
        path = sidecar_path(engine)
        if not Path(engine).is_file():
            raise ModelFileError(f"{engine}: no such engine. Build one with: gfl-edge build --model MODEL.onnx")
        if not path.is_file():
            raise ModelFileError(
                f"{path} is missing: without it the engine's TensorRT version, GPU and classes are unknown. "
                "Copy it along with the engine, or rebuild with: gfl-edge build --model MODEL.onnx"
            )
        advice = "Copy it again along with the engine, or rebuild with: gfl-edge build --model MODEL.onnx"
        values = read_json(path, advice, ContractError)
        try:
            return build(cls, values)
        except InputError as error:
            raise ContractError(f"{path} is not a gfl_edge sidecar: {error}. {advice}") from error

    def check(self, engine: str | Path, flavor: Flavor, version: str, device_sm: str) -> None:
        """Raise EngineMismatchError unless the engine can run with this TensorRT on this GPU.

        Args:
            engine: path, for messages.
            flavor: the flavor that is to load it.
            version: its version.
            device_sm: compute capability of the GPU, "sm75".
        """
        problems = []
        if flavor != self.flavor:
            problems.append(f"built by {self.flavor}, to be loaded by {flavor}")
        elif version != self.version:
            problems.append(f"built by {self.flavor} {self.version}, installed is {version}")
        if device_sm not in self.targets:
            problems.append(f"built for {', '.join(self.targets)}, this GPU is {device_sm}")
        if problems:
            raise EngineMismatchError(f"{engine}: {'; '.join(problems)}. Rebuild with: {self.rebuild_command}")

    def warn_of_device(self, engine: str | Path, device_name: str) -> None:
        """Warn where the engine was built on another GPU, of the same compute capability, than it is to run on.

        It runs there, by kernels that were the fastest on the other one.
        """
        if self.device is not None and self.device != device_name:
            _LOG.warning(
                "%s was built on a %s and may be slower on this %s. Rebuild with: %s",
                engine,
                self.device,
                device_name,
                self.rebuild_command,
            )

    def check_file(self, engine: str | Path) -> bytes:
        """Read the engine; raise ModelFileError if it is not the file that the sidecar describes."""
        content = Path(engine).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.engine_sha256:
            raise ModelFileError(
                f"{engine} ({len(content)} bytes) is not the file its sidecar describes: truncated, or copied without "
                f"its sidecar. Copy both again, or rebuild with: {self.rebuild_command}"
            )
        return content
