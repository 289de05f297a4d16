"""Runs in a Python whose OpenCV has GStreamer, and tries one thing for real: python gstreamer_real.py WHAT.

Prints WHAT where it holds, and fails where it does not. Servers are on loopback.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.faults.rtsp_camera import RtspServer
from gfl_edge.camera import run_camera
from gfl_edge.errors import InputError, OutputError
from gfl_edge.media import hardware
from gfl_edge.media.opening import open_source
from gfl_edge.media.streams import StreamSink
from gfl_edge.media.targets import target_of
from gfl_edge.ops.preprocess import Nv12Frame
from tests.support.fake_detector import FakeDetector
from tests.support.fake_sources import FakeSource

FRAMES = 30
SOFTWARE = {"H.264": "h264parse ! avdec_h264", "H.265": "h265parse ! avdec_h265", "VP9": "vp9dec", "AV1": "av1dec"}
# What nvv4l2decoder takes: start codes and whole frames
BYTES = "stream-format=byte-stream,alignment=au"
LOGGED: list[str] = []


class Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        LOGGED.append(record.getMessage())


def images(count: int = FRAMES, hw: tuple[int, int] = (120, 160)) -> list[np.ndarray]:
    """A bright square that moves over gray."""
    made = []
    for index in range(count):
        image = np.full((*hw, 3), 60, np.uint8)
        image[20:60, 4 * index % 100 : 4 * index % 100 + 30] = 40, 160, 220
        made.append(image)
    return made


def write(output: str, frames: list[np.ndarray], pause_s: float = 0.0, **settings: Any) -> StreamSink:
    with StreamSink(target_of(output), 25.0, **settings) as sink:
        for index, image in enumerate(frames):
            sink.expect(image)
            sink.write(image, index / 25)
            time.sleep(pause_s)
    return sink


def read(path: Path | str, *backend: int) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path), *backend), []
    while (answer := capture.read())[0]:
        found.append(answer[1])
    return found


def assert_like(found: list[np.ndarray], expected: list[np.ndarray], levels: float = 6.0) -> None:
    assert len(found) == len(expected), f"{len(found)} frames of {len(expected)}"
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).mean() < levels


def refused(kind: type[Exception], call: Callable[..., object], *words: Any, **settings: Any) -> str:
    """What the error says that the call has to raise."""
    try:
        call(*words, **settings)
    except kind as error:
        return str(error)
    raise AssertionError(f"{words} raised nothing")


def files(folder: Path) -> None:
    path = folder / "a.mp4"
    sink = write(f"appsrc ! videoconvert ! x264enc ! mp4mux ! filesink location={path}", images())
    assert (sink.dropped, sink.error) == (0, None)
    assert_like(read(path), images())
    path = folder / "b.avi"
    write(f"appsrc ! videoconvert ! jpegenc ! avimux ! filesink location={path}", images(5, (121, 163)))
    assert_like(read(path), [image[:, :160] for image in images(5, (121, 163))])


def broken(folder: Path) -> None:
    for output, said in {
        "appsrc ! nosuch ! fakesink": 'no element "nosuch"',
        "appsrc ! fakesink ! !": "Try it with gst-launch-1.0",
        "appsrc name=mine ! fakesink": "OpenCV finds no appsrc in it",
        f"appsrc ! jpegenc ! filesink location={folder}/none/a.jpg": "Could not open file",
    }.items():
        message = refused(InputError, write, output, images(3))
        assert "cannot be started: " in message
        assert said in message, message
    sink = write("appsrc ! video/x-raw,width=99,height=99 ! fakesink", images(300))
    assert "its elements do not fit each other or the frames" in str(sink.error)
    sink = write("appsrc ! identity sleep-time=30000000 ! fakesink name=filesink", images(20))
    assert "took no frame for 10 s" in str(sink.error), sink.error


def udp(folder: Path) -> None:
    received: list[np.ndarray] = []
    start = "udpsrc port=18833 ! tsdemux ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=BGR ! appsink"
    reader = threading.Thread(target=_receive, args=(start, received), daemon=True)
    reader.start()
    write("udp://127.0.0.1:18833", images(100), 0.04, live=True)
    assert len(received) > 10, len(received)
    assert received[-1].shape == (120, 160, 3)


def srt(folder: Path) -> None:
    received: list[np.ndarray] = []
    start = (
        "srtsrc uri=srt://127.0.0.1:18834?mode=listener ! tsdemux ! h264parse ! avdec_h264 ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink"
    )
    reader = threading.Thread(target=_receive, args=(start, received), daemon=True)
    reader.start()
    time.sleep(1)
    write("srt://127.0.0.1:18834?mode=caller", images(100), 0.04, live=True, reconnect_seconds=10)
    assert len(received) > 10, len(received)


def _receive(pipeline: str, received: list[np.ndarray]) -> None:
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    while (answer := capture.read())[0]:
        received.append(answer[1])


def rtsp(folder: Path) -> None:
    """A server with a password is switched off and on while the camera runs: no line is lost, and it comes back."""
    os.environ["RECORD_TO"] = str(folder / "a.ts")
    server = RtspServer("admin", "p@ss/word")
    ends = [threading.Timer(4, server.kill), threading.Timer(6, server.start)]
    for end in ends:
        end.start()
    summary = run_camera(
        FakeDetector(),
        FakeSource(count=600, live=True, period_s=0.03, hw=(120, 160)),
        output=f"rtsp://admin:p%40ss%2Fword@127.0.0.1:{server.port}/record",
        json_lines=folder / "a.jsonl",
        reconnect_seconds=30,
    )
    server.kill()
    (source,) = summary.sources
    assert source.output_error is None, source
    assert 20 < source.output_dropped < 500, source
    lines = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    assert len(lines) == summary.frames > 500, summary  # a few are dropped by a machine that is busy
    said = "\n".join(LOGGED) + str(summary)
    assert "failed: " in said
    assert "is back" in said
    assert "p@ss" not in said
    assert "p%40ss" not in said
    assert len(read(folder / "a.ts")) > 100


def rtsp_away(folder: Path) -> None:
    """Nobody there: the camera goes on, and ends where it has nothing else."""
    output = "rtsp://127.0.0.1:9/live"
    lines = folder / "a.jsonl"
    source = FakeSource(count=200, live=True, period_s=0.03)
    summary = run_camera(FakeDetector(), source, output=output, json_lines=lines, reconnect_seconds=2)
    assert "is given up: " in str(summary.sources[0].output_error)
    assert len(lines.read_text().splitlines()) == summary.frames > 150
    source = FakeSource(count=None, live=True, period_s=0.03)
    said = refused(OutputError, run_camera, FakeDetector(), source, output=output, reconnect_seconds=0)
    assert "There is no other output" in said


def decoders(folder: Path) -> None:
    _substitute()
    for name, pipeline in {
        "a.mp4": "x264enc bframes=2 ! mp4mux",
        "b.mkv": "x264enc ! matroskamux",
        "c.ts": "x264enc ! mpegtsmux",
        'd "quoted" ! name.mp4': "x265enc ! h265parse ! mp4mux",
        "e.webm": "vp9enc deadline=1 ! webmmux",
    }.items():
        path = folder / name
        location = str(path).replace('"', '\\"')
        write(f'appsrc ! videoconvert ! {pipeline} ! filesink location="{location}"', images())
        LOGGED.clear()
        with open_source(path) as source:
            frames = list(source)
        assert {type(frame.pixels) for frame in frames} == {Nv12Frame}, (name, LOGGED)
        assert_like([frame.image for frame in frames], read(path), 4)
        assert all(later.time_s > earlier.time_s for earlier, later in itertools.pairwise(frames))
        assert any("is decoded in hardware" in line for line in LOGGED)
    hardware.DECODERS["H.264"] = "h264parse ! nvv4l2decoder"  # which is not here
    with open_source(folder / "a.mp4") as source:
        assert {type(frame.pixels) for frame in source} == {np.ndarray}
    assert "is decoded in software: the hardware decoder does not take it" in LOGGED[-1]


def rtsp_sources(folder: Path) -> None:
    _substitute()
    server = RtspServer("admin", "p@ss/word")
    for codec in ("H.264", "H.265"):
        LOGGED.clear()
        path = codec.lower().replace(".", "")
        with open_source(f"rtsp://admin:p%40ss%2Fword@127.0.0.1:{server.port}/{path}", reconnect_seconds=20) as source:
            frames = []
            for frame in source:
                frames.append(frame)
                if len(frames) == 10 and codec == "H.264":
                    server.kill()
                    server.start()
                if len(frames) == 30:
                    break
        assert {type(frame.pixels) for frame in frames} == {Nv12Frame}
        assert source.reconnects == (codec == "H.264")
        assert f"is decoded in hardware ({codec})" in LOGGED[0], LOGGED
        assert "p%40ss" not in "".join(LOGGED)
    server.kill()


def _substitute() -> None:
    """A machine that is a Jetson except for its decoder."""
    hardware.is_jetson = lambda: True
    for codec, decoder in SOFTWARE.items():
        parser, _, element = decoder.partition(" ! ")
        name = {"H.264": "h264", "H.265": "h265"}.get(codec)
        hardware.DECODERS[codec] = f"{parser} ! video/x-{name},{BYTES} ! {element}" if name else decoder
    hardware.TO_NV12 = "videoconvert ! video/x-raw,format=NV12"


CHECKS = {check.__name__: check for check in (files, broken, udp, srt, rtsp, rtsp_away, decoders, rtsp_sources)}

if __name__ == "__main__":
    logger = logging.getLogger("gfl_edge")
    logger.addHandler(Keep())
    logger.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as made:
        CHECKS[sys.argv[1]](Path(made))
    print(sys.argv[1], flush=True)
    os._exit(0)  # threads that still receive
