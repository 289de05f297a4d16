"""One adoption, from its request to a file of the contract that was proven equal to the foreign one."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.adopt import half
from gfl_edge.adopt.body import cut_body, open_batch
from gfl_edge.adopt.choices import OPTIONS, Choices, Settled, alternatives, settle
from gfl_edge.adopt.config import Configured, read_config
from gfl_edge.adopt.dry_run import noise
from gfl_edge.adopt.families import FAMILIES, SCORE_THRESHOLDS, TRAITS, ChannelOrder, FamilyGuess, guess_family
from gfl_edge.adopt.foreign import read_foreign
from gfl_edge.adopt.inside import InnerNormalization, inner_normalization
from gfl_edge.adopt.prove import prove
from gfl_edge.adopt.recognize import find_head
from gfl_edge.adopt.roles import Given
from gfl_edge.adopt.wrap import wrap
from gfl_edge.annotations.checks import OnBad
from gfl_edge.annotations.records import Annotations
from gfl_edge.backends.select import CpuBackendName, open_onnx_backend
from gfl_edge.detector import Detector
from gfl_edge.errors import ImageError, InputError, ModelFileError
from gfl_edge.evaluation.ap import evaluate_on
from gfl_edge.evaluation.coco import COCO_CLASSES
from gfl_edge.evaluation.truth import read_truth
from gfl_edge.files import check_output, sha256, size_bytes, write_atomically
from gfl_edge.media.images import is_image, read_image
from gfl_edge.ops.preprocess import single_input
from gfl_edge.ops.tolerances import Parity
from gfl_edge.spec import ExportedNms, ModelSpec

logger = logging.getLogger(__name__)

COMPARED_FRAMES = 4
RETINA_ANCHORS = 9  # per cell
# Points by which another choice has to be better to be taken for the right one. Of few images, AP tells less: on 60 of
# COCO, a published NanoDet-m was 0.55 better with --resize fit than with the letterbox that it was trained with
MARGIN_AP, MARGIN_AP_OF_ONE_IMAGE = 0.5, 5.0


@dataclass(frozen=True, kw_only=True)
class AdoptRequest:
    """What to adopt, and what is known of it.

    Attributes:
        source: foreign ONNX file.
        output: file to write.
        config: nanodet's YAML that it was trained with, or the infer_cfg.yml of PaddleDetection.
        class_names: in the order of the outputs.
        input_hw: (height, width) in pixels, where the file leaves it open.
        reg_max: bins per edge, less one, where the graph leaves it open.
        given: how it is run, as far as the caller says.
        nms: where NMS runs: "graph", "none" or "raw".
        uncertainty: whether the standard deviation of every edge is given, too.
        fp16: whether the body becomes FP16.
        score_threshold, iou_threshold: of NMS; None: the family's.
        name: of the model; None: that of the file.
        images, annotations: on which AP is measured under each open choice.
        limit: only the first so many images.
        on_bad: see :func:`gfl_edge.annotations.checks.check_annotations`.
        backend: what runs models for AP.
    """

    source: Path
    output: Path
    config: Path | None = None
    class_names: tuple[str, ...] | None = None
    input_hw: tuple[int, int] | None = None
    reg_max: int | None = None
    given: Choices = field(default_factory=Choices)
    nms: ExportedNms = "graph"
    uncertainty: bool = False
    fp16: bool = False
    score_threshold: float | None = None
    iou_threshold: float | None = None
    name: str | None = None
    images: Path | None = None
    annotations: Path | None = None
    limit: int | None = None
    on_bad: OnBad = "error"
    backend: CpuBackendName = "auto"

    def __post_init__(self) -> None:
        if self.annotations is not None and self.images is None:
            raise InputError("--annotations without --images: give the folder of their images as well")
        if self.images is not None and not self.images.is_dir():
            raise InputError(f"{self.images}: no such folder of images. Give one with --images")
        if self.output.suffix != ".onnx" or os.path.realpath(self.output) == os.path.realpath(self.source):
            raise InputError(f"-o {self.output}: expected another .onnx file than {self.source}")
        if self.nms not in ("graph", "none", "raw"):
            raise InputError(f"--nms {self.nms}: expected graph, none or raw")


@dataclass(frozen=True)
class Row:
    """AP in percent under a choice; ``options`` say it, and are empty for what was taken."""

    options: str
    ap: float


@dataclass(frozen=True)
class Adopted:
    """A file that was written.

    Attributes:
        path: of it.
        spec: its description.
        notes: what was found, each by what.
        proof: how far it is from the foreign file.
        table: AP under each open choice, that of what was taken first; empty where there were no annotations.
    """

    path: Path
    spec: ModelSpec
    notes: tuple[str, ...]
    proof: Parity
    table: tuple[Row, ...]


def adopt(request: AdoptRequest) -> Adopted:
    """Write a model of the contract that computes what the foreign one does, or none.

    Raises:
        ModelFileError: unreadable, or no detector that is known.
        InputError: something is open that nothing settles, or contradicts what was given; or another choice has a
            higher AP than what was recognized.
        ParityError: the adopted model computes something else.
        PrecisionError: FP16 cannot hold it.
        OutputError: the file cannot be written.
    """
    check_output(request.output, size_bytes(request.source))
    work = _Work(request)
    settled, table = work.settle()
    spec = work.spec(settled)
    for note in work.notes(settled):
        logger.info("%s", note)
    body = work.body
    if request.fp16 and spec.precision == "fp32":
        images = [*(noise((1, *spec.input_hw, 3), seed) for seed in range(2)), *work.frames(spec)]
        plan = half.plan(work.wrapped(body, settled, replace(spec, nms="none")), images)
        body = half.to_half(body, plan)
        spec = replace(spec, precision="fp16", float_layers=half.float_layers(body))
        logger.info("%s", plan)
    model = work.wrapped(body, settled, spec)
    candidates = work.wrapped(body, settled, replace(spec, nms="none"))
    proof = prove(work.foreign, work.head, candidates, model, spec, settled.channel_order, work.frames(spec))
    logger.info("%s", proof)
    write_atomically(request.output, model.SerializeToString())
    return Adopted(request.output, spec, tuple(work.notes(settled)), proof, tuple(table))


class _Work:
    """What was found in a foreign file and what was given with it, and the models that are made of them."""

    def __init__(self, request: AdoptRequest) -> None:
        self._request = request
        taken = read_config(request.config) if request.config is not None else None
        names = request.class_names or (taken and taken.class_names) or None
        size = request.input_hw or (taken and taken.input_hw) or None
        self.foreign = read_foreign(request.source, size)
        self.head = find_head(self.foreign, _given(request, taken, names))
        self.class_names = names or self._default_names()
        self._check_strides(taken)
        self.guess = guess_family(self.foreign, self.head)
        given = request.given
        told = None not in (given.mean, given.std, given.channel_order)
        self.inner = inner_normalization(self.foreign, told)
        self.known = given if taken is None else _with_config(given, taken.choices, self.inner)
        self._said = self.known
        self._take_points()
        self._warn_of_another_family()
        self.body = cut_body(self.foreign, self.head)
        self.precision = half.precision_of(self.body, str(request.source))
        self._float_layers = half.float_layers(self.body) if self.precision == "fp16" else ()
        self.batched = open_batch(self.body, self.foreign)
        self._sha256 = sha256(request.source)
        self._truth: Annotations | None = None
        self._measured: dict[Settled, float] = {}  # AP

    def _take_points(self) -> None:
        """Where the file decodes boxes, its points are those of the graph."""
        shown, said = self.head.point_offset, self.known.point_offset
        if shown is not None and said not in (None, shown):
            raise InputError(
                f"{self._request.source} decodes its boxes with the point offset {shown:g}, and {said:g} was given. "
                "Leave out --point-offset"
            )
        self.known = replace(self.known, point_offset=said if shown is None else shown)

    def _warn_of_another_family(self) -> None:
        given, seen = self.known.family, self.guess.family
        if self.guess.is_yolo and None in (getattr(self.known, name) for name in OPTIONS):
            raise ModelFileError(
                f"{self._request.source} looks like a YOLO ({self.guess.reason}), which is none of these families. To "
                f"run it as it was trained, give all of: {'; '.join(OPTIONS.values())}"
            )
        if given and seen and TRAITS[given] != TRAITS[seen]:
            logger.warning("the graph looks like %s (%s), and is run as %s", seen, self.guess.reason, given)

    def _default_names(self) -> tuple[str, ...]:
        count, anchors = self.head.num_classes, self.head.reg_max + 1
        if count == len(COCO_CLASSES):
            return COCO_CLASSES
        retina = anchors == RETINA_ANCHORS and count % anchors == 0
        hint = f". Of {anchors} anchors and {count // anchors} classes, as RetinaNet has, it cannot be adopted"
        raise InputError(
            f"{self._request.source} has {count} classes, and nothing says what they are called. Name them: --classes "
            f"A,B,C or --classes FILE, one per line, in the order of training{hint if retina else ''}"
        )

    def _check_strides(self, taken: Configured | None) -> None:
        if taken is not None and taken.strides not in (None, self.head.strides):
            raise InputError(
                f"{self._request.config}: {taken.strides_at} is {list(taken.strides or ())}, but "
                f"{self._request.source} has levels of strides {list(self.head.strides)}. Give the configuration that "
                "it was trained with"
            )

    def settle(self) -> tuple[Settled, list[Row]]:
        """How the detector is run, and the AP under each open choice where there are annotations."""
        origin = str(self._request.source)
        if self._request.annotations is None:
            return settle(self.known, self.guess, self.inner, origin), []
        self._truth = read_truth(
            self._request.annotations, self._request.images or Path(), self._request.limit, self._request.on_bad
        )
        if self.known.family is None and self.guess.family is None:
            self.guess = self._family_by_ap()
        settled = settle(self.known, self.guess, self.inner, origin)
        table = [Row("", self._ap(settled))]
        for options, other in alternatives(settled):
            table.append(Row(options, self._ap(other)))
        better = max(table, key=lambda row: row.ap)
        if better.ap > table[0].ap + margin_ap(len(self._truth)):
            raise InputError(
                f"{origin}: AP {table[0].ap:.2f} as recognized ({_words(settled)}), but {better.ap:.2f} with "
                f"{better.options}. Say how it was trained: add {better.options}, or the options of what was "
                "recognized. Nothing was written"
            )
        return settled, table

    def _family_by_ap(self) -> FamilyGuess:
        """The family whose conventions give the highest AP."""
        found = {}
        for family in FAMILIES:
            guess = FamilyGuess(family, "")
            found[family] = self._ap(settle(self.known, guess, self.inner, str(self._request.source)))
        best = max(FAMILIES, key=lambda family: found[family])
        listed = ", ".join(f"{family} {found[family]:.2f}" for family in FAMILIES)
        return FamilyGuess(best, f"{self.guess.reason}; AP by family: {listed}")

    def _ap(self, settled: Settled) -> float:
        assert self._truth is not None
        key = replace(settled, family="", open_fields=())  # several families are run alike
        if key not in self._measured:
            self._measured[key] = self._evaluated(settled, self._truth)
        return self._measured[key]

    def _evaluated(self, settled: Settled, truth: Annotations) -> float:
        spec = replace(self.spec(settled), nms="none")
        model = self.wrapped(self.body, settled, spec)
        backend = open_onnx_backend(model, spec, self._request.backend, "host", performance="throughput")
        with Detector(backend) as detector:
            return evaluate_on(truth, detector).percent("AP")

    def spec(self, settled: Settled) -> ModelSpec:
        """The description of the adopted model, in the foreign one's precision.

        Raises:
            InputError: a value that no model may have, such as a deviation of 0.
        """
        try:
            return self._spec(settled)
        except ValueError as error:
            raise InputError(f"{self._request.source} cannot be adopted so: {error}. Correct the option") from error

    def _spec(self, settled: Settled) -> ModelSpec:
        request, head = self._request, self.head
        threshold = SCORE_THRESHOLDS.get(settled.family, ModelSpec.score_threshold)
        return ModelSpec(
            name=request.name or _file_name(request.source.stem),
            family=settled.family,
            class_names=self.class_names,
            input_hw=self.foreign.input_hw,
            resize=settled.resize,
            mean_bgr=settled.mean_bgr,
            std_bgr=settled.std_bgr,
            strides=head.strides,
            reg_max=head.reg_max,
            point_offset=settled.point_offset,
            precision=self.precision,
            float_layers=self._float_layers,
            nms=request.nms,
            edge_sigma=request.uncertainty,
            score_threshold=threshold if request.score_threshold is None else request.score_threshold,
            iou_threshold=ModelSpec.iou_threshold if request.iou_threshold is None else request.iou_threshold,
            source_sha256=self._sha256,
        )

    def wrapped(self, body: Any, settled: Settled, spec: ModelSpec) -> Any:
        """The model that ``spec`` describes."""
        return wrap(body, self.foreign, self.head, spec, settled.channel_order, self.batched)

    def frames(self, spec: ModelSpec) -> Iterator[NDArray[np.uint8]]:
        """Some of the images, where there are any, as the network's input."""
        folder, found = self._request.images, 0
        for path in sorted(folder.iterdir()) if folder is not None else ():
            if is_image(path) and found < COMPARED_FRAMES:
                try:
                    yield single_input(read_image(path), spec)
                except ImageError as error:
                    logger.warning("left out: %s", error)
                    continue
                found += 1

    def notes(self, settled: Settled) -> list[str]:
        """What was found, each by what."""
        head, inner = self.head, self.inner
        given = [f.name for f in fields(Choices) if getattr(self._said, f.name) is not None]
        lines = [
            f"input {self.foreign.input_hw[0]} x {self.foreign.input_hw[1]} (height x width), {self.foreign.layout}, "
            f"{'any batch' if self.batched else 'one image at a time: its shapes are fixed'}",
            f"strides {', '.join(map(str, head.strides))}: from the sizes of the maps",
            f"{head.num_classes} classes, reg_max {head.reg_max}: from the numbers of channels",
            *head.notes,
            f"scores are {'logits' if head.logits else 'probabilities: every value lies within 0 and 1'}",
            f"family {settled.family}: {'given, the graph has ' if self.known.family else ''}{self.guess.reason}",
        ]
        if self.foreign.cut_off:
            lines.append(f"left out: {', '.join(self.foreign.cut_off[:8])}, and what comes after")
        if inner is not None and inner.normalizes:
            lines.append(f"normalization in the graph: mean {inner.mean}, std {inner.std}")
        if inner is not None and inner.swaps:
            lines.append("the graph gives its channels to the first layer in reverse")
        for name in OPTIONS:
            value = getattr(settled, name)
            shown = " ".join(f"{x:g}" for x in value) if isinstance(value, tuple) else value
            source = "given" if name in given else "the graph" if name not in settled.open_fields else "the family's"
            lines.append(f"{name.replace('_', ' ')} {shown}: {source}")
        return lines


