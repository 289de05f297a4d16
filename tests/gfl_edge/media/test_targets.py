"""What an output of video is taken for, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfl_edge.errors import InputError
from gfl_edge.media import targets
from gfl_edge.media.gstreamer import quoted
from gfl_edge.media.targets import StreamTarget, split_user, target_of


@pytest.fixture(autouse=True)
def _gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "why_no_gstreamer", lambda: "")


def stream(output: str, index: int = 0, sources: int = 1) -> StreamTarget:
    target = target_of(output, index, sources)
    assert isinstance(target, StreamTarget)
    return target


@pytest.mark.parametrize("output", ["out.mp4", "wow!.mp4", "appsrc.mp4", "a/b!c.avi", Path("appsrc ! fakesink")])
def test_files(output: str | Path) -> None:
    assert target_of(output) == Path(output)


def test_files_of_several_sources_have_their_numbers() -> None:
    assert target_of("a/out.mp4", 1, 2) == Path("a/out-1.mp4")
    assert target_of("{source}/out.mp4", 1, 2) == Path("1/out.mp4")
    assert target_of("{source}.mp4", 0, 1) == Path("0.mp4")


@pytest.mark.parametrize(
    ("pipeline", "repeats"),
    [
        ("appsrc ! videoconvert ! x264enc ! mp4mux ! filesink location=o.mp4", False),
        ("appsrc!videoconvert!x264enc!flvmux!rtmpsink location=rtmp://a/b", True),
        ("  appsrc ! x264enc ! rtspclientsink location='rtsp://a/b'", True),
        ("appsrc ! tee name=t t. ! queue ! fakesink t. ! queue ! splitmuxsink location=a%d.mp4", False),
        ("appsrc ! fakesink", True),
    ],
)
def test_pipelines_go_as_they_are_and_files_are_not_written_over(pipeline: str, repeats: bool) -> None:
    target = stream(pipeline)
    assert (target.pipeline, target.repeats, target.even) == (pipeline.strip(), repeats, False)


@pytest.mark.parametrize(
    ("address", "end"),
    [
        ("rtsp://host:8554/live", '! rtspclientsink protocols=tcp location="rtsp://host:8554/live"'),
        (
            "rtsps://me:se%40cret@host/live",
            '! rtspclientsink protocols=tcp location="rtsps://host/live" user-id="me" user-pw="se@cret"',
        ),
        ("srt://host:9000?mode=caller", '! srtsink wait-for-connection=false uri="srt://host:9000?mode=caller"'),
        ("udp://239.1.2.3:5000", '! udpsink host="239.1.2.3" port=5000'),
        ("UDP://[::1]:5000", '! udpsink host="::1" port=5000'),
        ('rtsp://h/a" ! filesink location="b', 'location="rtsp://h/a\\" ! filesink location=\\"b"'),
    ],
)
def test_addresses_become_pipelines(address: str, end: str) -> None:
    target = stream(address)
    assert target.pipeline.startswith("appsrc ! videoconvert ! video/x-raw,format=I420 ! x264enc ")
    assert target.pipeline.endswith(end)
    assert target.repeats
    assert target.even


@pytest.mark.parametrize(
    ("output", "sources", "message"),
    [
        ("videotestsrc ! x264enc ! filesink location=a.mp4", 1, "has no appsrc"),
        ("myappsrc ! fakesink", 1, "has no appsrc"),
        ("rtmp://host/app/key", 1, r"expected a file .mp4 or .avi, an address \(rtsp://"),
        ("http://host/live", 1, "cannot be written to"),
        ("udp://host", 1, "expected host and port"),
        ("udp://host:99999999", 1, "expected host and port"),
        ("rtsp://host/live", 2, "put {source} where it is to have their number"),
        ("appsrc ! fakesink", 2, "one output for 2 sources"),
    ],
)
def test_what_cannot_be_an_output(output: str, sources: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        target_of(output, 0, sources)


def test_sources_have_their_number_in_an_address() -> None:
    assert "live-1" in stream("rtsp://host/live-{source}", 1, 2).pipeline


def test_without_gstreamer_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(
        InputError, match=r"rtsp://me:\*\*\*@h/l needs GStreamer, and OpenCV .* python3-opencv"
    ) as raised:
        target_of("rtsp://me:secret@h/l")
    assert "secret" not in str(raised.value)


def test_passwords_are_shown_nowhere() -> None:
    pipeline = "appsrc ! x264enc ! rtspclientsink location=rtsp://u:hush@h/l user-id=u user-pw=hush"
    for target in (stream(pipeline), stream("rtsp://u:hush@h/l")):
        assert "hush" not in f"{target.name} {target!r}"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("rtsp://h/a", ("rtsp://h/a", "", "")),
        ("rtsp://h:554/a@b", ("rtsp://h:554/a@b", "", "")),
        ("rtsp://u:p@h/a", ("rtsp://h/a", "u", "p")),
        ("rtsp://u@h", ("rtsp://h", "u", "")),
        ("rtsp://u:p@q@h:1/a", ("rtsp://h:1/a", "u", "p@q")),
        ("rtsp://u:p/q@h/a", ("rtsp://h/a", "u", "p/q")),
        ("rtsp://u%3Ax:p%2F@h/a", ("rtsp://h/a", "u:x", "p/")),
    ],
)
def test_user_and_password_of_an_address(url: str, parts: tuple[str, str, str]) -> None:
    assert split_user(url) == parts


def test_quotes_and_backslashes_stay_inside_a_value() -> None:
    assert quoted('a "b" \\ ! c') == '"a \\"b\\" \\\\ ! c"'
