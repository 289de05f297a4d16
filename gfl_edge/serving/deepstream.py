"""A folder that DeepStream's nvinfer runs: the model, its configuration, labels and the parser's source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gfl_edge.engine.sidecar import ENGINE_SUFFIX
from gfl_edge.errors import BackendError, InputError
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.ops.onnx_graph import fixed_batch
from gfl_edge.ops.preprocess import PADDING_BGR
from gfl_edge.serving.folder import write_folder
from gfl_edge.serving.planar import planar
from gfl_edge.spec import INPUT_NAME, STRETCHES, ModelSpec, load_contract

CONFIG, LABELS, README = "config_infer.txt", "labels.txt", "README.txt"
PARSER, LIBRARY = "NvDsInferParseCustomGfl", "libgfl_deepstream.so"
SOURCES = ("CMakeLists.txt", "gfl_deepstream.cpp", "gfl_deepstream.h")
NVINFER_MODES = {"fp32": 0, "int8": 1, "fp16": 2}  # network-mode; there is none for BF16

PADDING = {
    "stretch": "Frames are stretched to the input, as by gfl_edge.",
    "stretch-cubic": "Frames are stretched to the input, bilinearly and not cubically as by gfl_edge. What that "
    "costs was not measured.",
    "letterbox": "Frames are centered on black, as by gfl_edge, but at whole pixels: the network sees them less "
    "than one pixel of its input elsewhere.",
    "fit": "Frames lie in the upper left corner, as by gfl_edge, but the rest is black instead of the gray levels "
    f"{PADDING_BGR} (BGR) that the network was trained with: detections beside that border may differ. What that "
    "costs was not measured; give the network an input of your frames' aspect ratio, so that none is left.",
}


@dataclass(frozen=True)
class DeepStreamFolder:
    """What was written.

    Attributes:
        config: nvinfer's configuration.
        spec: of the model beside it, whose size is fixed.
        remark: how nvinfer's resizing differs from gfl_edge's.
    """

    config: Path
    spec: ModelSpec
    remark: str


def write_deepstream(
    folder: Path,
    onnx: Path,
    batch_size: int = 1,
    keep: DetectionFilter | None = None,
    input_hw: tuple[int, int] | None = None,
) -> DeepStreamFolder:
    """Write all that nvinfer needs except an engine and the compiled parser, which belong to the device.

    Args:
        folder: where; files in it are not changed.
        onnx: a model of gfl_edge with NMS in the graph ("graph") or after it ("none").
        batch_size: frames at a time, as many as there are sources.
        keep: which classes count, from which scores on; None: all, from the scores on that the model recommends.
        input_hw: the fixed size of a model of dynamic size; None: the one that it is fastest at.

    Raises:
        InputError: an engine, a form of NMS that nvinfer cannot do, a size or batch that the model does not take, a
            class that it does not have, or more in the filter than classes and scores.
        ModelFileError: see :func:`gfl_edge.spec.load_contract`.
        OutputError: see :func:`gfl_edge.serving.folder.write_folder`.
    """
    if onnx.suffix == ENGINE_SUFFIX:
        raise InputError(
            f"{onnx}: engines take bytes, and nvinfer gives planes of floats. Name the engine's .onnx file"
        )
    model, spec = load_contract(onnx)
    if spec.nms in ("plugin", "raw"):
        raise InputError(
            f"{onnx} was exported with --nms {spec.nms}, whose outputs nvinfer cannot be given. Export it again with "
            "--nms graph, or with --nms none to have nvinfer suppress"
        )
    keep = _classes_and_scores(keep or DetectionFilter()).for_model(spec)
    fixed = fixed_batch(model)
    if fixed is not None and batch_size != fixed:
        raise InputError(f"{onnx} takes {fixed} image at a time: its shapes are fixed. Leave out --batch")
    model, spec = planar(model, spec, input_hw)
    names = "\n".join(name.replace(";", ",") for name in spec.class_names)  # nvinfer takes ; for its own
    contents = {
        f"{stem(spec)}.onnx": model.SerializeToString(deterministic=True),
        LABELS: f"{names}\n".encode(),
        **{f"parser/{name}": parser_source(name) for name in SOURCES},
        README: readme(spec, batch_size, fixed is not None).encode(),
        CONFIG: config(spec, batch_size, keep).encode(),
    }
    write_folder(folder, contents)
    return DeepStreamFolder(folder / CONFIG, spec, PADDING[spec.resize])


def _classes_and_scores(keep: DetectionFilter) -> DetectionFilter:
    """The filter, if it is about nothing else; raises InputError otherwise."""
    if keep != DetectionFilter(keep.score, keep.class_scores, keep.classes):
        raise InputError("nvinfer filters by class and score; for regions there is DeepStream's Gst-nvdsanalytics")
    return keep


def stem(spec: ModelSpec) -> str:
    """What the model is called here: its input is not that of the file that it was made from."""
    return f"{spec.file_stem}-planar"


def mode(spec: ModelSpec) -> str:
    """The precision of the engine, "int8", "fp16", "bf16" or "fp32"."""
    return "int8" if spec.quantized_layers else spec.precision


def engine_name(spec: ModelSpec, batch_size: int) -> str:
    """The name that nvinfer itself gives engines."""
    return f"{stem(spec)}.onnx_b{batch_size}_gpu0_{mode(spec)}.engine"


def config(spec: ModelSpec, batch_size: int, keep: DetectionFilter) -> str:
    """nvinfer's configuration; its keys stand in the documentation of Gst-nvinfer.

    Args:
        spec: of the model.
        batch_size: frames at a time.
        keep: which classes count, from which scores on, as :meth:`DetectionFilter.for_model` gives it.
    """
    height, width = spec.input_hw
    # nvinfer builds weakly typed, where FP16 may take in the decode and Q/DQ is refused: not unless it is asked to
    onnx = "" if mode(spec) == "fp32" else "# Only FP32 is safe to be built by nvinfer itself, see README.txt\n#"
    nms = "" if spec.has_nms else f"nms-iou-threshold={spec.iou_threshold:g}\n"
    aspect = spec.resize not in STRETCHES
    left_out = [str(i) for i, name in enumerate(spec.class_names) if keep.classes and name not in keep.classes]
    filtered = f"filter-out-class-ids={';'.join(left_out)}\n" if left_out else ""
    scores = {"all": keep.score, **{str(spec.class_names.index(name)): own for name, own in keep.class_scores.items()}}
    # Every group has all keys, so that what one group takes from another does not matter
    groups = "\n".join(
        f"[class-attrs-{group}]\npre-cluster-threshold={score:g}\ntopk={spec.max_detections}\n{nms}"
        for group, score in scores.items()
        if group == "all" or score != keep.score
    )
    return f"""\
