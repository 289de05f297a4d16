"""In place of a Jetson: OpenCV with GStreamer, whose pipelines give the frames of a file as NV12."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import pytest

from gfl_edge.media import hardware


def nv12(image: np.ndarray) -> np.ndarray:
    """An image of even sides as planes, uint8 ``[h * 3 / 2, w]``."""
    height, width = image.shape[:2]
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    u, v = planes[height:].reshape(2, -1)
    return np.concatenate([planes[:height].ravel(), np.stack([u, v], 1).ravel()]).reshape(-1, width)


class Jetson:
    """Opens what OpenCV opens, and by GStreamer whatever ``video`` is.

    Attributes:
        video: file whose frames pipelines give; None: they fail.
        fourcc: of files.
        works: words of pipelines that open; the others fail.
        frames: that a pipeline gives before it stops; None: all.
        change: what the decoder makes of an image.
        hangs: set to let go of a pipeline that never opens; None: none does.
        pipelines: that were opened.
        plain: arguments of the others.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.video: str | None = None
        self.fourcc, self.works, self.frames = "avc1", "", None
        self.change = lambda image: image
        self.hangs: threading.Event | None = None
        self.pipelines: list[str] = []
        self.plain: list[tuple[Any, ...]] = []
        self._open = cv2.VideoCapture
        monkeypatch.setattr(cv2, "VideoCapture", self._opened)
        monkeypatch.setattr(hardware, "is_jetson", lambda: True)
        monkeypatch.setattr(hardware, "why_no_gstreamer", lambda: "")
        monkeypatch.delenv(hardware.VARIABLE, raising=False)

    def _opened(self, *arguments: Any) -> Any:
        if len(arguments) > 1 and arguments[1] == cv2.CAP_GSTREAMER:
            self.pipelines.append(arguments[0])
            if self.hangs is not None:
                assert self.hangs.wait(10)
            fails = self.video is None or self.works not in arguments[0]
            return Planes(self, self._open("" if fails else self.video))
        self.plain.append(arguments)
        source = self.video if self.video and "://" in str(arguments[0]) else arguments[0]
        return File(self, self._open(source, *arguments[1:2]))


class File:
    def __init__(self, jetson: Jetson, capture: Any) -> None:
        self._jetson, self._capture = jetson, capture

    def get(self, prop: int) -> float:
        if prop == cv2.CAP_PROP_FOURCC:
            return float(int.from_bytes(self._jetson.fourcc.encode().ljust(4, b"\0"), "little"))
        return self._capture.get(prop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)


class Planes(File):
    def __init__(self, jetson: Jetson, capture: Any) -> None:
        super().__init__(jetson, capture)
        self._left = jetson.frames

    def read(self) -> tuple[bool, np.ndarray | None]:
        read, image = self._capture.read()
        if self._left is not None:
            self._left -= 1
            read = read and self._left >= 0
        return (True, nv12(self._jetson.change(image))) if read else (False, None)

    def get(self, prop: int) -> float:
        return -1.0 if prop == cv2.CAP_PROP_FRAME_COUNT else super().get(prop)
