"""What a model file says about itself: the contract between export, calibration and run time."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from gfl_edge import optional
from gfl_edge.annotations.class_names import name_problem
from gfl_edge.errors import ContractError, InputError, ModelFileError
from gfl_edge.files import read_regular
from gfl_edge.ops import no_onnx
from gfl_edge.ops.onnx_inside import check_inside
from gfl_edge.ops.onnx_limits import MAX_ONNX_BYTES, LimitError, check_limits, check_nodes, check_text
from gfl_edge.ops.onnx_ports import check_ports
from gfl_edge.parsing.fields import MAX_SIDE, Amount, Count, FileName, Limits, OptionalSha256, Share, Side
from gfl_edge.parsing.json_text import parse_json
from gfl_edge.parsing.validation import build, check, repeated, shown
from gfl_edge.terminal.printable import word

FORMAT = 1
PREFIX = "gfl_edge."

SHOWN_SCORE = 0.35  # of models that recommend none

INPUT_NAME = "images"  # uint8 [N, H, W, 3] BGR, already resized
DETECTION_NAMES = ("num_dets", "det_boxes", "det_scores", "det_classes")  # with NMS in the graph
CANDIDATE_NAMES = ("boxes", "scores")  # without: decoded, of every anchor
PADDING_CLASS = -1  # of rows beyond num_dets
# Of as many of those as candidates were left out that can be no detections: NaN, and the like
INVALID_CLASS = -2
# Of models that give the standard deviations of their edges, pixels of the input: of anchors, and of detections
SIGMAS, DET_SIGMAS = "sigmas", "det_sigmas"
RAW_NAMES = ("cls_logits", "reg_logits")  # without, and not decoded: [N, A, C] and [N, A, 4 * (reg_max + 1)]

SIZE_STEP = 32  # pixels; the backbones halve the input five times
MIN_INPUT_SIDE = 320  # pixels of an input of dynamic size; frames that need less are padded

# How a frame becomes the input: gfl_edge.ops.preprocess.place. All are bilinear, except stretch-cubic
ResizeRule = Literal["stretch", "letterbox", "fit", "stretch-cubic"]
STRETCHES: tuple[ResizeRule, ...] = ("stretch", "stretch-cubic")
Precision = Literal["fp32", "fp16", "bf16"]
PRECISION_OPTION: dict[Precision, str] = {"fp32": "", "fp16": " --fp16", "bf16": " --bf16"}  # of the commands
# What the file holds of decode and NMS. graph: both, NMS as a function of plain operations; plugin: both, as TensorRT's
# plugin GflNms; none: decode only; raw: neither. Where NMS runs then, gfl_edge.backends.nms decides
ExportedNms = Literal["graph", "plugin", "none", "raw"]
# Of file names
NMS_SUFFIX: dict[ExportedNms, str] = {"graph": "", "plugin": "-plugin", "none": "-nonms", "raw": "-raw"}

MAX_CLASSES = 1 << 16
MAX_METADATA_CHARS = 1 << 24  # of one entry

Stride = Annotated[int, Limits(ge=1, le=1024)]
GrayLevel = Annotated[float, Limits(ge=-1e6, le=1e6)]
Deviation = Annotated[float, Limits(gt=0, le=1e6)]
Factor = Annotated[float, Limits(gt=0, le=1e3)]
DynamicSide = Annotated[int, Limits(ge=MIN_INPUT_SIDE, le=MAX_SIDE)]


@dataclass(frozen=True)
class ModelSpec:
    """Everything that a run time has to know about a detector, stored in the ONNX file's ``metadata_props``."""

    name: FileName  # "nanodet-plus-m-416"
    family: FileName  # "nanodet", "nanodet-g", "nanodet-plus", "picodet", "gfl", "gflv2", "atss", "sapd", ...
    class_names: Annotated[tuple[str, ...], Limits(min_length=1, max_length=MAX_CLASSES)]
    input_hw: tuple[Side, Side]  # pixels; where the size is dynamic, the one to be fastest at
    resize: ResizeRule
    mean_bgr: tuple[GrayLevel, GrayLevel, GrayLevel]  # gray levels, 0..255
    std_bgr: tuple[Deviation, Deviation, Deviation]
    strides: Annotated[tuple[Stride, ...], Limits(min_length=1, max_length=16)]  # input pixels per cell, one per level
    reg_max: Annotated[int, Limits(ge=0, le=255)]  # each edge distribution has reg_max + 1 bins; 0: there is none
    point_offset: Annotated[float, Limits(ge=-1, le=1)]  # cell i lies at (i + point_offset) * stride
    precision: Precision = "fp32"  # of the network's body; decode and NMS are always float32
    nms: ExportedNms = "graph"
    score_threshold: Share = 0.05  # strictly above
    iou_threshold: Share = 0.6  # suppressed strictly above
    max_candidates: Annotated[int, Limits(ge=1, le=10**6)] = 1000  # (anchor, class) pairs that enter NMS
    max_detections: Count = 100
    source_sha256: OptionalSha256 = ""  # of the checkpoint
    short_long: tuple[DynamicSide, DynamicSide] | None = None  # pixels of a frame's sides; None: the size is fixed
    # From which detections are worth showing: the highest F1 on images that were held out; None: was not measured
    recommended_score: Share | None = None
    quantized_layers: Amount = 0  # convolutions that compute in INT8
    float_layers: tuple[str, ...] = ()  # ONNX nodes of the body that stay float32 in "fp16": FP16 cannot hold them
    edge_sigma: bool = False  # whether it gives the standard deviation of every edge, see gfl_edge.ops.decode
    # Of left, top, right and bottom: what the run time multiplies those by, so that 68 % of the errors are within one
    sigma_scale: tuple[Factor, Factor, Factor, Factor] = (1.0, 1.0, 1.0, 1.0)
    # Of each class, from which its detections are worth showing; files in which it was not stored lack the entry
    class_scores: tuple[Share, ...] | None = None

    def __post_init__(self) -> None:
        check(self)
        if (twice := repeated(self.class_names)) is not None:
            raise ValueError(f"class_names: {shown(twice)} comes twice")
        for index, name in enumerate(self.class_names):
            if problem := name_problem(name) if name.strip() else "it is empty":
                raise ValueError(f"class_names[{index}] {shown(name)}: {problem}")
        if self.short_long is not None and (self.resize != "fit" or self.short_long[0] > self.short_long[1]):
            raise ValueError(f"short_long {self.short_long}: expected (short, long) with resize 'fit'")
        if self.short_long is not None and any(side % SIZE_STEP for side in self.input_hw):
            raise ValueError(f"input_hw {self.input_hw}: expected multiples of {SIZE_STEP} where the size is dynamic")
        if self.class_scores is not None and len(self.class_scores) != len(self.class_names):
            raise ValueError(f"class_scores: {len(self.class_scores)} for {len(self.class_names)} classes")
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides {self.strides}: expected each larger than the one before")
        if unfit := nms_problem(self.nms, self.reg_max):
            raise ValueError(unfit)
        if self.edge_sigma and not self.reg_max:
            raise ValueError(
                "edge_sigma: there is no distribution of an edge (reg_max 0). Export without --uncertainty"
            )
        if self.max_detections > self.max_candidates:
            raise ValueError(
                f"max_detections {self.max_detections}: expected 1..max_candidates ({self.max_candidates})"
            )

    @property
    def num_classes(self) -> int:
        """Classes, C."""
        return len(self.class_names)

    @property
    def shown_score(self) -> float:
        """The score from which on detections are worth showing: what the model recommends, else ``SHOWN_SCORE``."""
        return SHOWN_SCORE if self.recommended_score is None else self.recommended_score

    @property
    def shown_scores(self) -> tuple[float, ...]:
        """Of each class, in their order: the score stored for it, else :attr:`shown_score`."""
        return (self.shown_score,) * self.num_classes if self.class_scores is None else self.class_scores

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs of the model, by where its NMS runs."""
        if self.has_nms:
            return self.detection_names
        return RAW_NAMES if self.nms == "raw" else self.candidate_names

    @property
    def detection_names(self) -> tuple[str, ...]:
        """The arrays that detections are, after NMS in the graph or in kernels."""
        return (*DETECTION_NAMES, DET_SIGMAS) if self.edge_sigma else DETECTION_NAMES

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """The arrays that decoded points are, before NMS."""
        return (*CANDIDATE_NAMES, SIGMAS) if self.edge_sigma else CANDIDATE_NAMES

    @property
    def has_nms(self) -> bool:
        """Whether the model's outputs are detections."""
        return self.nms in ("graph", "plugin")

    def require_sigmas(self, what: str) -> None:
        """Raise InputError where the model gives no standard deviations of edges, which ``what`` needs."""
        if not self.edge_sigma:
            raise InputError(
                f"{what}: {self.name} does not give standard deviations of edges. Export it with: "
                "python export/to_onnx.py --weights CHECKPOINT --uncertainty -o MODEL.onnx"
            )

    @property
    def file_stem(self) -> str:
        """What its files are named by, "nanodet-plus-m-416-int8-fp16-raw"; NMS in the graph goes without saying."""
        int8, sigma = "int8-" if self.quantized_layers else "", "-sigma" if self.edge_sigma else ""
        return f"{self.name}-{int8}{self.precision}{NMS_SUFFIX[self.nms]}{sigma}"

    @property
    def num_anchors(self) -> int:
        """Points of all levels together, A, at ``input_hw``."""
        return self.anchors_at(self.input_hw)

    def anchors_at(self, input_hw: tuple[int, int]) -> int:
        """Points of all levels together at a size of the input."""
        height, width = input_hw
        return sum(-(-height // stride) * -(-width // stride) for stride in self.strides)

    @property
    def size_range(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Smallest and largest (height, width) of the input; equal where the size is fixed."""
        if self.short_long is None:
            return self.input_hw, self.input_hw
        longest = -(-self.short_long[1] // SIZE_STEP) * SIZE_STEP
        return (MIN_INPUT_SIDE, MIN_INPUT_SIDE), (longest, longest)

    def to_metadata(self) -> dict[str, str]:
        """The spec as ``metadata_props``: keys ``gfl_edge.<field>``, values JSON."""
        said = {
            key: value for key, value in dataclasses.asdict(self).items() if key != "class_scores" or value is not None
        }
        fields = {PREFIX + key: json.dumps(value, allow_nan=False) for key, value in said.items()}
        return {PREFIX + "format": json.dumps(FORMAT), **fields}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], origin: str) -> ModelSpec:
        """Read a spec back.

        Args:
            metadata: key -> JSON text, as written by :meth:`to_metadata`; other keys are ignored.
            origin: name of the file, for messages.

        Raises:
            ContractError: no gfl_edge metadata, another format, or missing, unknown or invalid fields.
        """
        own = {key.removeprefix(PREFIX): text for key, text in metadata.items() if key.startswith(PREFIX)}
        if not own:
            raise ContractError(
                f"{origin} carries no gfl_edge metadata, so its classes, resize rule and thresholds are unknown. "
                "Export it from its checkpoint, in a checkout of gfl_edge, with: "
                "python export/to_onnx.py --weights CHECKPOINT -o MODEL.onnx. What others exported is taken in by: "
                "gfl-edge adopt FOREIGN.onnx -o MODEL.onnx"
            )
        values = {key: _parsed(key, text, origin) for key, text in own.items()}
        found = values.pop("format", None)
        if type(found) is not int or found != FORMAT:
            raise ContractError(
                f"{origin}: metadata format {shown(found)}, this gfl_edge reads {FORMAT}. Export it again"
            )
        return cls.from_dict(values, origin)

    @classmethod
    def from_dict(cls, values: dict[str, Any], origin: str) -> ModelSpec:
        """Build a spec from plain JSON values; raises ContractError that names the field that does not fit."""
        try:
            return build(cls, values)
        except InputError as error:
            raise ContractError(f"{origin}: invalid metadata: {error}. Export it again") from error


def nms_problem(nms: ExportedNms, reg_max: int) -> str | None:
    """Why NMS cannot be left to what decodes distributions, and what to do; None: it can."""
    if reg_max or nms not in ("raw", "plugin"):
        return None
    return (
        f"nms {nms!r}: this model predicts numbers, not distributions (reg_max 0), and nothing after it decodes those. "
        "Take --nms graph or none, which decode in the model"
    )


def _parsed(key: str, text: str, origin: str) -> Any:
    """The value of one entry of the metadata."""
    try:
        if len(text) > MAX_METADATA_CHARS:
            raise ValueError(f"{len(text)} characters, expected {MAX_METADATA_CHARS} at most")
        return parse_json(text)
    except ValueError as error:
        place = shown(PREFIX + key)
        raise ContractError(f"{origin}: the metadata {place} are not valid JSON: {error}. Export it again") from error


def load_onnx(path: str | Path) -> Any:
    """Load an ONNX file as ``onnx.ModelProto``.

    Raises:
        ModelFileError: missing, empty or unreadable file, or beyond what :mod:`gfl_edge.ops.onnx_limits` allows.
        MissingDependencyError: the onnx package is not installed.
    """
    return _load(Path(path))[0]


def _load(path: Path) -> tuple[Any, Any]:
    """The model, and its graph with the types and shapes of its tensors."""
    if not path.is_file():
        raise ModelFileError(
            f"{path}: no such file. Export one, in a checkout of gfl_edge, with: "
            f"python export/to_onnx.py --weights CHECKPOINT -o {word(path)}"
        )
    onnx = optional.load("onnx")
    try:
        content = read_regular(path, MAX_ONNX_BYTES)
        if (other := no_onnx.recognize(content)) is not None:
            raise ModelFileError(f"{path} is {other}")
        model = onnx.load_model_from_string(content)
        check_text(model)
        check_nodes(model)
        onnx.checker.check_model(model)
        return model, check_limits(model)
    except ModelFileError:
        raise
    except LimitError as error:
        raise _unfit(path, error) from error
    except MemoryError as error:
        raise ModelFileError(f"{path}: there is not enough memory to read it") from error
    except Exception as error:  # protobuf and onnx raise many types for a broken file
        reason = str(error).strip().partition("\n")[0]
        raise ModelFileError(f"{path} is not a readable ONNX model ({reason}). Export or copy it again") from error


def _unfit(path: Path, error: LimitError) -> ModelFileError:
    return ModelFileError(
        f"{path}: the model {error}. Export it from its checkpoint, in a checkout of gfl_edge, with: "
        f"python export/to_onnx.py --weights CHECKPOINT -o {word(path)}"
    )


def load_contract(path: str | Path) -> tuple[Any, ModelSpec]:
    """An ONNX file and its spec, which agree on what goes in and comes out, and what is decoded between.

    Raises:
        ModelFileError: see :func:`load_onnx`; or the inputs or outputs are not those of the spec.
        ContractError: see :meth:`ModelSpec.from_metadata`.
    """
    model, graph = _load(Path(path))
    spec = spec_of(model, str(path))
    try:
        check_ports(model, graph, spec, INPUT_NAME)
        check_inside(model, graph, spec)
    except LimitError as error:
        raise _unfit(Path(path), error) from error
    return model, spec


def spec_of(model: Any, origin: str) -> ModelSpec:
    """The spec in the metadata of an ``onnx.ModelProto``; see :meth:`ModelSpec.from_metadata`."""
    metadata = [(prop.key, prop.value) for prop in model.metadata_props]
    if (twice := repeated([key for key, _ in metadata])) is not None:
        raise ContractError(f"{origin}: the metadata {shown(twice)} come twice. Export it again")
    return ModelSpec.from_metadata(dict(metadata), origin)


def set_spec(model: Any, spec: ModelSpec) -> None:
    """Put a spec into the metadata of an ``onnx.ModelProto``, in place of the one that is there; others stay."""
    kept = [(prop.key, prop.value) for prop in model.metadata_props if not prop.key.startswith(PREFIX)]
    del model.metadata_props[:]
    for key, value in (*spec.to_metadata().items(), *kept):
        model.metadata_props.add(key=key, value=value)


def read_spec(path: str | Path) -> ModelSpec:
    """The spec of an ONNX file; see :func:`load_contract` for the errors."""
    return load_contract(path)[1]
