"""Which images a source means, and that they come in one order."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from gfl_edge.batch.listing import write_listing
from gfl_edge.batch.source import Entry, Source, find_source, without_secrets
from gfl_edge.errors import InputError, MissingDependencyError, SourceError
from tests.support.batch_run import BAD, COUNT, folder  # noqa: F401

pytest.importorskip("fsspec", reason="fsspec is not installed (extra parquet)")

ORDER = [
    *("00.png", "03.png", "06.png", "09.png", "a/01.png", "a/04.png", "a/07.png"),
    *("a/deep/02.png", "a/deep/05.png", "a/deep/08.png", *BAD),
]


def names(source: Source) -> list[str]:
    return [entry.name for entry in source.entries()]


@pytest.fixture
def memory(folder: Path) -> str:  # noqa: F811
    """The same images in fsspec's memory."""
    import fsspec

    address = f"memory://{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    system.put(f"{folder}/", f"{address.removeprefix('memory:/')}/", recursive=True)
    return address


def test_a_folder_gives_all_below_it_in_one_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(folder.parent)
    assert len(ORDER) == COUNT
    for text in ("in", "in/", str(folder), f"file://{folder}"):
        source = find_source(text)
        assert names(source) == ORDER
        assert source.location("a/01.png") == str(folder / "a" / "01.png")
        assert source.shown("a/01.png") == f"{text.rstrip('/')}/a/01.png"


def test_an_address_gives_the_same(memory: str) -> None:
    source = find_source(memory)
    assert names(source) == ORDER
    assert source.shown("a/01.png") == source.location("a/01.png") == f"{memory}/a/01.png"
    assert source.is_memory


def test_links_to_folders_are_followed_but_not_in_a_circle(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    (folder / "c").symlink_to(folder / "b")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = list(find_source(str(folder)).entries())
    assert [entry.name for entry in found if "gone" not in entry.name] == [
        *ORDER,
        *(n.replace("b/", "c/") for n in BAD),
    ]
    assert [entry.state for entry in found if "gone" in entry.name] == [None]


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"a" * 150)
    deep.mkdir(parents=True)
    with pytest.raises(SourceError, match="folders in more than 100 others"):
        names(find_source(str(tmp_path)))


def test_a_change_of_an_image_shows(folder: Path, memory: str) -> None:  # noqa: F811
    import fsspec

    for text in (str(folder), memory):
        before = list(find_source(text).entries())
        with fsspec.open(f"{text}/00.png", "wb") as file:
            file.write(b"other")
        after = list(find_source(text).entries())
        assert [one for one in after if one not in before] == [after[0]]


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_a_list_gives_its_lines(folder: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:  # noqa: F811
    monkeypatch.chdir(folder.parent)
    lines = ["a/01.png", str(folder / "00.png"), "", "s3://bucket/x.png", "a/01.png", "gone.png"]
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbf" + (ending or "\n").join(lines).encode() + ending.encode())
    source = find_source("in/list.txt")
    found = list(source.entries())
    assert [entry.name for entry in found] == [line for line in lines if line], "twice is two rows"
    assert [entry.state is None for entry in found] == [False, False, True, False, True]
    assert [source.location(line) for line in lines[:1]] == [str(folder / "a/01.png")]
    assert (source.location(lines[1]), source.location(lines[3])) == (lines[1], lines[3])
    assert source.shown("a/01.png") == "a/01.png"
    elsewhere = find_source("in/list.txt", "in/a")
    assert elsewhere.location("01.png") == str(folder / "a/01.png")
    assert find_source("in/list.txt", "s3://b/x").location("01.png") == "s3://b/x/01.png"


def test_a_list_at_an_address(memory: str) -> None:
    import fsspec

    with fsspec.open(f"{memory}/list.txt", "wb") as file:
        file.write(b"00.png\na/01.png\n")
    source = find_source(f"{memory}/list.txt")
    assert names(source) == ["00.png", "a/01.png"]
    assert source.location("00.png") == f"{memory}/00.png"


def test_addresses_in_archives() -> None:
    source = Source("zip://in::s3://b/a.zip", "zip://in::s3://b/a.zip")
    assert source.location("x.png") == "zip://in/x.png::s3://b/a.zip"
    assert Source("", "zip://::a.zip").location("x.png") == "zip://x.png::a.zip"
    assert Source("", "simplecache::s3://b/in").location("x.png") == "simplecache::s3://b/in/x.png"
    assert Source("", "memory://").location("x.png") == "memory://x.png"
    assert Source("", "filecache::memory://a").is_memory


def test_names_that_are_no_utf8(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    try:
        (folder / "00.png").rename(folder / "0\udcff\n.png")
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    listing = write_listing(tmp_path / "listing", find_source(str(folder)).entries(), 5, "")
    assert "0\udcff\n.png" in listing.names(listing.chunks[0])


def test_chunks_change_with_what_they_depend_on(tmp_path: Path) -> None:
    entries = [Entry(f"{n}.png", f"{n}") for n in range(7)]

    def keys(entries: list[Entry], settings: str = "") -> list[str]:
        return [chunk.key for chunk in write_listing(tmp_path / "listing", entries, 3, settings).chunks]

    first = keys(entries)
    listing = write_listing(tmp_path / "listing", entries, 3, "")
    assert [chunk.count for chunk in listing.chunks] == [3, 3, 1]
    assert [listing.names(chunk)[0] for chunk in reversed(listing.chunks)] == ["6.png", "3.png", "0.png"]
    assert (listing.count, len(set(first)), keys(entries)) == (7, 3, first)
    assert not set(keys(entries, "other")) & set(first)
    changed = [*entries[:4], Entry("4.png", "new"), *entries[5:]]
    assert [new == old for new, old in zip(keys(changed), first, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gone", "gone does not exist: expected a folder, a list"),
        ("in/00.png", "in/00.png is an image"),
        ("nothing://a/b", "Protocol not known"),
        ("memory://not-there", "does not exist"),
        ("", "does not exist"),
        ("a\0b", "does not exist"),
    ],
)
def test_what_is_no_source_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:  # noqa: F811
    monkeypatch.chdir(folder.parent)
    with pytest.raises(SourceError, match=says):
        find_source(text)


def test_what_an_address_needs_is_named() -> None:
    try:
        import s3fs  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"s3://bucket/x cannot be opened: .*s3fs"):
            find_source("s3://bucket/x")


def test_a_root_is_for_lists(folder: Path) -> None:  # noqa: F811
    with pytest.raises(InputError, match="--root is what relative paths in a list start from"):
        find_source(str(folder), "x")


@pytest.mark.parametrize("content", [b"\0\0", b"a" * 10_000, "a\n".encode("utf-16"), b"PAR1" + bytes(range(256))])
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(SourceError, match=r"line 1: .* so this is no list of images"):
        names(find_source(str(tmp_path / "list")))


def test_secrets_are_not_shown() -> None:
    assert without_secrets("ftp://user:pa@ss@host/a.jpg") == "ftp://host/a.jpg"
    assert without_secrets("https://h/a.jpg?X-Amz-Signature=0123") == "https://h/a.jpg?***"
    assert without_secrets("https://h/a.jpg?width=3") == "https://h/a.jpg?width=3"
    assert without_secrets("s3://bucket/0123456789abcdef0123/x@2.jpg") == "s3://bucket/0123456789abcdef0123/x@2.jpg"
    listed = Source("l", "/", "/l")
    assert listed.shown("https://me:secret@h/a.jpg") == "https://h/a.jpg"
