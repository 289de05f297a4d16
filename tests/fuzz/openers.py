"""Which drivers try each module that reads files; a new module goes here, or tests/house/test_fuzzed.py fails.

A module is listed with the names of the drivers in tests/fuzz/readers that reach it, or with the reason why it has
none.
"""

from __future__ import annotations

MADE_HERE = "it reads what gfl_edge brought or wrote itself, in a place that is the user's own"
SYSTEM = "it reads what the operating system says of this machine"
ENGINE = "what is in an engine is executed, so that one of a stranger must not be loaded: SECURITY.md"
WRITES = "it writes; what it opens is its own file"

OPENERS: dict[str, tuple[str, ...] | str] = {
    "calib/images.py": ("image",),  # digests of images, which are then decoded
    "gfl_edge/adopt/beside.py": ("foreign-onnx",),
    "gfl_edge/adopt/foreign.py": ("foreign-onnx",),
    "gfl_edge/annotations/class_names.py": ("class-names", "class-names-yaml", "class-names-json"),
    "gfl_edge/annotations/coco.py": ("coco-evaluation", "coco-training"),
    "gfl_edge/annotations/text.py": ("text", "xml-text", "yolo-labels", "yolo-list", "voc", "voc-list", "image-ids"),
    "gfl_edge/batch/cluster.py": MADE_HERE,  # the model, which the readers of models open
    "gfl_edge/batch/listing.py": MADE_HERE,
    "gfl_edge/batch/parts.py": MADE_HERE,
    "gfl_edge/batch/source.py": ("batch-list",),
    "gfl_edge/bench/device/sysfs.py": SYSTEM,
    "gfl_edge/cuda/kept.py": MADE_HERE,
    "gfl_edge/cuda/kernels.py": MADE_HERE,
    "gfl_edge/doctor/gpu.py": SYSTEM,
    "gfl_edge/doctor/jetson.py": SYSTEM,
    "gfl_edge/engine/build.py": ("onnx-description",),  # TensorRT parses what that let pass
    "gfl_edge/engine/options.py": MADE_HERE,
    "gfl_edge/engine/sidecar.py": ("sidecar",),
    "gfl_edge/environment.py": SYSTEM,
    "gfl_edge/files/found.py": ("text", "image", "onnx-description"),
    "gfl_edge/files/output.py": WRITES,
    "gfl_edge/files/partial.py": WRITES,
    "gfl_edge/media/capture.py": ("video",),
    "gfl_edge/media/containers.py": WRITES,
    "gfl_edge/media/hardware.py": ("video packets",),
    "gfl_edge/media/images.py": ("image", "image size", "image folder"),
    "gfl_edge/media/lines.py": WRITES,
    "gfl_edge/media/opening.py": ("video", "image folder"),
    "gfl_edge/parsing/json_text.py": ("spec", "sidecar", "report"),
    "gfl_edge/report/html.py": MADE_HERE,
    "gfl_edge/web/app.py": MADE_HERE,
    "gfl_edge/results/journal.py": ("detect-journal",),
    "gfl_edge/results/tables.py": WRITES,
    "gfl_edge/serving/deepstream.py": MADE_HERE,
    "gfl_edge/serving/folder.py": WRITES,
    "gfl_edge/spec.py": ("onnx-description", "onnxruntime", "openvino", "spec-in-onnx"),
    "gfl_edge/terminal/streams.py": WRITES,
    "gfl_edge/zoo/download.py": MADE_HERE,
    "train/data/verified.py": MADE_HERE,
    "train/metrics.py": MADE_HERE,
    "train/saved.py": WRITES,  # it locks a folder
    "train/settings.py": ("training",),
    "train/weights/mmdet_config.py": ("mmdet-config",),
    "train/weights/reading.py": ("torch-zip", "torch-legacy", "safetensors", "own-checkpoint", "resume"),
}