# {spec.name} for DeepStream's nvinfer. Paths are relative to this file.
[property]
gpu-id=0
gie-unique-id=1
process-mode=1
network-type=0
batch-size={batch_size}
interval=0
{onnx}onnx-file={stem(spec)}.onnx
model-engine-file={engine_name(spec, batch_size)}
network-mode={NVINFER_MODES.get(mode(spec), 0)}
infer-dims=3;{height};{width}
labelfile-path={LABELS}
num-detected-classes={spec.num_classes}
# Normalization is in the graph: BGR gray levels, 0..255
net-scale-factor=1.0
model-color-format=1
scaling-filter=1
maintain-aspect-ratio={int(aspect)}
symmetric-padding={int(spec.resize == "letterbox")}
# Else nvinfer drops objects that reach the lower border of the frame or beyond it
crop-objects-to-roi-boundary=1
output-blob-names={";".join(name for name in spec.output_names if "sigmas" not in name)}
parse-bbox-func-name={PARSER}
custom-lib-path={LIBRARY}
cluster-mode={4 if spec.has_nms else 2}
{filtered}
{groups}"""


def readme(spec: ModelSpec, batch_size: int, fixed: bool = False) -> str:
    """What is to be done on the device; ``fixed``: the shapes in the file are, which trtexec must not be told."""
    sizes = [f"{batch}x3x{spec.input_hw[0]}x{spec.input_hw[1]}" for batch in (1, batch_size, batch_size)]
    shapes = "".join(
        f" --{kind}Shapes={INPUT_NAME}:{size}" for kind, size in zip(("min", "opt", "max"), sizes, strict=True)
    )
    return f"""\
{spec.name} for DeepStream, written by gfl-edge deepstream. On the device, in this folder:

1. The parser:

    cmake -S parser -B parser/build && cmake --build parser/build && cp parser/build/{LIBRARY} .

2. The engine, by the trtexec of DeepStream's TensorRT (10 or newer; TensorRT 11 needs no --stronglyTyped):

    trtexec --onnx={stem(spec)}.onnx --stronglyTyped{"" if fixed else shapes} \\
        --saveEngine={engine_name(spec, batch_size)}

Strongly typed, the engine computes in the precisions that the file says: {mode(spec)} in the network, FP32 in decode
and NMS. Up to TensorRT 10, nvinfer builds its own engines weakly typed: boxes may be computed in FP16, and INT8 is not
taken from the file. DeepStream 9.1 builds strongly typed ones, too, where {CONFIG} has an onnx-file and these lines:

    strongly-typed=1
    network-mode=0
    model-engine-file={stem(spec)}.onnx_b{batch_size}_gpu0_fp32.engine

3. Name {CONFIG} as config-file-path of nvinfer, or as config-file of [primary-gie].

{PADDING[spec.resize]}
"""


def parser_source(name: str) -> bytes:
    """A file of the parser, from the installed package or from the checkout's plugins/."""
    package = Path(__file__).resolve().parent
    places = package / "parser" / name, package.parent.parent / "plugins" / "deepstream" / name
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise BackendError(
            f"the parser's source is missing: neither {places[0]} nor {places[1]}. Install gfl-edge again"
        )
    return path.read_bytes()
