"""A GStreamer pipeline in a process of its own, seen from the camera."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from gfl_edge.errors import OutputError
from gfl_edge.media.stream_child import OPEN_SECONDS, STALL_SECONDS
from gfl_edge.ops.preprocess import Image
from gfl_edge.redact import redact

_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gfl_edge.media.stream_child import main; main()"
_SAID = re.compile(r"GStreamer(?: warning| error)?: (.*)")
_REPORTED = re.compile(r"module (\S+) reported: (.*)")
_FAILED = re.compile(r"reported: |Error pushing buffer")
# Of what is wrong with the text of a pipeline, or with what it is made of, and stays so
_BROKEN = re.compile(r"opening writer pipeline|cannot find appsrc|does not support this file type")
_VAGUE = re.compile(r"state change failed|pushing buffer|cannot put pipeline|Cannot send EOS|No source in")
# Debian's packages of the elements that are in none of the usual ones
PACKAGE_OF = {
    "x264enc": "gstreamer1.0-plugins-ugly",
    "rtspclientsink": "gstreamer1.0-rtsp",
    "h264parse": "gstreamer1.0-plugins-bad",
    "mpegtsmux": "gstreamer1.0-plugins-bad",
    "srtsink": "gstreamer1.0-plugins-bad",
}
CLEARER = {
    "does not support this file type": "GStreamer cannot read it as a pipeline. Try it with gst-launch-1.0, with "
    "videotestsrc in place of appsrc",
    "cannot find appsrc": "OpenCV finds no appsrc in it: give that no name of its own, and link it to a sink",
    "Internal data stream error": "its elements do not fit each other or the frames, such as in size or format. Try it "
    "with gst-launch-1.0, with videotestsrc in place of appsrc",
}


class BrokenPipelineError(OutputError):
    """A pipeline that cannot work: another attempt is in vain."""


class PipelineProcess:
    """Runs a pipeline that takes frames by ``appsrc``. To be started before the first.

    Args:
        finish_seconds: in which it has to write what it holds at the end, and an index.
    """

    def __init__(self, finish_seconds: int) -> None:
        self._finish_seconds = finish_seconds
        self._lines: deque[str] = deque(maxlen=50)
        self._failed = False
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(sys.path, allow_nan=False)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OPENCV_LOG_LEVEL": "WARNING", "LC_ALL": "C.UTF-8"},
            start_new_session=True,  # Ctrl-C at the terminal is not for it
        )
        self._listener = threading.Thread(target=self._listen, name="gfl_edge pipeline's messages", daemon=True)
        self._listener.start()

    def start(self, pipeline: str, fps: float, size_hw: tuple[int, int]) -> None:
        """Start the pipeline.

        Args:
            pipeline: for ``gst_parse_launch``; never shown, as it may hold a password.
            fps: frames per second that it is told.
            size_hw: of all frames.

        Raises:
            BrokenPipelineError: it has no ``appsrc``, or an element that is not installed, or is no pipeline.
            OutputError: it does not start, such as for a folder or a server that is not there.
        """
        head = {"pipeline": pipeline, "fps": fps, "size_wh": size_hw[::-1], "finish_seconds": self._finish_seconds}
        try:
            self._put(f"{json.dumps(head, allow_nan=False)}\n".encode())
            opened = self._output.readline() == b"open\n"
        except (OSError, ValueError):  # ValueError: another thread killed it
            opened = False
        if not opened:
            raise self._why(f"did not start within {OPEN_SECONDS} s")

    @property
    def _input(self) -> Any:
        return self._process.stdin

    @property
    def _output(self) -> Any:
        return self._process.stdout

    def write(self, frame: Image) -> None:
        """Hand a frame over, uint8 ``[h, w, 3]`` BGR of the size that was given; waits until the pipeline takes it.

        Raises:
            OutputError: the pipeline reported an error, ended, or took no frame for ``STALL_SECONDS``.
        """
        if self._failed:
            self.kill()
            raise self._why("failed")
        try:
            self._put(frame.tobytes())
        except (OSError, ValueError):
            raise self._why(f"took no frame for {STALL_SECONDS} s") from None

    def _put(self, content: bytes) -> None:
        self._input.write(content)
        self._input.flush()

    def finish(self) -> None:
        """Let the pipeline write what it holds, and end it.

        Raises:
            OutputError: it did not.
        """
        try:
            self._input.close()
            self._process.wait(self._finish_seconds + 5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
        self.kill()  # which also waits for its last messages
        if self._process.returncode or self._failed:
            raise self._why(f"was not finished within {self._finish_seconds} s")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._listener.join(1)
        for pipe in (self._input, self._output):
            try:
                pipe.close()
            except OSError:  # what was still to be written
                continue

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as messages:
            for line in messages:
                text = line.decode(errors="replace").strip()
                self._lines.append(text)
                self._failed = self._failed or bool(_FAILED.search(text))

    def _why(self, overdue: str) -> OutputError:
        """The error that says what ended the process, which has ended or does so now; ``overdue`` if its alarm did."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        said = [found[1] for line in self._lines if (found := _SAID.search(line))]
        clear = [text for text in said if not _VAGUE.search(text)]
        if clear:
            reported = _REPORTED.search(clear[-1])
            reason = f"{reported[1]} reported: {reported[2]}" if reported else clear[-1]
        elif code == -signal.SIGALRM:
            reason = f"it {overdue}"
        elif said:
            reason = said[-1]
        else:
            reason = " ".join(list(self._lines)[-1:]) or f"its process ended with status {code}"
        reason = next((clearer for text, clearer in CLEARER.items() if text in reason), reason)
        broken = any(_BROKEN.search(text) for text in said)
        package = next((f" (sudo apt install {of})" for name, of in PACKAGE_OF.items() if f'"{name}"' in reason), "")
        return (BrokenPipelineError if broken else OutputError)(redact(reason).rstrip(".") + package)
