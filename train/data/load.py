"""From settings to checked annotations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from gfl_edge.annotations.checks import CheckReport, check_annotations
from gfl_edge.annotations.class_names import read_class_names
from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.records import Annotations, join
from train.data.config import DataConfig, DataFiles
from train.data.formats.voc import read_voc, voc_class_names
from train.data.formats.yolo import read_yolo

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedData:
    """The annotations of a training run, checked; both sets have the same classes in the same order."""

    train: Annotations
    train_report: CheckReport
    val: Annotations | None = None
    val_report: CheckReport | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes to learn."""
        return self.train.class_names


def load_data(config: DataConfig) -> LoadedData:
    """Read, select and check the sets that ``config`` names, and log what they hold.

    Raises:
        AnnotationError: files that cannot be read, classes that they lack, or what
            :func:`gfl_edge.annotations.checks.check_annotations` refuses.
    """
    voc_names = _voc_names(config)
    train, train_report = _load_training(config, voc_names)
    if config.val is None:
        return LoadedData(train, train_report)
    val, val_report = _load(config, config.val, train.class_names, voc_names)
    return LoadedData(train, train_report, val, val_report)


def read_files(files: DataFiles, voc_names: tuple[str, ...] = ()) -> Annotations:
    """Read one set as it is, unchecked.

    Args:
        files: where it lies.
        voc_names: the classes of VOC files for which ``files`` names none; default those found in them.
    """
    names = read_class_names(files.class_names_file) if files.class_names_file else files.class_names
    if files.format == "coco":
        return read_coco(files.annotations, files.images)
    if files.format == "yolo":
        return read_yolo(files.images, files.annotations, names, files.image_list)
    assert files.image_list is not None  # DataFiles requires it of voc
    return read_voc(files.annotations, files.image_list, files.images, names or voc_names or None)


def _load_training(config: DataConfig, voc_names: tuple[str, ...]) -> tuple[Annotations, CheckReport]:
    first, report = _load(config, config.train, config.classes, voc_names)
    further = [_load(config, files, first.class_names, voc_names) for files in config.also]
    repeats = [files.repeat for files in (config.train, *config.also)]
    if repeats == [1]:
        return first, report
    return join([first, *(part for part, _ in further)], repeats), report.plus(found for _, found in further)


def _load(
    config: DataConfig, files: DataFiles, classes: tuple[str, ...], voc_names: tuple[str, ...]
) -> tuple[Annotations, CheckReport]:
    selected = read_files(files, voc_names).select(classes, config.rename)
    checked, report = check_annotations(selected, config.on_bad)
    logger.debug("%s: %s", checked.origin, report.summary())
    return checked, report


def _voc_names(config: DataConfig) -> tuple[str, ...]:
    """The classes of all sets together, as VOC files list none: a rare one may be in a single set."""
    sets = [files for files in (config.train, *config.also, config.val) if files is not None and files.format == "voc"]
    unnamed: list[str | Path] = [f.annotations for f in sets if not f.class_names and f.class_names_file is None]
    return voc_class_names(unnamed) if unnamed else ()
