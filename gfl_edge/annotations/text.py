"""Text files in the encodings that people's tools write them in."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from gfl_edge.errors import InputError
from gfl_edge.files import read_regular

# By the bytes at the start of a file; those of UTF-32 begin as those of UTF-16, so they come first
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What is written under the name of an older encoding is often of the newer one, which contains it, as browsers know
NEWER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
BYTE_ORDER_MARK = "\ufeff"
_DECLARED = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']""")


def read_text(path: str | Path, error: type[InputError] = InputError, max_bytes: int | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 as their byte order mark says; the mark is left out.

    Args:
        path: the file.
        error: what is raised.
        max_bytes: that it may have; None: any number.

    Raises:
        InputError: it cannot be read, is too large, or is of another encoding; names the line.
    """
    return decode(_content(path, error, max_bytes), str(path), error)


def read_lines(path: str | Path, error: type[InputError] = InputError, max_bytes: int | None = None) -> list[str]:
    """The lines of :func:`read_text` without blanks around them; empty ones only where others follow."""
    text = read_text(path, error, max_bytes)
    # Where files were joined, byte order marks stand in the middle
    lines = [line.strip().lstrip(BYTE_ORDER_MARK).lstrip() for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_xml_text(path: str | Path, error: type[InputError] = InputError) -> str:
    """The text of an XML file in the encoding that it declares; without a declaration as :func:`read_text`.

    Python's XML parser by itself knows no encodings of several bytes per character, such as GB 2312 and Shift JIS.
    """
    content = _content(path, error)
    declared = _DECLARED.match(content)
    if declared is None:
        return decode(content, str(path), error)
    name = declared[1].decode().lower()
    if name.startswith(("utf-16", "utf-32", "utf16", "utf32", "ucs-")):  # the declaration itself was read byte by byte
        return decode(content, str(path), error)
    try:
        return decode(content, str(path), error, NEWER.get(name, name))
    except LookupError:
        raise error(f"{path} declares the encoding {name!r}, which Python does not know. Save it as UTF-8") from None


def decode(content: bytes, name: str, error: type[InputError] = InputError, encoding: str = "utf-8") -> str:
    """The text of a file's content, without a byte order mark.

    Args:
        content: all of the file.
        name: of the file, for messages.
        error: what is raised.
        encoding: where there is no mark.

    Raises:
        InputError: the content is of another encoding, or no text.
        LookupError: there is no such encoding.
    """
    for mark, marked in MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], marked
            break
    else:
        if b"\0" in content[:4]:  # text begins with ASCII in nearly all files, of which each second byte is then 0
            encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(encoding)
    except UnicodeError as reason:
        start = getattr(reason, "start", 0)
        line = content[:start].decode(encoding, "ignore").count("\n") + 1
        found = content[start : start + 1].hex()
        raise error(
            f"{name}, line {line}: the byte 0x{found} is not {encoding.upper()}. Save the file as UTF-8"
        ) from reason
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise error(f"{name}, line {line}: there is a zero byte, so this is no text file. Expected text in UTF-8")
    return text


def _content(path: str | Path, error: type[InputError], max_bytes: int | None = None) -> bytes:
    try:
        return read_regular(path, max_bytes)
    except (OSError, ValueError) as reason:
        raise error(f"{path} cannot be read ({getattr(reason, 'strerror', None) or reason})") from reason
