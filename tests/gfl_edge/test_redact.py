"""Passwords of cameras are shown nowhere, in whatever form they are given."""

from __future__ import annotations

import random
import string
import time
from urllib.parse import quote

import pytest

from gfl_edge.redact import MAX_SHOWN, redact, shown_source


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://user:p@ss#w/x@10.0.0.1/s", "rtsp://user:***@10.0.0.1/s"),
        ("rtsp:/user:s3cret@10.0.0.1/s", "rtsp:/user:***@10.0.0.1/s"),
        ("rtsp//user:s3cret@10.0.0.1/s", "rtsp//user:***@10.0.0.1/s"),
        ("user:s3cret@10.0.0.1:554/s", "user:***@10.0.0.1:554/s"),
        ("rtsp://user:s3cret", "rtsp://user:***"),
        ("rtsp://user:s3cret:10.0.0.1/s", "rtsp://user:***"),
        ("rtsp://a-key@10.0.0.1/s?bypass=1", "rtsp://***@10.0.0.1/s?bypass=1"),
        ("rtsp%3A%2F%2Fu%3As3cret%40h", "rtsp%3A%2F%2Fu%3A***%40h"),
        ("http://10.0.0.1/v?user=a&pwd=s3cret&n=1", "http://10.0.0.1/v?user=a&pwd=***&n=1"),
        ("http://10.0.0.1/v?api_key=s3cret", "http://10.0.0.1/v?api_key=***"),
        ("http://10.0.0.1/v?u=admin&p=s3cret", "http://10.0.0.1/v?***"),
        ("http://10.0.0.1/cgi?loginuse=admin&loginpas=s3cret", "http://10.0.0.1/cgi?***&loginpas=***"),
        ("http://h/?url=rtsp%3A%2F%2Fu%3As3cret%40h", "http://***"),
        ("srt://h:9000?passphrase=s3cret&mode=caller", "srt://h:9000?passphrase=***&mode=caller"),
        (
            "rtsp://h:554/user=admin_password=s3_cr@et_channel=1_stream=0.sdp?real_stream",
            "rtsp://h:***_channel=1_stream=0.sdp?real_stream",
        ),
        (
            "rtsp://h/user=admin&password=s3cr&et&channel=1&stream=0.sdp",
            "rtsp://h/user=admin&password=***&channel=1&stream=0.sdp",
        ),
        ("rtsps://10.0.0.1:7441/AbCdEf0123456789?enableSrtp", "rtsps://10.0.0.1:7441/***"),
        ("rtmp://a.example/live2/abcd-efgh-1234", "rtmp://a.example/live2/***"),
        (
            "rtspsrc user-id=a user-pw=s3!cret location=rtsp://c/s ! appsink",
            "rtspsrc user-id=a user-pw=*** location=rtsp://c/s ! appsink",
        ),
        ("rtspsrc user-pw = 's3 cret' ! appsink", "rtspsrc user-pw = *** ! appsink"),
        ('rtspsrc user-pw=(string)"s3 cret" ! appsink', "rtspsrc user-pw=(string)*** ! appsink"),
        ('rtspsrc location="rtsp://u:a b@c/s" ! appsink', 'rtspsrc location="rtsp://u:***@c/s" ! appsink'),
    ],
)
def test_secrets_are_hidden(source: str, shown: str) -> None:
    assert shown_source(source) == shown


@pytest.mark.parametrize(
    "source",
    [
        *("0", "/dev/video0", "clips/day 1:2.mp4", "runs/lr=0.1/clip.mp4", "photo@2x.png", r"C:\clips\a@b.mp4"),
        *("rtsp://h:554/Streaming/Channels/101", "rtsp://h/h264Preview_01_main", "rtsp://[fe80::1]:554/s"),
        *("udp://@239.0.0.1:1234", "http://10.0.0.1:8080/video", "videotestsrc ! video/x-raw,width=640 ! appsink"),
    ],
)
def test_what_is_no_secret_is_shown(source: str) -> None:
    assert shown_source(source) == source


