"""Published weights by name: the catalogue, the cache, and what the commands make of a name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the commands of a checkout")

from export import to_onnx
from gfl_edge.cli import main as cli
from gfl_edge.errors import DownloadError, InputError
from gfl_edge.zoo import weights
from gfl_edge.zoo.catalogue import CATALOGUE, FULL_DIGITS, PublishedWeights, find
from gfl_edge.zoo.download import Wanted
from train.describe import find_preset
from train.weights.find import CHECKPOINTS, find_weights

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, no data folder, and nobody to download from."""
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GFL_EDGE_DATA", str(tmp_path / "no data"))

    def offline(wanted: Wanted) -> str:
        raise DownloadError(f"{wanted.url} cannot be reached")

    monkeypatch.setattr(weights, "download", offline)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> list[Wanted]:
    """What was downloaded; every file holds ``CONTENT``."""
    asked: list[Wanted] = []

    def download(wanted: Wanted) -> str:
        asked.append(wanted)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        wanted.path.write_bytes(CONTENT)
        return DIGEST

    monkeypatch.setattr(weights, "download", download)
    return asked


class TestCatalogue:
    @pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.name)
    def test_entries_are_whole(self, entry: PublishedWeights) -> None:
        assert entry.url.startswith("https://")
        assert entry.page.startswith("https://")
        assert Path(entry.file_name).suffix in (".ckpt", ".pth")
        assert re.fullmatch(r"[0-9a-f]*", entry.sha256)
        assert len(entry.sha256) in (0, 8, FULL_DIGITS)
        assert find_preset(entry.name).input_hw == entry.input_hw  # --model takes the same names

    def test_files_do_not_overwrite_each_other(self) -> None:
        assert len({entry.file_name for entry in CATALOGUE.values()}) == len(CATALOGUE)
        assert len({entry.url for entry in CATALOGUE.values()}) == len(CATALOGUE)

    def test_digits_of_mmdetection_are_those_of_the_file_name(self) -> None:
        for entry in CATALOGUE.values():
            if entry.project == "open-mmlab/mmdetection":
                assert entry.file_name.endswith(f"-{entry.sha256}.pth")
                assert entry.url.endswith(f"/{entry.file_name}")

    @pytest.mark.parametrize("name", ["nanodet-m-320", "nanodet-m-416"])
    def test_full_digests_are_those_of_the_original_files(self, name, checkpoint, monkeypatch) -> None:
        monkeypatch.delenv("GFL_EDGE_DATA")
        path = checkpoint(name)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == CATALOGUE[name].sha256
        assert path.name == CATALOGUE[name].file_name

    def test_unknown_names(self) -> None:
        with pytest.raises(InputError, match=r"did you mean gfl-r101-dcn-2x\?"):
            find("gfl-r101-dcn")
        with pytest.raises(InputError, match=r"the names are nanodet-m-320, nanodet-m-416, .*gflv2-x101-dcn-2x"):
            find("yolo")


class TestFetch:
    def test_what_a_digest_is_known_of_is_downloaded_once(self, online, cache, caplog) -> None:
        caplog.set_level("INFO")
        entry = CATALOGUE["gfl-r50-1x"]
        assert weights.fetch(entry) == cache / entry.file_name
        assert online == [Wanted(entry.url, cache / entry.file_name, entry.sha256)]
        assert f"SHA-256 {DIGEST} (checked: 8 digits)" in caplog.text

    def test_a_file_in_the_cache_is_checked(self, online, cache) -> None:
        entry = CATALOGUE["nanodet-m-320"]
        cache.mkdir(parents=True)
        (cache / entry.file_name).write_bytes(b"another")
        with pytest.raises(DownloadError, match=rf"expected {entry.sha256}\. Delete it and run this again"):
            weights.fetch(entry)
        assert not online

    def test_without_a_digest_it_must_be_accepted(self, online, cache, caplog) -> None:
        caplog.set_level("INFO")
        entry = CATALOGUE["nanodet-plus-m-416"]
        with pytest.raises(
            DownloadError, match=r"no digest of nanodet-plus-m-416 is published.*--unchecked to .*, or get http"
        ):
            weights.fetch(entry)
        assert weights.fetch(entry, unchecked=True) == cache / entry.file_name
        assert f"SHA-256 {DIGEST} (checked: nothing)" in caplog.text
        assert weights.fetch(entry) == cache / entry.file_name  # it is there now
        assert len(online) == 1

    def test_offline_says_which_file_to_put_where(self, cache) -> None:
        entry = CATALOGUE["nanodet-m-416"]
        with pytest.raises(DownloadError) as caught:
            weights.fetch(entry)
        assert str(caught.value) == (
            f"{entry.url} cannot be reached. To do it by hand, get {entry.page} with a browser and put it as "
            f"nanodet_m_416.ckpt into {cache}"
        )

    def test_a_user_without_a_home(self, monkeypatch) -> None:
        monkeypatch.setattr(weights, "cache_folder", lambda: None)
        with pytest.raises(DownloadError, match="Set GFL_EDGE_CACHE to a folder of yours"):
            weights.fetch(CATALOGUE["gfl-r50-1x"])


class TestNames:
    def test_a_file_is_taken_as_it_is(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("nanodet-m-320").touch()
        assert find_weights(Path("nanodet-m-320")) == Path("nanodet-m-320")
        assert find_weights(Path("missing.pth")) == Path("missing.pth")  # its reader says so

    def test_the_data_folder_comes_first(self, tmp_path) -> None:
        path = tmp_path / "no data" / CHECKPOINTS["nanodet-plus-m-416"]
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_weights(Path("nanodet-plus-m-416")) == path

    def test_then_the_cache(self, online, cache) -> None:
        assert find_weights(Path("gfl-r101-dcn-2x")).parent == cache
        assert find_weights(Path("gflv2-r50-1x"), unchecked=True) == cache / "gflv2-r50-1x.pth"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nanodet-m-320", "with a browser and put it as nanodet_m.ckpt into"),
            ("nanodet", "neither a file nor the name of published weights"),
        ],
    )
    def test_to_onnx_takes_names(self, name, message, capsys, tmp_path) -> None:
        assert to_onnx.main(["--weights", name, "-o", str(tmp_path / "m.onnx")]) == 1
        assert message in capsys.readouterr().err

    @pytest.mark.usefixtures("one_trace")
    def test_a_name_is_exported(self, checkpoint, capsys, tmp_path, monkeypatch) -> None:
        monkeypatch.delenv("GFL_EDGE_DATA")
        checkpoint("nanodet-m-320")
        output = tmp_path / "m.onnx"
        assert to_onnx.main(["--weights", "nanodet-m-320", "-o", str(output)]) == 0
        assert "nanodet-m-320, 80 classes" in capsys.readouterr().err


class TestListing:
    def test_table(self, capsys, cache) -> None:
        cache.mkdir(parents=True)
        (cache / "nanodet_m.ckpt").touch()
        assert cli.main(["models"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(CATALOGUE) + 3  # a header, and the bundled model
        assert lines[1].split() == [
            *("nanodet-m-320", "20.6", "320x320", "Apache-2.0", "all", "digits", "RangiLyu/nanodet", "yes")
        ]

    def test_json(self, capsys, cache) -> None:
        assert cli.main(["models", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["name"] for row in rows] == list(CATALOGUE)
        assert {"url", "val_ap", "input_hw", "license", "sha256", "cached"} <= rows[0].keys()
        assert rows[0]["cached"] is None
