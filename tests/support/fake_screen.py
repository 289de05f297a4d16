"""OpenCV's windows without a screen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfl_edge.media import sinks


class Screen:
    """Stands in for OpenCV's windows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: list[int], closed_after: int = 1000) -> None:
        self.keys, self.closed_after = keys, closed_after
        self.shown: list[np.ndarray] = []
        self.destroyed = 0
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(sinks, "window_toolkit", lambda: "QT5")  # also where OpenCV is headless
        monkeypatch.setattr(sinks, "_window_opens", lambda: True)
        for name in ("namedWindow", "resizeWindow", "imshow", "waitKey", "getWindowProperty", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, getattr(self, name))

    def namedWindow(self, title: str, flags: int) -> None:  # noqa: N802
        pass

    def resizeWindow(self, title: str, width: int, height: int) -> None:  # noqa: N802
        self.size = (width, height)

    def imshow(self, title: str, image: np.ndarray) -> None:
        self.shown.append(image)

    def waitKey(self, ms: int) -> int:  # noqa: N802
        return self.keys[len(self.shown) - 1] if len(self.shown) <= len(self.keys) else -1

    def getWindowProperty(self, title: str, prop: int) -> float:  # noqa: N802
        return 0.0 if len(self.shown) >= self.closed_after else 1.0

    def destroyAllWindows(self) -> None:  # noqa: N802
        self.destroyed += 1