FORMS = (
    *("rtsp://u:{}@h:554/s", "rtsp:/u:{}@h/s", "rtps://u:{}@h", "rtsp//u:{}@h", "rtsp;//u:{}@h", "rtsp:u:{}@h"),
    *("u:{}@h:554/s", "//u:{}@h", "http://h/v?user=a&pwd={}", "http://h/v?password={}&channel=1", "http://h?auth={}"),
    *("http://h/v?passwd={}&n=1", "http://h/v?token={}", "http://h/x?key={}", "srt://h:9?mode=caller&passphrase={}"),
    *("rtsp://h:554/user=admin_password={}_channel=1_stream=0.sdp?real_stream", "http://h/?loginuse=a&loginpas={}"),
    *("rtsp://h:554/user=admin&password={}&channel=1&stream=0.sdp?", "http://h/?u=a&p={}", "HTTPS://H/?PWD={}"),
)
QUOTED = (
    *('rtspsrc location=rtsp://h/s user-pw="{}" latency=0 ! appsink', "rtspsrc user-pw='{}' ! appsink"),
    *('rtspsrc location="rtsp://u:{}@h/s" ! appsink', 'souphttpsrc location="http://h/?pwd={}" ! appsink'),
    *('srtsrc uri="srt://h:9?passphrase={}" ! appsink', 'srtsrc passphrase="{}" ! appsink'),
)
BARE = ("rtspsrc user-pw={} ! appsink", "rtspsrc location=rtsp://u:{}@h/s ! appsink", "srtsrc passphrase={} ! appsink")


@pytest.mark.parametrize(
    ("forms", "special"),
    [(FORMS, "@:/?&=#%!;,'\"_ \\.-+*[]{}<>|~^$"), (QUOTED, "@:/?&=#%!;,_ .-+*$"), (BARE, "@:/?&=#%!;,_.-+*$'\"")],
    ids=["address", "quoted", "bare"],
)
def test_no_part_of_any_password_is_shown(forms: tuple[str, ...], special: str) -> None:
    """No four characters of it, whatever it is made of."""
    choose = random.Random(0)
    for form in forms:
        for _ in range(60):
            alphabet = string.ascii_letters + string.digits + special * choose.choice((0, 1, 3))
            secret = f"Zq{''.join(choose.choices(alphabet, k=choose.randint(4, 14)))}Qz"
            given = quote(secret, safe="") if choose.random() < 0.2 else secret
            text = form.replace("{}", given)
            shown = [shown_source(text)]
            if not set(given) & set(" '\""):  # in a sentence nothing says where such an address would end
                shown.append(redact(f"camera: error: {text} is not there"))
            parts = [given[i : i + 4] for i in range(len(given) - 3)]
            assert not [part for part in parts if part in "\n".join(shown)], text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unrecognized arguments: admin:s3cret@10.0.0.1", "unrecognized arguments: admin:***@10.0.0.1"),
        ("rtsp://u:s3cret@h/s: it dropped. Don't", "rtsp://u:***@h/s: it dropped. Don't"),
        ("source 'rtsp://u:s3 cret@h/s' is bad", "source 'rtsp://u:***@h/s' is bad"),
        ("Authorization: Basic s3cret", "Authorization: ***"),
        (
            'Leave these out with on_bad = "drop" (--on-bad drop)',
            'Leave these out with on_bad = "drop" (--on-bad drop)',
        ),
        ("rtsp://h:554/s dropped after 3 frames: 5 m", "rtsp://h:554/s dropped after 3 frames: 5 m"),
    ],
)
def test_messages(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_control_characters_become_visible() -> None:
    assert shown_source("rtsp://h\x1b[31m/\n\u202ex") == r"rtsp://h\x1b[31m/\x0a\x202ex"


@pytest.mark.parametrize(
    "long", ["a", "a:", "pass", "'", "key='", "&x=1", "/=?", " a=", "http://", "user:@", "rtsp://u:a/", "@"]
)
def test_long_texts_take_no_time(long: str) -> None:
    start = time.perf_counter()
    for text in (long * 4000, long * 500_000):
        assert len(shown_source(text)) <= MAX_SHOWN
        redact(text)
    assert time.perf_counter() - start < 5
