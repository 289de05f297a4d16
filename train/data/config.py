"""Settings of the training data, as they stand in a configuration file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from gfl_edge.annotations.checks import OnBad
from gfl_edge.parsing.fields import MAX_SIDE, Count, Limits, Natural, Share
from gfl_edge.parsing.validation import build
from gfl_edge.spec import SIZE_STEP, ResizeRule
from train.data.augment.color import ColorJitter, HsvJitter
from train.data.augment.paste import Paste
from train.data.augment.transforms import MIN_VISIBLE, HorizontalFlip, RandomAffine, RandomCrop, Range
from train.settings import DataPath, InputPath, Places

Format = Literal["coco", "voc", "yolo"]


@dataclass(frozen=True)
class DataFiles:
    """Where one set of annotated images lies."""

    format: Format
    images: DataPath  # folder
    annotations: DataPath  # coco: JSON file; voc: folder of XML files; yolo: folder of text files
    image_list: DataPath | None = None  # voc, yolo: text file of image names; default all of the folder
    class_names: tuple[str, ...] = ()  # of the annotations, in the order of their numbers; coco has its own
    class_names_file: DataPath | None = None  # instead: a text file, a name per line, or YAML with an entry "names"
    only_ids: InputPath | None = None  # coco: text file of image ids, one a line; no other images are used
    except_ids: InputPath | None = None  # coco: such a file of images to hold out
    repeat: Count = 1  # how often an epoch goes through it: a small set beside a large one

    def __post_init__(self) -> None:
        named = bool(self.class_names) + (self.class_names_file is not None)
        if self.format == "coco" and (named or self.image_list):
            raise ValueError(
                "format 'coco' has its classes and images in the JSON file: leave out class_names, "
                "class_names_file and image_list"
            )
        ids = [name for name in ("only_ids", "except_ids") if getattr(self, name)]
        if ids and self.format != "coco":
            raise ValueError(f"{ids[0]}: only COCO's images have ids; leave it out and list images in image_list")
        if self.format == "yolo" and not named:
            raise ValueError("class_names is missing: yolo needs it, or class_names_file")
        if named == 2:
            raise ValueError("class_names and class_names_file are both given: leave one out")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names {self.class_names}: a name comes twice")
        if not all(name.strip() for name in self.class_names):
            raise ValueError(f"class_names {self.class_names}: a name is empty")


@dataclass(frozen=True)
class Augmentation:
    """What is done to images in training. The defaults only flip, as GFL's own recipe for COCO."""

    flip: Share = 0.5  # probability
    crop: Share = 0.0  # probability
    crop_min_side: Annotated[float, Limits(ge=0.05, le=1)] = 0.5  # least side of the window, in parts of the image's
    scale: Range = (1.0, 1.0)  # factor about the center
    stretch_x: Range = (1.0, 1.0)  # factor of the width
    stretch_y: Range = (1.0, 1.0)  # factor of the height
    translate: Annotated[float, Limits(ge=0, le=0.5)] = 0.0  # shift, at most this part of width and height
    brightness: Share = 0.0  # at most this part of white, up or down
    contrast: Range = (1.0, 1.0)  # factor
    saturation: Range = (1.0, 1.0)  # factor
    hsv_hue: Annotated[float, Limits(ge=0, le=0.5)] = 0.0  # at most this part of the color circle
    hsv_saturation: Share = 0.0  # factor 1 - this to 1 + this
    hsv_value: Share = 0.0  # factor 1 - this to 1 + this
    mosaic: Share = 0.0  # probability of four images in one
    mosaic_stop_epoch: Natural | None = None  # the first epoch, from 0, without mosaics; default never
    paste: Share = 0.0  # probability of groups of objects of other images, pasted in
    paste_groups: tuple[int, int] = (1, 3)  # least and most groups in an image
    paste_copies: tuple[int, int] = (1, 5)  # least and most copies of the object in a group
    paste_size: Range = (0.06, 0.5)  # longer side of a pasted box, in parts of the image's shorter side
    min_visible: Share = MIN_VISIBLE  # boxes that keep less of their area are dropped

    def __post_init__(self) -> None:
        for name in ("scale", "stretch_x", "stretch_y"):
            _check_range(name, getattr(self, name), 0.05, 20)
        for name in ("contrast", "saturation"):
            _check_range(name, getattr(self, name), 0, 20)
        for name in ("paste_groups", "paste_copies"):
            _check_range(name, getattr(self, name), 1, 100)
        _check_range("paste_size", self.paste_size, 0.005, 2)

    def mosaic_in(self, epoch: int) -> float:
        """The probability of a mosaic in an epoch, counted from 0."""
        return self.mosaic if self.mosaic_stop_epoch is None or epoch < self.mosaic_stop_epoch else 0.0

    @property
    def horizontal_flip(self) -> HorizontalFlip:
        """The flip."""
        return HorizontalFlip(self.flip)

    @property
    def random_crop(self) -> RandomCrop:
        """The crop."""
        return RandomCrop(self.crop, self.crop_min_side, self.min_visible)

    @property
    def affine(self) -> RandomAffine:
        """Scale, stretch and shift."""
        return RandomAffine(self.scale, self.stretch_x, self.stretch_y, self.translate)

    @property
    def pasting(self) -> Paste:
        """What pastes a group."""
        return Paste(self.paste_size, self.paste_copies, self.min_visible)

    @property
    def colors(self) -> tuple[ColorJitter, HsvJitter]:
        """The changes of color, in order."""
        hsv = HsvJitter(self.hsv_hue, self.hsv_saturation, self.hsv_value)
        return ColorJitter(self.brightness, self.contrast, self.saturation), hsv


