"""Encodings of text files."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfl_edge.annotations.text import decode, read_text, read_xml_text
from gfl_edge.errors import AnnotationError, InputError

TEXT = "café\n人物\n人\r\n😀\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.encode("utf-16-le"),  # without a mark
        TEXT.encode("utf-16-be"),
    ],
)
def test_unicode_in_all_its_forms(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("person\ncafé\n".encode("latin-1"), r"a\.txt, line 2: the byte 0xe9 is not UTF-8\. Save the file as UTF-8$"),
        ("人\n".encode("gbk"), r"a\.txt, line 1: the byte 0xc8 is not UTF-8"),
        (b"person\ndog\0\n", r"a\.txt, line 2: there is a zero byte, so this is no text file"),
        ("a\nb".encode("utf-16") + b"\0", r"a\.txt, line 2: .* is not UTF-16-LE"),
    ],
)
def test_other_bytes_are_named_with_their_line(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_text(tmp_path / "a.txt", AnnotationError)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path, tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            read_text(path)


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("gb2312", "gbk", "人"),
        ("GBK", "gbk", "車輛"),
        ("gb18030", "gb18030", "人"),
        ("big5", "big5", "人"),
        ("Shift_JIS", "cp932", "①人"),
        ("EUC-KR", "euc-kr", "사람"),
        ("ISO-8859-1", "latin-1", "café"),
        ("windows-1252", "cp1252", "café"),
        ("utf-8", "utf-8", "人"),
        ("utf-16", "utf-16", "人"),
        ("utf-16", "utf-8", "人"),  # what .NET writes into a string and saves as UTF-8
        ("gb2312", "utf-8-sig", "人"),  # the mark is certain, a declaration is often a template's
    ],
)
def test_xml_is_decoded_as_it_declares(tmp_path, declared, encoding, name):
    text = f'<?xml version="1.0" encoding="{declared}"?><name>{name}</name>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert read_xml_text(tmp_path / "a.xml") == text


def test_xml_that_is_not_what_it_declares(tmp_path):
    (tmp_path / "a.xml").write_bytes('<?xml version="1.0" encoding="utf-8"?>\n<name>人</name>'.encode("gbk"))
    with pytest.raises(InputError, match=r"a\.xml, line 2: the byte 0xc8 is not UTF-8"):
        read_xml_text(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_bytes(b'<?xml version="1.0" encoding="klingon"?><name>x</name>')
    with pytest.raises(InputError, match=r"a\.xml declares the encoding 'klingon'"):
        read_xml_text(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_bytes(b'<?xml version="1.0" encoding="zip"?><name>x</name>')
    with pytest.raises(InputError, match=r"a\.xml declares the encoding 'zip'"):
        read_xml_text(tmp_path / "a.xml")


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_one_error(content):
    try:
        text = decode(content, "a.txt")
    except InputError as error:
        text, message = None, str(error)
    assert text is not None or message.startswith("a.txt, line ")
