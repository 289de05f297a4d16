"""What mmdetection writes beside the weights: class names, and the text of its configuration.

The text is Python. It is parsed and never run: of each assignment only literals, ``dict(...)`` and names assigned
before are understood, which is all that mmdetection's own dumps consist of; anything else is unknown.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gfl_edge.annotations.text import read_text
from gfl_edge.errors import CheckpointError, InputError
from gfl_edge.parsing.entries import Entries, Triple
from gfl_edge.parsing.validation import shown
from gfl_edge.spec import SIZE_STEP, ResizeRule
from train.models.gfl_head import ANCHOR_SCALE, DELTA_STDS
from train.models.traits import TRAITS
from train.weights.placeholder import Placeholder
from train.weights.trained import Claim, Trained
from train.weights.unpickling import MAX_TEXT
from train.weights.unwrapping import CheckpointFile

logger = logging.getLogger(__name__)

MAX_CHARS = 1 << 20
MAX_DEPTH = 100  # of values in values

# Heads whose weights have the same keys and shapes, and what their configurations have to say for an ATSS: another
# anchor, coder or head computes another box or score of the same weights. Where nothing can be read, that is let pass
ATSS_LIKE = ("ATSSHead", "PAAHead", "LADHead")
ATSS_SETTINGS: dict[str, tuple[Any, ...]] = {
    "type": ("ATSSHead", "mmdet.ATSSHead"),
    "anchor_generator.ratios": ([1.0],),
    "anchor_generator.scales": ([ANCHOR_SCALE],),
    "anchor_generator.octave_base_scale": (ANCHOR_SCALE,),
    "anchor_generator.scales_per_octave": (1,),
    "anchor_generator.center_offset": (TRAITS["atss"].point_offset,),
    "anchor_generator.base_sizes": (),
    "bbox_coder.type": ("DeltaXYWHBBoxCoder", "mmdet.DeltaXYWHBBoxCoder"),
    "bbox_coder.target_means": ([0.0] * 4,),
    "bbox_coder.target_stds": (list(DELTA_STDS),),
}

Pipeline = list[Mapping[str, Any]]


def trained_of_mmdet(file: CheckpointFile) -> Trained | None:
    """What lies under ``meta`` in a file of mmdetection 2.x or 3.x; None for those of other projects.

    A configuration that cannot be read is named in the log.

    Raises:
        InputError: class names that are none.
        CheckpointError: the weights are of a head that looks like ATSS's and is another.
    """
    meta = file.content.get("meta")
    if not isinstance(meta, Mapping):
        return None
    origin = f"{file.path} (meta)"
    entries = Entries(meta, origin)
    places = ("dataset_meta.classes", "dataset_meta.CLASSES", "CLASSES")
    names = Trained(origin, class_names=entries.names(entries.at(*places)))
    found = next((meta[name] for name in ("cfg", "config") if isinstance(meta.get(name), (str, Placeholder))), "")
    if isinstance(found, str) and not found:
        return names
    try:
        if isinstance(found, Placeholder):
            raise InputError(f"{origin}: the configuration is {found.original}, expected at most {MAX_TEXT} characters")
        return names.or_else(_trained(found, origin))
    except CheckpointError:
        raise
    except InputError as error:
        logger.warning("%s. The input size, normalization and thresholds are not taken from it", error)
        return names


def read_mmdet_config(path: Path) -> Trained:
    """Read a configuration file of mmdetection as its runs write it into their folder, with nothing left to inherit.

    Raises:
        InputError: unreadable, no Python, inherits from other files, or a value of another kind.
        CheckpointError: see :func:`trained_of_mmdet`.
    """
    return _trained(read_text(path, max_bytes=4 * MAX_CHARS), str(path))


def _trained(text: str, origin: str) -> Trained:
    entries = Entries(_assignments(text, origin), origin)
    if entries.get("_base_") is not None:
        raise InputError(
            f"{origin} inherits from {entries.get('_base_')}. Give the whole configuration, which a run of mmdetection "
            "writes into its work_dir"
        )
    if not isinstance(entries.get("model"), Mapping):
        raise InputError(f"{origin}: the configuration has no readable entry 'model', as mmdetection's have")
    _check_atss(entries)
    pipeline = _pipeline(entries)
    input_hw, resize = _resize(pipeline, origin)
    mean, std, is_rgb = _normalization(entries, pipeline, origin)
    order = -1 if is_rgb else 1
    test = "model.test_cfg" if entries.get("model.test_cfg") is not None else "test_cfg"
    iou = entries.at(f"{test}.nms.iou_threshold", f"{test}.nms.iou_thr")
    return Trained(
        origin,
        class_names=entries.names(
            entries.at("train_dataloader.dataset.metainfo.classes", "metainfo.classes", "data.train.classes", "classes")
        ),
        input_hw=input_hw,
        resize=resize,
        mean_bgr=_ordered(mean, order),
        std_bgr=_ordered(std, order),
        channel_order=None if is_rgb is None else "rgb" if is_rgb else "bgr",
        score_threshold=entries.share(f"{test}.score_thr"),
        iou_threshold=entries.share(iou),
        max_detections=entries.integer(f"{test}.max_per_img"),
        claims=_claims(entries),
    )


def _check_atss(entries: Entries) -> None:
    """Raise CheckpointError for a head that has the keys of ATSS's and computes something else."""
    head = "model.bbox_head"
    if str(entries.get(f"{head}.type")).rpartition(".")[2] not in ATSS_LIKE:
        return
    for name, accepted in ATSS_SETTINGS.items():
        found = entries.get(f"{head}.{name}")
        found = list(found) if isinstance(found, tuple) else found
        if found is not None and found not in accepted:
            expected = " or ".join(map(shown, accepted)) or "nothing"
            raise CheckpointError(
                f"{entries.origin}: {head}.{name} is {shown(found)}, expected {expected}: of such a head only the ATSS "
                "of mmdetection's configs/atss is supported"
            )


