"""Training data: readers of annotation formats, checks, augmentation and batches.

    config = DataConfig.from_dict(table, folder=toml_file.parent)
    data = load_data(config)
    loader = TrainingLoader(config, data.train, batch_size=16, seed=0, workers=4)
    for epoch in range(12):
        for batch in loader.batches(epoch):
            ...

Names load when they are first used, as only batches need PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.data.annotations import Annotations, ImageRecord, Objects
    from train.data.checks import CheckReport, check_annotations
    from train.data.formats.class_names import read_class_names
    from train.data.formats.coco import read_coco, write_coco
    from train.data.config import Augmentation, DataConfig, DataFiles
    from train.data.load import LoadedData, load_data
    from train.data.loader import Batch, EvaluationLoader, TrainingLoader, collate
    from train.data.formats.voc import read_voc
    from train.data.formats.yolo import read_yolo

__all__ = [
    "Annotations",
    "Augmentation",
    "Batch",
    "CheckReport",
    "DataConfig",
    "DataFiles",
    "EvaluationLoader",
    "ImageRecord",
    "LoadedData",
    "Objects",
    "TrainingLoader",
    "check_annotations",
    "collate",
    "load_data",
    "read_class_names",
    "read_coco",
    "read_voc",
    "read_yolo",
    "write_coco",
]

_HOME = {
    "annotations": ("Annotations", "ImageRecord", "Objects"),
    "checks": ("CheckReport", "check_annotations"),
    "class_names": ("read_class_names",),
    "coco": ("read_coco", "write_coco"),
    "config": ("Augmentation", "DataConfig", "DataFiles"),
    "load": ("LoadedData", "load_data"),
    "loader": ("Batch", "EvaluationLoader", "TrainingLoader", "collate"),
    "voc": ("read_voc",),
    "yolo": ("read_yolo",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"train.data.{module}"), name)
    raise AttributeError(f"module 'train.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
