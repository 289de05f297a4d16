"""From settings to checked annotations."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from gfl_edge.annotations.checks import CheckReport, OnBad, check_annotations
from gfl_edge.annotations.class_names import read_class_names
from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.records import Annotations, join
from train.data.config import DataConfig, DataFiles
from train.data.formats.image_ids import with_ids
from train.data.formats.voc import read_voc, voc_class_names
from train.data.formats.yolo import read_yolo
from train.data.verified import verified

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


def load_data(config: DataConfig, progress: bool = False) -> LoadedData:
    """Read, select and check the sets that ``config`` names, and log what they hold.

    Classes are matched by name, whatever their numbers are in each set. The validation set may lack some of them.

    Args:
        config: what to load.
        progress: draw a line of progress on stderr while images are looked at.

    Raises:
        AnnotationError: files that cannot be read, classes that they lack, or what
            :func:`train.data.verified.verified` and :func:`gfl_edge.annotations.checks.check_annotations` refuse.
    """
    load = _Loading(config, progress)
    train, train_report = load.training()
    if config.val is None:
        return LoadedData(train, train_report)
    val, val_report = load.part(config.val, train.class_names, partial=True)
    return LoadedData(train, train_report, val, val_report)


def read_files(files: DataFiles, voc_names: tuple[str, ...] = (), on_bad: OnBad = "error") -> Annotations:
    """Read one set as it is, unchecked.

    Args:
        files: where it lies.
        voc_names: the classes of VOC files for which ``files`` names none; default those found in them.
        on_bad: see :func:`gfl_edge.annotations.coco.read_coco`.
    """
    names = read_class_names(files.class_names_file) if files.class_names_file else files.class_names
    if files.format == "coco":
        found = read_coco(files.annotations, files.images, on_bad)
        for path, keep in ((files.only_ids, True), (files.except_ids, False)):
            found = found if path is None else with_ids(found, path, keep)
        return found
    if files.format == "yolo":
        return read_yolo(files.images, files.annotations, names, files.image_list)
    return read_voc(files.annotations, files.image_list, files.images, names or voc_names or None)


class _Loading:
    """The sets of one configuration."""

    def __init__(self, config: DataConfig, progress: bool) -> None:
        self.config, self.progress, self.voc_names = config, progress, _voc_names(config)

    def training(self) -> tuple[Annotations, CheckReport]:
        first, report = self.part(self.config.train, self.config.classes)
        further = [self.part(files, first.class_names) for files in self.config.also]
        repeats = [files.repeat for files in (self.config.train, *self.config.also)]
        if repeats == [1]:
            return first, report
        return join([first, *(part for part, _ in further)], repeats), report.plus(found for _, found in further)

    def part(
        self, files: DataFiles, classes: tuple[str, ...], partial: bool = False
    ) -> tuple[Annotations, CheckReport]:
        """One set with those classes, some of which it may lack if ``partial``."""
        selected = read_files(files, self.voc_names, self.config.on_bad).select(classes, self.config.rename, partial)
        whole, left_out = verified(selected, self.config.on_bad, self.progress)
        checked, report = check_annotations(whole, self.config.on_bad)
        report = replace(report, dropped={**left_out, **report.dropped})
        logger.debug("%s: %s", checked.origin, report.summary())
        return checked, report


def _voc_names(config: DataConfig) -> tuple[str, ...]:
    """The classes of all sets together, as VOC files list none: a rare one may be in a single set."""
    sets = [files for files in (config.train, *config.also, config.val) if files is not None and files.format == "voc"]
    unnamed: list[str | Path] = [f.annotations for f in sets if not f.class_names and f.class_names_file is None]
    return voc_class_names(unnamed) if unnamed else ()