def _claims(entries: Entries) -> tuple[Claim, ...]:
    head = "model.bbox_head"
    claimed: dict[str, tuple[str, Any]] = {
        f"{head}.num_classes": ("num_classes", entries.integer(f"{head}.num_classes")),
        f"{head}.reg_max": ("reg_max", entries.integer(f"{head}.reg_max")),
        f"{head}.stacked_convs": ("stacked_convs", entries.integer(f"{head}.stacked_convs", 0)),
        f"{head}.anchor_generator.strides": ("strides", entries.integers(f"{head}.anchor_generator.strides")),
    }
    if entries.get("model.backbone.type") in ("ResNet", "ResNeXt"):
        claimed["model.backbone.depth"] = ("depth", entries.integer("model.backbone.depth"))
    return tuple(Claim(place, field, value) for place, (field, value) in claimed.items() if value is not None)


def _pipeline(entries: Entries) -> Pipeline:
    """The steps that images of the evaluation go through; those within others follow them."""
    found = entries.get(entries.at("test_dataloader.dataset.pipeline", "data.test.pipeline", "test_pipeline"))
    steps: Pipeline = []
    for step in found if isinstance(found, (list, tuple)) else ():
        inner = step.get("transforms") if isinstance(step, Mapping) else None
        nested = inner if isinstance(inner, (list, tuple)) else ()
        steps += [part for part in (step, *nested) if isinstance(part, Mapping)]
    return steps


def _step(pipeline: Pipeline, *kinds: str) -> Mapping[str, Any]:
    return next((step for step in pipeline if str(step.get("type")).rpartition(".")[2] in kinds), {})


def _resize(pipeline: Pipeline, origin: str) -> tuple[tuple[int, int] | None, ResizeRule | None]:
    """The size that frames are brought to, and how. mmdetection gives (width, height), of which either is the longer
    side where the aspect ratio is kept; images are then padded to multiples of 32.
    """
    resize, old = _step(pipeline, "Resize"), _step(pipeline, "MultiScaleFlipAug")
    scale = next((step[key] for step in (resize, old) for key in ("scale", "img_scale") if key in step), None)
    keep_ratio = resize.get("keep_ratio", bool(old) or "img_scale" in resize)  # the defaults of 3.x and 2.x
    if isinstance(scale, list) and len(scale) == 1:
        scale = scale[0]
    if scale is None:
        return None, None
    size = Entries({"scale": scale}, f"{origin}: Resize of the test pipeline").integers("scale", 2)
    assert size is not None
    if keep_ratio:
        short, long = (-(-side // SIZE_STEP) * SIZE_STEP for side in sorted(size))
        return (short, long), "fit"
    return (size[1], size[0]), "stretch"


def _normalization(
    entries: Entries, pipeline: Pipeline, origin: str
) -> tuple[Triple | None, Triple | None, bool | None]:
    """Mean and standard deviation in the order in which the network takes channels, and whether that is RGB."""
    step = _step(pipeline, "Normalize")
    if not step:
        model = Entries(entries.get("model.data_preprocessor"), f"{origin}: model.data_preprocessor")
        if model.get("mean") is None:
            return None, None, None
        return model.triple("mean"), model.triple("std", positive=True), model.flag("bgr_to_rgb") or False
    found = Entries(step, f"{origin}: Normalize of the test pipeline")
    to_rgb = found.flag("to_rgb")
    return found.triple("mean"), found.triple("std", positive=True), True if to_rgb is None else to_rgb


def _ordered(values: Triple | None, step: int) -> Triple | None:
    if values is None:
        return None
    first, second, third = values[::step]
    return first, second, third


def _assignments(text: str, origin: str) -> dict[str, Any]:
    """The values that a text of Python assigns to names at its top; those that are no literals are None."""
    if len(text) > MAX_CHARS:
        raise InputError(f"{origin}: the configuration has {len(text)} characters, which is more than {MAX_CHARS}")
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{origin}: the configuration is no Python ({type(error).__name__}: {error})") from error
    names: dict[str, Any] = {}
    for statement in body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            names[statement.targets[0].id] = _literal(statement.value, names, 0)
    return names


def _literal(node: ast.expr, names: Mapping[str, Any], depth: int) -> Any:
    """The value of an expression, None where it would have to be computed."""
    if depth > MAX_DEPTH:
        return None

    def inner(node: ast.expr) -> Any:
        return _literal(node, names, depth + 1)

    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return names.get(node.id)
        case ast.UnaryOp(op=ast.USub()):
            value = inner(node.operand)
            return -value if isinstance(value, (int, float)) else None
        case ast.List():
            return [inner(item) for item in node.elts]
        case ast.Tuple():
            return tuple(inner(item) for item in node.elts)
        case ast.Dict():
            keys = [None if key is None else str(inner(key)) for key in node.keys]
            return _mapping(list(zip(keys, map(inner, node.values), strict=True)))
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return _mapping([(keyword.arg, inner(keyword.value)) for keyword in node.keywords])
    return None


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Entries with texts as keys; the value at None is a mapping that stands after two asterisks."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, str):
            found[key] = value
        elif key is None and isinstance(value, Mapping):
            found.update(value)
    return found
