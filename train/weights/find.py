"""Which checkpoint is meant by its name."""

from __future__ import annotations

import os
from pathlib import Path

from gfl_edge.zoo import catalogue, weights

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CHECKPOINT_SUFFIXES = (".pth", ".ckpt", ".pt", ".safetensors")

# Below the data folder, by model
CHECKPOINTS = {
    "nanodet-m-320": "weights/nanodet_m/nanodet_m.ckpt",
    "nanodet-m-416": "weights/nanodet_m/nanodet_m_416.ckpt",
    "nanodet-g-416": "weights/nanodet_g/nanodet_g_416_from_tfjs_fp16.pth",
    "nanodet-plus-m-320": "weights/nanodet_plus_m/nanodet_plus_m_320_from_ncnn_fp16.pth",
    "nanodet-plus-m-416": "weights/nanodet_plus_m/nanodet_plus_m_416_from_ncnn_fp16.pth",
}


def data_folder() -> Path:
    """The folder of weights, images and videos: ``GFL_EDGE_DATA``, else ``shared`` beside the checkout.

    Either may be the data folder itself or hold it as ``data``.
    """
    root = Path(os.environ.get("GFL_EDGE_DATA") or CHECKOUT.parent / "shared")
    return root / "data" if os.path.isdir(root / "data") else root  # noqa: PTH112


def find_weights(named: Path, unchecked: bool = False) -> Path:
    """The checkpoint that ``--weights`` names: a file, or published weights by name.

    Published weights are taken from the data folder where they are there, else from the cache, into which they are
    downloaded where they are not.

    Args:
        named: a file or a name of :data:`gfl_edge.zoo.catalogue.CATALOGUE`.
        unchecked: see :func:`gfl_edge.zoo.weights.fetch`.

    Raises:
        InputError: neither a file nor such a name.
        DownloadError: they cannot be downloaded; says which file to put where.
    """
    if named.is_file() or named.suffix in CHECKPOINT_SUFFIXES:  # whoever reads it says that a file is missing
        return named
    entry = catalogue.find(str(named))
    if entry.name in CHECKPOINTS and (path := data_folder() / CHECKPOINTS[entry.name]).is_file():
        return path
    return weights.fetch(entry, unchecked)