def margin_ap(images: int) -> float:
    """Points by which AP on so many images has to be higher to contradict what was recognized."""
    return max(MARGIN_AP, MARGIN_AP_OF_ONE_IMAGE / math.sqrt(max(images, 1)))


def _given(request: AdoptRequest, taken: Configured | None, names: tuple[str, ...] | None) -> Given:
    """What is known of the channels; a contradiction between the sources is found when they meet the graph."""
    count = len(names) if names is not None else None
    reg_max = request.reg_max
    if taken is not None:
        said = taken.num_classes
        if None not in (count, said) and count != said:
            raise InputError(
                f"{request.config}: model.arch.head.num_classes is {said}, but {count} class names were given or stand "
                "there. Give the configuration and the names that it was trained with"
            )
        count = count or said
        reg_max = reg_max or taken.reg_max
    return Given(count, reg_max)


def _with_config(given: Choices, said: Choices, inner: InnerNormalization | None) -> Choices:
    """What the caller says, and where it says nothing, the configuration, of which ``inner`` may be in the graph."""
    if inner is not None and inner.normalizes:
        said = replace(said, mean=None, std=None)
    if inner is not None and (inner.swaps or inner.order):
        other: ChannelOrder = "rgb" if said.channel_order == "bgr" else "bgr"
        said = replace(said, channel_order=inner.order or other)
    known = {f.name: getattr(given, f.name) for f in fields(Choices) if getattr(given, f.name) is not None}
    return replace(said, **known)


def _words(settled: Settled) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {getattr(settled, name)}" for name in settled.open_fields)


def _file_name(stem: str) -> str:
    """A model's name from that of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:128] or "adopted"
