"""A model in a repository of NVIDIA's Triton Inference Server: its file, its configuration and its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfl_edge import optional
from gfl_edge.engine.contract import engine_contract
from gfl_edge.engine.sidecar import ENGINE_SUFFIX, Sidecar
from gfl_edge.errors import InputError
from gfl_edge.ops.onnx_graph import copy_model, fixed_batch
from gfl_edge.serving.folder import write_folder
from gfl_edge.spec import INPUT_NAME, ModelSpec, load_contract
from gfl_edge.terminal.printable import word

CONFIG, LABELS, VERSION = "config.pbtxt", "labels.txt", "1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # a folder, and part of a URL
DEFAULT_MAX_BATCH = 8  # of ONNX files, which take any
QUEUE_DELAY_US = 1000  # a request waits at most so long for others; was not measured

TYPES = {"UINT8": "UINT8", "INT32": "INT32", "FLOAT": "FP32", "FLOAT16": "FP16", "HALF": "FP16"}  # Triton's


@dataclass(frozen=True)
class Tensor:
    """An input or output as Triton's configuration describes it.

    Attributes:
        dtype: of TensorRT or ONNX, see ``TYPES``.
        dims: without the batch, where the model takes batches; -1 is any.
    """

    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Served:
    """A model on its way into a repository.

    Attributes:
        backend: of Triton, "onnxruntime" or "tensorrt".
        file: its name there.
        content: of the file.
        spec: its description.
        max_batch: images at a time; 0: shapes are fixed, the batch of 1 in them.
        outputs: by name.
    """

    backend: str
    file: str
    content: bytes
    spec: ModelSpec
    max_batch: int
    outputs: Mapping[str, Tensor]


def write_triton(
    repository: Path, model: Path, max_batch: int | None = None, instances: int = 1, name: str | None = None
) -> Path:
    """Add a model to a repository, as version 1.

    Args:
        repository: the folder that Triton is started with; it is made.
        model: ``.onnx`` file, or ``.engine`` of full TensorRT with its sidecar.
        max_batch: images that Triton may run together; None: all that an engine takes, 8 of an ONNX file.
        instances: of the model at the same time.
        name: of the model there; None: that of its file, such as "nanodet-m-320-fp32".

    Returns:
        The model's folder.

    Raises:
        InputError: a batch that the model does not take, a name that is none, or a model that Triton cannot run.
        ModelFileError: see :func:`gfl_edge.spec.load_contract` and :meth:`gfl_edge.engine.sidecar.Sidecar.read`.
        OutputError: another model has this name; see :func:`gfl_edge.serving.folder.write_folder`.
    """
    served = _of_engine(model, max_batch) if model.suffix == ENGINE_SUFFIX else _of_onnx(model, max_batch)
    name = served.spec.file_stem if name is None else name
    if not NAME.fullmatch(name):
        raise InputError(f"name {name!r}: expected letters, digits, '.', '_' and '-', the first a letter or digit")
    labels = "".join(f"{label}\n" for label in served.spec.class_names)
    contents = {
        f"{VERSION}/{served.file}": served.content,
        LABELS: labels.encode(),
        CONFIG: config(name, served, instances).encode(),
    }
    write_folder(repository / name, contents)
    return repository / name


def _of_onnx(path: Path, max_batch: int | None) -> Served:
    model, spec = load_contract(path)
    if spec.nms == "plugin":
        raise InputError(
            f"{path} was exported with --nms plugin, which ONNX Runtime has not. Build an engine of it with: "
            f"gfl-edge build --model {word(path)} --flavor tensorrt, or export it again with --nms graph"
        )
    fixed = fixed_batch(model)
    if fixed is not None and (max_batch or 1) > fixed:
        raise InputError(f"{path} takes {fixed} image at a time: its shapes are fixed. Leave out --max-batch")
    batch = 0 if fixed else max_batch or DEFAULT_MAX_BATCH
    inlined = optional.load("onnx.inliner").inline_local_functions(copy_model(model))  # ONNX Runtime before 1.25
    names = optional.load("onnx").TensorProto.DataType
    outputs = {}
    for value in model.graph.output:
        tensor = value.type.tensor_type
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        outputs[value.name] = Tensor(names.Name(tensor.elem_type), dims[1:] if batch else dims)
    content: bytes = inlined.SerializeToString(deterministic=True)
    return Served("onnxruntime", "model.onnx", content, spec, batch, outputs)


def _of_engine(path: Path, max_batch: int | None) -> Served:
    sidecar = Sidecar.read(path)
    if sidecar.flavor != "tensorrt":
        raise InputError(
            f"{path} was built by TensorRT-RTX, whose engines Triton does not run. Build one of full TensorRT with: "
            "gfl-edge build --model MODEL.onnx --flavor tensorrt, or give the .onnx file"
        )
    if max_batch is not None and max_batch > sidecar.max_batch:
        raise InputError(
            f"--max-batch {max_batch}: {path} takes {sidecar.max_batch} at most. "
            f"Build it again with: gfl-edge build --model MODEL.onnx --max-batch {max_batch}"
        )
    content, spec = sidecar.check_file(path), sidecar.spec
    contract = engine_contract(spec)
    outputs = {name: Tensor(tensor.dtype, tensor.item_shape) for name, tensor in contract.items() if name != INPUT_NAME}
    if spec.short_long is not None and not spec.has_nms:  # as many points as the input has room for
        outputs = {name: Tensor(tensor.dtype, (-1, *tensor.dims[1:])) for name, tensor in outputs.items()}
    return Served("tensorrt", "model.plan", content, spec, max_batch or sidecar.max_batch, outputs)


def config(name: str, served: Served, instances: int) -> str:
    """Triton's configuration, the text form of its ``ModelConfig``.

    The model's description is among the parameters, by the keys that the metadata of ONNX files have: a client needs
    nothing but the server, see :func:`spec_of_parameters`.
    """
    spec = served.spec
    whole = () if served.max_batch else (1,)  # Triton adds a batch to shapes only where there are batches
    images = (*whole, *((-1, -1) if spec.short_long else spec.input_hw), 3)
    kind = "KIND_GPU" if served.backend == "tensorrt" else "KIND_AUTO"
    outputs = ",\n".join(_port(output, tensor) for output, tensor in served.outputs.items())
    batches = sorted({1, max(1, served.max_batch)})
    warm = ",\n".join(_warm_up((*whole, *spec.input_hw, 3), batch) for batch in batches)
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}\n" if served.max_batch else ""
    parameters = "\n".join(
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in spec.to_metadata().items()
    )
    return f"""\
