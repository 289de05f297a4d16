"""A detector whose model gives what can be no detection, and batches that are none."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gfl_edge import Detector
from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.errors import BackendError, FrameError, InputError
from gfl_edge.media.annotate import detect_images
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.images import write_image
from gfl_edge.ops.preprocess import Nv12Frame
from tests.support.own_backend import Candidates

FRAME = np.zeros((50, 200, 3), np.uint8)
DOG = [{"box_xyxy": [0.0, 0.0, 100.0, 50.0], "score": 0.75, "class_id": 1, "class_name": "dog"}]


class Spoiled(Candidates):
    """Finds a dog, and one thing more."""

    def __init__(self, spoil: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.spoil = spoil

    def run(self, images: np.ndarray) -> dict[str, Any]:
        outputs = super().run(images)
        self.spoil(outputs)
        return outputs


def one_bad(outputs: dict[str, Any]) -> None:
    outputs["boxes"][:, 3] = np.nan, 0, 5, 5
    outputs["scores"][:, 3, 0] = 0.9


def all_bad(outputs: dict[str, Any]) -> None:
    outputs["boxes"][:] = outputs["scores"][:] = np.nan


def test_a_box_of_nan_is_counted_and_the_rest_stays(caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector(Spoiled(one_bad))
    found = detector.infer(detector.prepare([FRAME, FRAME]))
    assert found.invalid == [1, 1]
    assert [detections.to_dicts() for detections in found.detections] == [DOG, DOG]
    detector(FRAME)
    (said,) = caplog.messages
    assert said.startswith("tiny gives invalid candidates, which are left out: 1 in a frame (NaN or infinite, a score")


def test_a_model_that_computes_nan_is_said_to(caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector(Spoiled(all_bad))
    assert [len(detector(FRAME)) for _ in range(3)] == [0, 0, 0]
    (said,) = caplog.messages
    assert said.startswith("tiny finds nothing in a frame, since its output there is invalid (240 candidates: NaN or")
    assert caplog.records[0].levelno == logging.WARNING


def test_the_count_is_in_the_summaries(tmp_path: Any) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, FRAME)
    summary = run_camera(Detector(Spoiled(one_bad)), tmp_path, show=False, json_lines=tmp_path / "lines.jsonl")
    assert (summary.invalid, summary.sources[0].invalid) == (2, 2)
    assert [json.loads(line)["detections"] for line in (tmp_path / "lines.jsonl").read_text().splitlines()] == [DOG] * 2
    images = detect_images(Detector(Spoiled(one_bad)), [tmp_path / "a.png"], output_dir=tmp_path / "out")
    assert (images.invalid, images.to_dict()["invalid"]) == (1, 1)


BOX, SCORE, CLASS = np.float32([[1, 1, 5, 5]]), np.float32([0.5]), np.int32([0])


@pytest.mark.parametrize(
    "values",
    [
        (BOX * np.float32(np.nan), SCORE, CLASS),
        (BOX * np.float32(np.inf), SCORE, CLASS),
        (BOX[:, ::-1] * np.float32([[5, 1, 1, 1]]), SCORE, CLASS),
        (BOX, SCORE + 1, CLASS),
        (BOX, SCORE * np.float32(np.nan), CLASS),
        (BOX, SCORE, CLASS + 1),
        (BOX, SCORE, CLASS - 1),
    ],
)
def test_a_container_takes_no_other(values: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InputError, match=r"^(detection 0 has the box \[|class_ids outside 0..0)"):
        Detections(*values, ("a",))


@pytest.mark.parametrize("score", ["0.5", None, float("nan"), 40, -1, True])
def test_a_score_to_select_by_is_checked(score: Any) -> None:
    with pytest.raises(InputError, match=r"^score .*: expected 0\.\.1$"):
        Detections(BOX, SCORE, CLASS, ("a",)).above(score)


def test_a_box_without_area_is_a_detection_and_drawn() -> None:
    edge = Detections(np.float32([[200, 0, 200, 50], [7, 7, 7, 7]]), np.float32([0.9, 0.8]), np.int32([0, 0]), ("a",))
    assert draw_detections(FRAME, edge).any()


@pytest.mark.parametrize(
    "batch",
    [
        [FRAME, FRAME],
        (FRAME, FRAME),
        iter([FRAME, FRAME]),
        (FRAME for _ in range(2)),
        np.stack([FRAME, FRAME]),
        {0: FRAME, 1: FRAME}.values(),
        np.stack([FRAME] * 4)[::2],
    ],
)
def test_any_iterable_of_frames_is_a_batch(batch: Any) -> None:
    assert [found.to_dicts() for found in Detector(Candidates()).detect_batch(batch)] == [DOG, DOG]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([], "got no frames to detect in: give at least one"),
        (iter(()), "got no frames"),
        (np.zeros((0, 5, 5, 3), np.uint8), "got no frames"),
        (FRAME, r"the batch is uint8 \[50, 200, 3\]: expected a list of frames, .*For one frame call the detector"),
        (FRAME[..., 0], r"the batch is uint8 \[50, 200\]: expected"),
        (np.float32(3), "the batch is float32: expected"),
        (np.zeros((1, 2, 5, 5, 3), np.uint8), r"the batch is uint8 \[1, 2, 5, 5, 3\]: expected"),
        (Nv12Frame(np.zeros((6, 4), np.uint8)), "the batch is Nv12Frame: expected"),
        (None, "the batch is NoneType: expected"),
        (7, "the batch is int: expected"),
        ("frame.png", "the batch is str: expected"),
        (b"frame", "the batch is bytes: expected"),
        ({"frame": FRAME}, "the batch is dict: expected"),
    ],
)
def test_what_is_no_batch(batch: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Detector(Candidates()).detect_batch(batch)


@pytest.mark.parametrize(
    "frame",
    [
        [FRAME],
        FRAME.tolist(),
        None,
        FRAME.astype(np.float32),
        FRAME.astype(np.int64),
        FRAME.astype(bool),
        FRAME.astype(object),
        FRAME[None],
        FRAME[:0],
        FRAME[:, :1],
        FRAME[..., :0],
        np.zeros((), np.uint8),
    ],
)
def test_what_is_no_frame_of_a_batch(frame: Any) -> None:
    with pytest.raises(FrameError):
        Detector(Candidates()).detect_batch([FRAME, frame])


KINDS = {
    "none": lambda: {"boxes": np.zeros((1, 240, 4), np.float32), "scores": np.zeros((1, 240, 2), np.float32)},
    "raw": lambda: {"cls_logits": np.zeros((1, 120, 2), np.float16), "reg_logits": np.zeros((1, 120, 32), np.float16)},
    "graph": lambda: {
        "num_dets": np.zeros((1, 1), np.int32),
        "det_boxes": np.zeros((1, 9, 4), np.float32),
        "det_scores": np.zeros((1, 9), np.float32),
        "det_classes": np.zeros((1, 9), np.int32),
    },
}
SPOILED: tuple[Callable[[np.ndarray], Any], ...] = (
    lambda array: array[:0],
    lambda array: array[..., :0],
    lambda array: np.concatenate([array] * 2, axis=-1),
    lambda array: array.reshape(-1),
    lambda array: array[None],
    lambda array: array.tolist(),
    lambda array: None,
    lambda array: 0,
    lambda array: "x",
    lambda array: array.astype(object),
    lambda array: array.astype(complex),
    lambda array: array.astype(bool),
    lambda array: array.astype(float if array.dtype.kind == "i" else int),
)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_another_form_are_named(kind: Any) -> None:
    """What a backend of somebody else's may give."""
    backend = Spoiled(dict.clear)
    backend.spec = replace(backend.spec, nms=kind)
    for name in KINDS[kind]():
        for spoil in SPOILED:
            outputs = KINDS[kind]()
            outputs[name] = spoil(outputs[name])
            backend.run = lambda images, outputs=outputs: outputs  # type: ignore[method-assign]
            with pytest.raises(BackendError, match=r"^candidates gave .* of tiny for 1 images: expected"):
                Detector(backend)(FRAME)
    for outputs in (None, [], {}, {"boxes": np.zeros((1, 240, 4), np.float32)}):
        backend.run = lambda images, outputs=outputs: outputs  # type: ignore[method-assign]
        with pytest.raises(BackendError, match=r"^candidates gave"):
            Detector(backend)(FRAME)
    good = KINDS[kind]()
    backend.run = lambda images: good  # type: ignore[method-assign]
    if kind != "raw":
        assert len(Detector(backend)(FRAME)) == 0
