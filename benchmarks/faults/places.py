"""What stands where a file is expected: a pipe that nobody writes to, a device without end, a hole of a terabyte, a
circle of links, a folder, nothing at all. It is refused in a sentence, at once, in little memory.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults.case import Case
from benchmarks.faults.inputs import inputs
from benchmarks.faults.process import limited, run

MAX_MEMORY_BYTES = 16 << 30  # of addresses, of which PyTorch takes many, and of which there are fewer than in the hole
HOLE_BYTES = 1 << 40
WRONG_USE = 2  # the exit status where a file is refused while the words of the command are read

Words = Sequence[str | Path]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HOLE_BYTES)


def _circle(path: Path) -> None:
    path.symlink_to(path)


THINGS: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a device without end": _endless,
    "a hole of a terabyte": _hole,
    "links in a circle": _circle,
    "a folder": Path.mkdir,
    "an empty file": Path.touch,
}


def _run_command(*words: str | Path) -> Words:
    return ["gfl-edge", *words]


def _on_cpu(name: str, *words: str | Path) -> Words:
    return ["gfl-edge", name, "--backend", "onnxruntime", *words]


def _squares(name: str, *words: str | Path) -> Words:
    return _on_cpu(name, "--model", inputs() / "squares.onnx", *words)


def _of_run(script: str, words: Words = (), settings: Sequence[str] = ()) -> Words:
    always = [f'data.root="{inputs()}"', 'train.output="out"']
    return [script, inputs() / "run.toml", *words, "--set", *always, *settings]


# By the argument that is something else than a file: its name, and the command with it
ARGUMENTS: dict[str, tuple[str, Callable[[Path], Words]]] = {
    "detect, model": ("m.onnx", lambda path: _on_cpu("detect", "--model", path, inputs() / "images")),
    "detect, engine": ("m.engine", lambda path: _run_command("detect", "--model", path, inputs() / "images")),
    "detect, image": ("i.png", lambda path: _squares("detect", path, "-o", "out")),
    "detect, class names": ("c.txt", lambda path: _squares("detect", inputs() / "images", "--classes", path)),
    "camera, video": ("v.mp4", lambda path: _squares("camera", "--headless", "--source", path)),
    "camera, image": ("i.jpg", lambda path: _squares("camera", "--headless", "--source", path)),
    "batch, list": ("l.txt", lambda path: _squares("batch", path, "-o", "out.parquet")),
    "eval, annotations": (
        "a.json",
        lambda path: _squares("eval", "--images", inputs() / "images", "--annotations", path),
    ),
    "compare, model": (
        "m.onnx",
        lambda path: _on_cpu("compare", inputs() / "squares.onnx", path, "--images", inputs() / "images"),
    ),
    "bench, older report": ("r.json", lambda path: _squares("bench", "--against", path, "-o", "out")),
    "build, model": ("m.onnx", lambda path: _run_command("build", "--flavor", "rtx", "--model", path, "-o", "out")),
    "triton, model": ("m.onnx", lambda path: _run_command("triton", "out", "--model", path)),
    "deepstream, model": ("m.onnx", lambda path: _run_command("deepstream", "out", "--model", path)),
    "adopt, model": ("m.onnx", lambda path: _run_command("adopt", path, "-o", "out.onnx")),
    "adopt, configuration": (
        "c.yml",
        lambda path: _run_command("adopt", inputs() / "foreign.onnx", "--config", path, "-o", "out.onnx"),
    ),
    "calibrate, model": (
        "m.onnx",
        lambda path: ["calib/calibrate.py", "--onnx", path, "--images", inputs() / "images", "-o", "out.onnx"],
    ),
    "calibrate, ranges": (
        "r.json",
        lambda path: [
            *("calib/calibrate.py", "--onnx", inputs() / "squares.onnx", "--images", inputs() / "images"),
            *("--num-images", "16", "--cache", path, "-o", "out.onnx"),
        ],
    ),
    "to_onnx, weights": ("w.pt", lambda path: ["export/to_onnx.py", "--weights", path, "-o", "out.onnx"]),
    "evaluate, configuration": (
        "c.yml",
        lambda path: [
            *("train/evaluate.py", "--weights", inputs() / "run" / "last.pt", "--config", path),
            *("--images", inputs() / "images", "--annotations", inputs() / "instances.json"),
        ],
    ),
    "train, settings": ("s.toml", lambda path: ["train/train.py", path]),
    "train, weights": ("w.pt", lambda path: _of_run("train/train.py", settings=[f'model.weights="{path}"'])),
    "to_coco, settings": ("s.toml", lambda path: ["train/to_coco.py", path, "-o", "out.json"]),
    "blend, end": ("e.pt", lambda path: _of_run("train/blend.py", ["--end", path, "-o", "out.pt"])),
}

WITH_TORCH = ("to_onnx", "evaluate", "train", "to_coco", "blend")  # which take seconds to start
THINGS_FOR_TORCH = ("a pipe", "a hole of a terabyte", "links in a circle")


def cases() -> Iterator[Case]:
    """See the module."""
    for what, make in THINGS.items():
        for argument, (name, words) in ARGUMENTS.items():
            if argument.split(",")[0] in WITH_TORCH and what not in THINGS_FOR_TORCH:
                continue
            case = partial(_refused, make=make, name=name, words=words)
            yield Case(argument, f"{what} in place of a file", case)


def _refused(folder: Path, make: Callable[[Path], None], name: str, words: Callable[[Path], Words]) -> None:
    make(folder / name)
    ended = run(words(folder / name), folder, limited(resource.RLIMIT_AS, MAX_MEMORY_BYTES))
    ended.check_one_sentence(1, WRONG_USE)
    left = sorted(path.name for path in folder.iterdir())
    assert set(left) <= {name, "cache"}, f"left: {left}"
