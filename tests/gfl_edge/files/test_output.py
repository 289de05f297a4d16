"""Files are whole or the old ones; what cannot be written is found out before, and said in a sentence."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gfl_edge.errors import OutputError
from gfl_edge.files import check_output, whole_file, whole_files, write_atomically, write_together
from tests.support.media_files import assert_nothing_left_over
from tests.support.small_disk import room_for


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_the_old_one_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.png"
    write_atomically(path, b"old")
    with whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["file.png"]
    with pytest.raises(KeyError), whole_file(path) as temporary:
        raise KeyError
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["file.png"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with (
        room_for(100),
        pytest.raises(OutputError, match=r"file cannot be written \(File too large\)\. Files there may"),
    ):
        write_atomically(path, bytes(101))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_files_that_belong_together_are_written_together(tmp_path: Path) -> None:
    first, second = tmp_path / "m.engine", tmp_path / "m.engine.json"
    write_together({first: b"old engine", second: b"old sidecar"})
    with room_for(100), pytest.raises(OutputError, match=r"m\.engine, .*m\.engine\.json cannot be written"):
        write_together({first: b"new engine", second: bytes(101)})
    assert (first.read_bytes(), second.read_bytes()) == (b"old engine", b"old sidecar")
    assert names(tmp_path) == ["m.engine", "m.engine.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_the_disk_notices_late_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A network drive or a delayed allocation takes the bytes and fails when they are written out."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_contents_are_on_the_disk_before_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, bool]] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "file").exists())),
    )
    write_atomically(tmp_path / "file", b"content")
    assert synced == [(False, False), (True, True)]
    write_atomically(tmp_path / "cache", b"content", durable=False)
    assert len(synced) == 2


WRITERS: list[Callable[[Path], object]] = [lambda path: check_output(path), lambda path: write_atomically(path, b"x")]


@pytest.mark.parametrize("write", WRITERS, ids=["check", "write"])
class TestWhatCannotBeWritten:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("", "Is a directory"),
            ("..", "Is a directory"),
            ("folder", "Is a directory"),
            ("file/x", "Not a directory"),
            ("file/x/y", "Not a directory"),
            ("pipe", "a device or pipe, not a file"),
            ("socket", "a device or pipe, not a file"),
            ("nothing", "a device or pipe, not a file"),
            ("/dev/null", "a device or pipe, not a file"),
            ("loop", "Too many levels of symbolic links"),
            ("x" * 300, r"File name too long\)\. Choose a shorter name"),
            ("a\0b", "embedded null"),
        ],
    )
    def test_paths(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        write: Callable[[Path], object],
        path: str,
        reason: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        os.mkfifo("pipe")
        socket.socket(socket.AF_UNIX).bind("socket")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "nothing").symlink_to("/dev/null")
        before = names(tmp_path)
        with pytest.raises(OutputError, match=rf"cannot be written \({reason}"):
            write(Path(path))
        assert names(tmp_path) == before
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    def test_a_folder_without_permission(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
    ) -> None:
        original = os.open

        def refuse(path: object, flags: int, *rest: int) -> int:
            if flags & os.O_CREAT:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return original(path, flags, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refuse)  # root may write everywhere
        with pytest.raises(OutputError, match=r"Permission denied\)\. Choose a folder that you may write to"):
            write(tmp_path / "file")

    def test_an_address_is_no_folder_of_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OutputError, match="is an address: write to a file of this machine"):
            write(Path("s3://bucket/folder/file"))
        assert names(tmp_path) == []

    @pytest.mark.parametrize("name", ["é" * 127, "x." + "y" * 200, "...", "new\nline", "\udcff", "x.", "new/er/file"])
    def test_odd_names_can(self, tmp_path: Path, write: Callable[[Path], object], name: str) -> None:
        write(tmp_path / name)
        assert_nothing_left_over(tmp_path)


def test_a_check_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_output(tmp_path / "new" / "folder" / "file", 10**6)
    check_output(tmp_path / "old", 10**6)
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_room_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with room_for(10**5), pytest.raises(OutputError, match=r"File too large, about 1 MB are needed"):
        check_output(tmp_path / "file", 10**6)
    full = SimpleNamespace(f_blocks=1000, f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    check_output(tmp_path / "file", 40_000)
    with pytest.raises(OutputError, match=r"No space left on device, about 5 MB are needed\)\. Make room there"):
        check_output(tmp_path / "file", 5 * 10**6)
    assert names(tmp_path) == []


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere/file")
    write_atomically(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"content"


def test_a_temporary_file_that_somebody_deletes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OutputError, match="No such file"), whole_files([tmp_path / "file"]) as (temporary,):
        temporary.unlink()
    assert (tmp_path / "file").read_bytes() == b"old"
