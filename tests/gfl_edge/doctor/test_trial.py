"""What gfl-edge doctor tries: it must not say that something works which the commands cannot do."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from gfl_edge.cli import main as cli
from gfl_edge.doctor import trial
from gfl_edge.doctor.findings import Finding
from gfl_edge.errors import BackendError
from gfl_edge.optional import available

cv2 = pytest.importorskip("cv2")
LIBRARIES = [name for name in ("openvino", "onnxruntime") if available(name)]


def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in trial.examine()}


def test_everything_works_here() -> None:
    start = time.process_time()
    findings = found()
    assert set(findings) == {"image", "video .mp4", "video .avi", *(f"detection by {name}" for name in LIBRARIES)}
    assert {finding.status for finding in findings.values()} == {"ok"}, findings
    assert time.process_time() - start < 10  # of all cores, and usually 2


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(trial.tempfile, "tempdir", str(tmp_path))
    trial.examine()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["imdecode", "imencode"])
def test_an_opencv_that_decodes_nothing(monkeypatch: pytest.MonkeyPatch, broken, capsys) -> None:
    """As one whose functions have other names than the commands call."""

    def fail(*_: object) -> None:
        raise AttributeError(f"module 'cv2' has no attribute {broken!r}")

    monkeypatch.setattr(cv2, broken, fail)
    assert found()["image"].status == "problem"
    assert f"AttributeError: module 'cv2' has no attribute '{broken}'" in found()["image"].detail
    assert cli.main(["doctor", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["runs"]


def test_an_opencv_that_writes_no_video(monkeypatch: pytest.MonkeyPatch) -> None:
    class Writer:
        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:  # noqa: N802
            return False

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    monkeypatch.setattr(cv2, "VideoWriter_fourcc", lambda *_: 0, raising=False)
    findings = found()
    assert findings["video .mp4"].status == "problem"
    assert "pip install --force-reinstall" in findings["video .mp4"].remedy
    assert findings["image"].status == "ok"


def test_a_library_that_refuses_the_model(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """As ONNX Runtime does with an opset that is newer than it."""

    def refuse(*_: object, **__: object) -> None:
        raise BackendError("cannot load coco-448: K input\nmore lines")

    monkeypatch.setattr(trial, "Detector", refuse)
    for name in LIBRARIES:
        finding = found()[f"detection by {name}"]
        assert (finding.status, finding.detail) == ("problem", "failed: cannot load coco-448: K input")
        assert finding.remedy == "pip install --upgrade 'gfl-edge[cpu]'"
    assert cli.main(["doctor"]) == 1
    assert "no detector runs here yet" in capsys.readouterr().out


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.optional, "available", lambda module: module == "cv2")
    assert set(found()) == {"image", "video .mp4", "video .avi"}
    monkeypatch.setattr(trial.optional, "available", lambda module: False)
    assert found() == {}


def test_another_image_than_was_written() -> None:
    frame = trial.made_frame()
    with pytest.raises(RuntimeError, match="another image"):
        trial._check_alike(np.full_like(frame, 255), frame)


def test_an_error_without_a_message_is_named() -> None:
    def fail() -> str:
        raise KeyError

    assert trial._tried("x", fail, "y").detail == "failed: KeyError: without a message"
