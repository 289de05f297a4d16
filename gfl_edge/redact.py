"""Addresses and pipelines without their passwords, for everything that is shown, logged or written.

Cameras want user and password in the address, in forms of their own, and people mistype them. So nothing is shown that
may be one: rather is a harmless part hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

HIDDEN = "***"
MAX_SHOWN = 1000  # characters of a source
MAX_READ = 20_000  # characters that are searched: more is no address, and would take long
Span = tuple[int, int]

# What names a secret, as "user-pw", "admin_password", "loginpas" and "X-Api-Key" do
_SECRET = (
    r"(?<!by)pass|pwd|pw(?![a-z])|pas(?![a-z])|secret|token|auth|key|signature|cred|cookie|header|jwt|psk|otp|"
    r"pin(?![a-z])"
)
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
# Of an address's parameters, those that are shown where they hold a plain word; of all others not even the name is sure
_SHOWN_NAME = re.compile(
    r"-?(user(name)?|usr|channel|chn?|cam(era)?|(sub|stream)?type|(real_)?stream|track|profile|mode|transport(mode)?|"
    r"proto(col)?|tcp|udp|res(olution)?|width|height|size|fps|rate|quality|codec|format|video(codec)?|audio|"
    r"compression|bitrate|latency|timeout|port|n|bypass|reconnect_\w+)",
    re.IGNORECASE,
)
_PLAIN_VALUE = re.compile(r"[\w.,@+-]{0,40}")
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]{1,20}(?::[/\\]+|[;.]?[/\\]{2,}|%(?:25)*3A(?:%(?:25)*2F)+))"
_COLON, _AT = re.compile(r":|%(?:25)*3A", re.IGNORECASE), re.compile(r"@|%(?:25)*40", re.IGNORECASE)
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
# Where parameters begin: after "?", or in the path, as in /user=admin_password=xx_channel=1.sdp
_PARAMETERS = re.compile(r"\?|%(?:25)*3F|[/\\](?=[^/\\?]*=)|\A(?=[^/\\?]*=)", re.IGNORECASE)
_BETWEEN = re.compile(r"[&;?#]|_(?=[A-Za-z]+=)")
# Path and stream names that let in whoever knows them
_RANDOM_PART = re.compile(r"(?<=[/\\])(?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{16,}(?=[/\\?#]|\Z)", re.IGNORECASE)
_STREAM_KEY = re.compile(r"\Artmp\w*:[/\\]+[^/\\]+[/\\]+[^/\\]+[/\\]+([^?#]+)", re.IGNORECASE)
# A setting in a pipeline or text, its value in quotes, even those that are never closed, or up to a space
_SETTING = re.compile(
    rf"[\w.-]{{0,40}}(?:{_SECRET})[\w.-]{{0,40}}[\"']?\s*(?:=|%3D)\s*(?:\(\s*\w+\s*\)\s*)?"
    r"(\\?\"(?:\\.|[^\"\\])*(?:\"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z)|(?:\\.|[^\s\\])+)"
    r"|(?:Authorization|password|passwd)\\?[\"']?\s*:\s*([^\n]+)",
    re.IGNORECASE | re.DOTALL,
)
_IN_TEXT = re.compile(
    rf"([\"']){_SCHEME}(?:\\.|(?!\1).)*|{_SCHEME}(?:\\.|\S)*|[^\s\"':]{{1,200}}:\S{{0,2000}}@", re.DOTALL
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff]")


def shown_source(source: object) -> str:
    """A camera number, path, address or pipeline as it may be shown: without secrets, control characters as escapes."""
    text = str(source).strip()
    if len(text) > MAX_READ:
        return f"{HIDDEN} ({len(text)} characters)"
    is_pipeline = re.match(r"[\w(][\w()/.,=-]*[\s!]", text) and re.search(r"!|\s[\w-]+\s*=", text)
    hidden = redact(text) if is_pipeline else _hide(text, _address(text))
    visible = _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", hidden)
    return visible if len(visible) <= MAX_SHOWN else f"{visible[: MAX_SHOWN - 3]}..."


def redact(text: str) -> str:
    """Text that may hold addresses or settings anywhere, such as a message or a pipeline, without their secrets."""
    if len(text) > MAX_READ:
        return redact(text[: text.rfind(" ", 0, MAX_READ) + 1]) + "..."
    spans = [found.span(1 if found[1] is not None else 2) for found in _SETTING.finditer(text)]
    for found in _IN_TEXT.finditer(text):
        # An address in quotes, or up to a space without what ends a sentence
        start = found.start() + bool(found[1])
        address = text[start : found.end()] if found[1] else found[0].rstrip("\"').,;:")
        spans += [(start + first, start + last) for first, last in _address(address)]
    return _hide(text, spans)


def _hide(text: str, spans: Iterable[Span]) -> str:
    parts: list[str] = []
    shown_to = 0
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if not parts or text[shown_to:start].strip("&;?#"):
            parts += [text[shown_to:start], HIDDEN]
        shown_to = max(shown_to, end)
    return "".join([*parts, text[shown_to:]])


def _address(text: str) -> Iterator[Span]:
    """What has to be hidden of an address, or of a path."""
    scheme = re.match(_SCHEME, text)
    start = scheme.end() if scheme else 0
    yield from _user_info(text, start, is_url=scheme is not None)
    yield from _parameters(text, start, is_url=scheme is not None)
    if scheme:
        yield from (found.span() for found in _RANDOM_PART.finditer(text, start))
        if key := _STREAM_KEY.match(text):
            yield key.span(1)


def _user_info(text: str, start: int, *, is_url: bool) -> Iterator[Span]:
    """From the first colon to the last @, as both may be in a password; where there is no @, what is no port."""
    ats = list(_AT.finditer(text, start))
    end = ats[-1].start() if ats else len(text)
    colon = _COLON.search(text, start, end)
    if ats and colon and not re.match(r"[A-Za-z]:[\\/]", text):
        is_user = not (is_url and re.search(r"[/\\?&=]", text[start : colon.start()]))
        yield (colon.end() if is_user else start), end
    elif ats and is_url and not re.search(r"[/\\]", text[start:end]):
        yield start, end  # a user without a password is a key
    elif not ats and is_url:
        host = re.split(r"[/\\?]", text[start:], maxsplit=1)[0]
        if colon and not _HOST.fullmatch(host):
            yield colon.end(), end


def _parameters(text: str, start: int, *, is_url: bool) -> Iterator[Span]:
    first = _PARAMETERS.search(text, start)
    if first is None:
        return
    at = first.end()
    for between in [*_BETWEEN.finditer(text, at), None]:
        if between and between[0] == "_" and "=" not in text[at : between.start()]:
            continue  # api_key=...
        end = between.start() if between else len(text)
        name, equals, value = (unquote(part) for part in text[at:end].partition("="))
        if _SECRET_NAME.search(name):
            yield at + text[at:end].find("=") + 1 if equals else at, end
        elif is_url and not (_SHOWN_NAME.fullmatch(name) and _PLAIN_VALUE.fullmatch(value)):
            yield at, end
        at = between.end() if between else end
