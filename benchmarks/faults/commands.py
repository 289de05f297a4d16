"""The commands of the project that write files, each in a folder of its own, and whether those files are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.inputs import CLIP_FRAMES, inputs
from benchmarks.faults.writing import is_sealed
from gfl_edge import optional
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.files.partial import NAME
from gfl_edge.media.images import IMAGE_SUFFIXES, read_image
from gfl_edge.media.opening import open_source
from gfl_edge.spec import load_onnx, read_spec

Words = list[str | Path]


@dataclass(frozen=True)
class Command:
    """A command that writes files.

    Attributes:
        name: of the command in the table.
        words: run it, with ``out`` in the current folder as its target.
        again: run it once more after it was stopped; None: as before.
    """

    name: str
    words: Callable[[], Words]
    again: Callable[[Path], Words] | None = None

    def next_words(self, folder: Path) -> Words:
        """What runs it once more in ``folder``."""
        return self.again(folder) if self.again else self.words()


def _with_model(*words: str | Path) -> Words:
    name, *rest = words
    return ["gfl-edge", name, "--model", inputs() / "squares.onnx", "--backend", "onnxruntime", *rest]


def _build() -> Words:
    return ["gfl-edge", "build", "--model", inputs() / "squares.onnx", "--flavor", "rtx", "-o", "out"]


def _train() -> Words:
    changes = [f'data.root="{inputs()}"', 'train.output="out"']
    return ["train/train.py", inputs() / "run.toml", "--set", *changes]


def _train_on(folder: Path) -> Words:
    return [*_train(), *(["--resume"] if (folder / "out" / "last.pt").exists() else [])]


def _blend() -> Words:
    last = inputs() / "run" / "last.pt"
    changes = [f'data.root="{inputs()}"', f'model.weights="{last}"']
    return ["train/blend.py", inputs() / "run.toml", "--set", *changes, "--end", last, "-o", "out/blend.pt"]


def _calibrate() -> Words:
    few = ["--num-images", "16", "--probe-images", "1"]
    measured: Words = ["--annotations", inputs() / "instances.json", "--eval-images", inputs() / "images"]
    model: Words = ["--onnx", inputs() / "squares.onnx", "--images", inputs() / "images"]
    return ["calib/calibrate.py", *model, *few, *measured, "-o", "out/q.onnx"]


def _truth() -> Words:
    return ["--images", inputs() / "images", "--annotations", inputs() / "instances.json"]


def _compare() -> Words:
    models: Words = [inputs() / "squares.onnx", inputs() / "squares.onnx"]
    return ["gfl-edge", "compare", *models, "--backend", "onnxruntime", *_truth(), "--json", "out/result.json"]


def _camera() -> Words:
    shown = ["--track", "--classes", "square", "--region", "0,0 1.0,0 1.0,1.0", "--exclude", "0,0 0.1,0 0.1,0.1"]
    written = ["--headless", "--output", "out/video.mp4", "--json-lines", "out/lines.jsonl"]
    return _with_model("camera", "--source", inputs() / "clip.avi", *shown, *written)


def _to_coco() -> Words:
    return ["train/to_coco.py", inputs() / "run.toml", "--set", f'data.root="{inputs()}"', "-o", "out/val.json"]


def _evaluate() -> Words:
    return ["train/evaluate.py", "--weights", inputs() / "run" / "last.pt", *_truth(), "--json", "out/result.json"]


def _to_trt() -> Words:
    return ["export/to_trt.py", "--onnx", inputs() / "squares.onnx", "--flavor", "rtx", "-o", "out"]


def _adopt() -> Words:
    said = ["--classes", "square", "--family", "gfl"]
    return ["gfl-edge", "adopt", inputs() / "foreign.onnx", *said, "-o", "out/m.onnx"]


LIGHT = (
    Command("adopt", _adopt),
    Command(
        "detect",
        lambda: _with_model("detect", inputs() / "images", "-o", "out", "--format", "coco,yolo,csv=cars.csv,jsonl"),
    ),
    Command(
        "eval",
        lambda: _with_model(
            *("eval", *_truth(), "--format", "coco,jsonl"),
            *("--json", "out/result.json", "-o", "out/page", "--store-scores", "out/copy.onnx"),
        ),
    ),
    Command("compare", _compare),
    Command("camera", _camera),
    Command("batch", lambda: _with_model("batch", inputs() / "images", "-o", "out/found.parquet", "--chunk", "4")),
    Command("build", _build),
    Command("triton", lambda: ["gfl-edge", "triton", "out", "--model", inputs() / "squares.onnx"]),
    Command("deepstream", lambda: ["gfl-edge", "deepstream", "out", "--model", inputs() / "squares.onnx"]),
)
HEAVY = (
    Command("to_coco", _to_coco),
    Command("evaluate", _evaluate),
    Command("to_trt", _to_trt),
    Command("bench", lambda: _with_model("bench", "--seconds", "0.2", "-o", "out")),
    Command("to_onnx", lambda: ["export/to_onnx.py", "--weights", inputs() / "run" / "last.pt", "-o", "out/m.onnx"]),
    Command("calibrate", _calibrate),
    Command("train", _train, _train_on),
    Command("blend", _blend),
)
COMMANDS = (*LIGHT, *HEAVY)


def check_whole(folder: Path) -> None:
    """Raise unless every finished file below ``folder`` is whole; temporary ones do not count."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not NAME.fullmatch(path.name) and "cache" not in path.relative_to(folder).parts:
            _check(path)


def _check(path: Path) -> None:
    if path.suffix == ".bin":
        assert is_sealed(path.read_bytes()), f"{path} is cut"
    elif path.suffix == ".engine":
        Sidecar.read(path).check_file(path)
    elif path.suffix == ".onnx":
        of_others = path.stem.endswith("-planar") or path.parent.name == "1"  # DeepStream's and Triton's
        (load_onnx if of_others else read_spec)(path)
    elif path.suffix == ".pt":
        optional.load("torch").load(path, weights_only=True)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        whole, _, _ = path.read_text().rpartition("\n")  # a kill may cut the line that is being appended
        for line in whole.splitlines():
            json.loads(line)
    elif path.suffix == ".parquet":
        optional.load("pyarrow.parquet").read_table(path)
    elif path.suffix in (".mp4", ".avi"):
        with open_source(path) as video:
            frames = sum(1 for _ in video)
        assert 0 < frames <= CLIP_FRAMES, f"{path} has {frames} frames"
    elif path.suffix in IMAGE_SUFFIXES:
        read_image(path)
    elif path.parent.name == "labels":  # of YOLO, whose files are empty where nothing is
        assert path.read_text()[-1:] in ("", "\n"), f"{path} is cut"
    else:
        assert path.read_bytes(), f"{path} is empty"


def contents(folder: Path) -> dict[str, str]:
    """Digests by path of what is in ``folder``, the cache aside."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith("cache/")
    }


def left_over(folder: Path) -> list[str]:
    """The temporary files below ``folder``."""
    return sorted(path.name for path in folder.rglob("*") if "partial" in path.name or path.suffix == ".part")