@dataclass(frozen=True)
class DataConfig:
    """Everything about the data of a training run except batch size, seed and processes, which belong to the loop."""

    train: DataFiles
    input_hw: tuple[int, int]  # pixels, multiples of 32
    resize: ResizeRule
    val: DataFiles | None = None
    also: tuple[DataFiles, ...] = ()  # further sets to train on, of the same classes
    classes: tuple[str, ...] = ()  # to learn, in this order; default all of the training set
    rename: dict[str, str] = field(default_factory=dict)  # class names of the files -> others, which may be the same
    short_long: tuple[int, int] | None = None  # with "fit": pixels of the sides, the input as large as they need
    sizes: tuple[tuple[int, int], ...] = ()  # to draw each batch's from, instead of just input_hw or short_long
    size_range: Range | None = None  # instead: factors of input_hw, or of the short side, in steps of 32 pixels
    augmentation: Augmentation = field(default_factory=Augmentation)
    root: InputPath | None = None  # folder at which the relative paths of the sets start
    on_bad: OnBad = "error"  # bad boxes; missing, damaged and doubled images: "error" refuses, "drop" leaves them out

    def __post_init__(self) -> None:
        _check_size("input_hw", self.input_hw)
        if self.short_long is not None and self.resize != "fit":
            raise ValueError(f"short_long goes only with resize 'fit', not {self.resize!r}")
        check = _check_size if self.short_long is None else _check_short_long
        if self.short_long is not None:
            _check_short_long("short_long", self.short_long)
        for index, size in enumerate(self.sizes):
            check(f"sizes[{index}]", size)
        if self.sizes and self.size_range is not None:
            raise ValueError("sizes and size_range are both given: leave one out")
        if self.size_range is not None:
            _check_range("size_range", self.size_range, 0.1, 4)
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {self.classes}: a name comes twice")

    @property
    def training_sizes(self) -> tuple[tuple[int, int], ...]:
        """What batches draw their size from: (height, width), or (short, long) where ``short_long`` is set."""
        first, second = self.short_long or self.input_hw
        if self.size_range is None:
            return self.sizes or ((first, second),)
        low, high = (max(1, round(factor * first / SIZE_STEP)) for factor in self.size_range)
        steps = range(low, high + 1)
        if self.short_long is not None:
            return tuple((step * SIZE_STEP, max(second, step * SIZE_STEP)) for step in steps)
        return tuple((step * SIZE_STEP, max(1, round(step * second / first)) * SIZE_STEP) for step in steps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], root: Path | None = None) -> DataConfig:
        """Build settings from the plain values of a TOML or JSON file.

        Args:
            values: fields of this class; ``train``, ``val`` and ``augmentation`` are tables of theirs.
            root: where relative paths start, unless the values say so; default: they stay relative.

        Raises:
            InputError: an unknown or missing field, or an impossible value; names it as ``data.train.format``.
        """
        return build(cls, values, "data", Places(root=root).with_root(values))


def _check_range(name: str, value: Range, low: float, high: float) -> None:
    if not (low <= value[0] <= value[1] <= high and math.isfinite(value[1])):
        raise ValueError(f"{name} {list(value)}: expected [low, high] within {low:g}..{high:g}, low first")


def _check_size(name: str, size_hw: tuple[int, int]) -> None:
    if len(size_hw) != 2 or any(side % SIZE_STEP or not SIZE_STEP <= side <= MAX_SIDE for side in size_hw):
        raise ValueError(
            f"{name} {list(size_hw)}: expected [height, width] in pixels, multiples of {SIZE_STEP} up to {MAX_SIDE}"
        )


def _check_short_long(name: str, short_long: tuple[int, int]) -> None:
    if not SIZE_STEP <= short_long[0] <= short_long[1] <= MAX_SIDE:
        raise ValueError(
            f"{name} {list(short_long)}: expected [short, long] in pixels, {SIZE_STEP} to {MAX_SIDE}, short first"
        )
