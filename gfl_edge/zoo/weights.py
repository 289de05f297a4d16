"""Published weights by name: from the cache, or downloaded into it once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gfl_edge.console import aligned
from gfl_edge.errors import DownloadError
from gfl_edge.files import CACHE_VARIABLE, cache_folder, is_file
from gfl_edge.zoo.catalogue import CATALOGUE, PublishedWeights
from gfl_edge.zoo.download import Wanted, check, download

logger = logging.getLogger(__name__)

FOLDER = "weights"  # below the cache folder


def weights_folder() -> Path:
    """Where downloaded weights lie; raises DownloadError for a user without a home for them."""
    folder = cache_folder()
    if folder is None:
        raise DownloadError(f"there is no home folder to keep weights in. Set {CACHE_VARIABLE} to a folder of yours")
    return folder / FOLDER


def cached(entry: PublishedWeights) -> Path | None:
    """The file in the cache, not checked; None where it is not there."""
    path = weights_folder() / entry.file_name
    return path if is_file(path) else None


def fetch(entry: PublishedWeights, unchecked: bool = False) -> Path:
    """The file in the cache, downloaded first where it is not there, and checked as far as its digest is known.

    Args:
        entry: what to bring.
            unchecked: also download weights of which no digest is known; theirs is then logged.

    Raises:
        DownloadError: it cannot be had, or is not the published file; says which file to put where by hand.
    """
    wanted = Wanted(entry.url, weights_folder() / entry.file_name, entry.sha256)
    if is_file(wanted.path):
        check(wanted)
        return wanted.path
    if not (entry.sha256 or unchecked):
        raise DownloadError(
            f"no digest of {entry.name} is published, so that a download cannot be checked. Accept that by adding "
            f"--unchecked to export/to_onnx.py or export/to_trt.py, or {by_hand(entry)}"
        )
    try:
        digest = download(wanted)
    except DownloadError as error:
        raise DownloadError(f"{error}. To do it by hand, {by_hand(entry)}") from error
    logger.info("%s: SHA-256 %s (checked: %s)", wanted.path, digest, entry.check)
    return wanted.path


def by_hand(entry: PublishedWeights) -> str:
    """What to do on a machine that cannot download: the address, the file name and the folder."""
    return f"get {entry.page} with a browser and put it as {entry.file_name} into {weights_folder()}"


def listing() -> list[dict[str, Any]]:
    """Every entry of the catalogue as JSON takes it, with the file in the cache, or None, under ``cached``."""
    return [{**asdict(entry), "cached": str(cached(entry) or "") or None} for entry in CATALOGUE.values()]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What :func:`listing` gives, for people."""
    lines = [("name", "AP", "input", "license", "digest checked", "published by", "here")]
    for row in rows:
        height, width = row["input_hw"]
        checked = CATALOGUE[row["name"]].check
        here = "yes" if row["cached"] else ""
        lines.append(
            (row["name"], f"{row['val_ap']:.1f}", f"{height}x{width}", row["license"], checked, row["project"], here)
        )
    return aligned(lines)
