"""What the environment says is as little trusted as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfl_edge.engine.plugin import find_library
from gfl_edge.errors import InputError, MissingDependencyError
from gfl_edge.zoo.catalogue import CATALOGUE
from gfl_edge.zoo.weights import cached
from train.distributed import joined
from train.weights.find import data_folder

TOO_LONG = "x" * 10_000


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "1e3", "9" * 5000, "\u0664", " 2"])
def test_counts_of_processes_that_are_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(InputError, match=r"the environment's WORLD_SIZE is .*expected a number"), joined("cpu"):
        pass


@pytest.mark.parametrize("text", ["no/such/file.so", TOO_LONG, "/dev/null", "."])
def test_a_plugin_that_is_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv("GFL_EDGE_PLUGIN", text)
    with pytest.raises(MissingDependencyError, match=r"GFL_EDGE_PLUGIN is .*, which is no file") as caught:
        find_library(tmp_path)
    assert len(str(caught.value)) < 500


def test_folders_that_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFL_EDGE_DATA", TOO_LONG)
    assert data_folder() == Path(TOO_LONG)
    monkeypatch.setenv("GFL_EDGE_CACHE", TOO_LONG)
    assert cached(next(iter(CATALOGUE.values()))) is None
