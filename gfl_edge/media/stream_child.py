"""The process that feeds a GStreamer pipeline: OpenCV does not say when one fails, and waits for ever when one hangs.

    python -c "from gfl_edge.media.stream_child import main; main()"

On stdin comes a line of JSON (``pipeline``, ``fps``, ``size_wh``, ``finish_seconds``), then frames, uint8 ``[h, w, 3]``
BGR, until the end.
On stdout it says "open" once it is. What OpenCV reports on stderr is the reason where it fails. Whatever takes too
long, the alarm ends, which the kernel sends, whoever holds Python's lock.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import numpy as np

OPEN_SECONDS = 20  # in which a pipeline has to start
STALL_SECONDS = 10  # in which it has to take a frame


def main() -> None:
    """Feed the pipeline that stdin names; exits with 1 if it does not open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the camera, which finishes the pipeline
    frames, said = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # NVIDIA's encoders print to stdout
    head = json.loads(frames.readline())
    signal.alarm(OPEN_SECONDS)
    import cv2

    width, height = head["size_wh"]
    writer = cv2.VideoWriter(head["pipeline"], cv2.CAP_GSTREAMER, 0, head["fps"], (width, height))
    if not writer.isOpened():
        sys.exit(1)
    signal.alarm(0)
    os.write(said, b"open\n")
    while len(content := frames.read(3 * height * width)) == 3 * height * width:
        signal.alarm(STALL_SECONDS)
        writer.write(np.frombuffer(content, np.uint8).reshape(height, width, 3))
        signal.alarm(0)
    signal.alarm(head["finish_seconds"])
    writer.release()
    sys.stderr.flush()
    os._exit(0)  # GStreamer's threads may hang at the end
