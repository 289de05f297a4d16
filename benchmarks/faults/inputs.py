"""What the commands are given: a few images, and a tiny network that is trained on them."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.faults.process import run
from gfl_edge import optional
from gfl_edge.media.images import write_image

IMAGES, SIDE = 20, 64
CLIP_FRAMES = 40
SETTINGS = """
[model]
name = "squares"
[model.gfl]
depth = 18
base_channels = 8
neck_channels = 32
head_channels = 32
stacked_convs = 1
strides = [8, 16, 32]
[data]
input_hw = [64, 64]
resize = "fit"
[data.train]
format = "coco"
images = "images"
annotations = "instances.json"
[data.val]
format = "coco"
images = "images"
annotations = "instances.json"
[train]
output = "run"
epochs = 2
batch = 4
threads = 1
device = "cpu"
checkpoint_steps = 2
"""


@functools.cache
def inputs() -> Path:
    """A folder with images, ``instances.json``, ``clip.avi``, ``run.toml``, ``run/last.pt``, ``squares.onnx``, and
    ``foreign.onnx``, which says nothing of itself.
    """
    folder = Path(tempfile.mkdtemp(prefix="gfl-edge-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write_dataset(folder)
    _write_clip(folder / "clip.avi")
    (folder / "run.toml").write_text(SETTINGS)
    export = ["export/to_onnx.py", "--weights", "run/last.pt", "--fp16", "-o", "squares.onnx"]
    raw = ["export/to_onnx.py", "--weights", "run/last.pt", "--nms", "raw", "-o", "foreign.onnx"]
    for command in (["train/train.py", "run.toml"], export, raw):
        ended = run(command, folder)
        assert ended.status == 0, f"{command[0]}: {ended.stderr}"
    onnx = optional.load("onnx")
    foreign = onnx.load(folder / "foreign.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    return folder


def _write_dataset(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images, objects = [], []
    for number in range(1, IMAGES + 1):
        image = rng.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
        (x, y), side = rng.integers(0, 32, 2).tolist(), int(rng.integers(16, 32))
        image[y : y + side, x : x + side] = 255
        write_image(folder / "images" / f"{number}.png", image)
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        objects.append({"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, side, side]})
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "square"}]}
    (folder / "instances.json").write_text(json.dumps(content))


def _write_clip(path: Path) -> None:
    cv2 = optional.load("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (320, 240))
    rng = np.random.default_rng(0)
    for _ in range(CLIP_FRAMES):
        writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
    writer.release()