# {spec.name}, written by gfl-edge triton
name: {_quoted(name)}
backend: {_quoted(served.backend)}
default_model_filename: {_quoted(served.file)}
max_batch_size: {served.max_batch}
input [
{_port(INPUT_NAME, Tensor("UINT8", images))}
]
output [
{outputs}
]
{batching}instance_group [ {{ count: {instances} kind: {kind} }} ]
model_warmup [
{warm}
]
{parameters}
"""


def _port(name: str, tensor: Tensor) -> str:
    label = f' label_filename: "{LABELS}"' if name in ("det_classes", "scores", "cls_logits") else ""
    return f"  {{ name: {_quoted(name)} data_type: TYPE_{TYPES[tensor.dtype]} dims: {_list(tensor.dims)}{label} }}"


def _warm_up(dims: Sequence[int], batch: int) -> str:
    data = f"data_type: TYPE_UINT8 dims: {_list(dims)} zero_data: true"
    return f'  {{ name: "black {batch}" batch_size: {batch} inputs {{ key: "{INPUT_NAME}" value {{ {data} }} }} }}'


def _list(sides: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, sides))} ]"


def _quoted(text: str) -> str:
    """A string of Protobuf's text form: bytes of UTF-8, those that are no plain ASCII as octal numbers."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\"}
    return '"' + "".join(plain.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in text.encode()) + '"'


def spec_of_parameters(parameters: Mapping[str, Any], origin: str) -> ModelSpec:
    """The description of a model on a server, from the parameters of its configuration.

    Args:
        parameters: key -> ``{"string_value": text}``, as Triton's HTTP service gives them, or an object of Protobuf
            with that attribute, as the gRPC service does.
        origin: name of the model, for messages.

    Raises:
        ContractError: it was not put there by ``gfl-edge triton``.
    """
    values = {
        key: value["string_value"] if isinstance(value, Mapping) else value.string_value
        for key, value in parameters.items()
    }
    return ModelSpec.from_metadata(values, origin)
