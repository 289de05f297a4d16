"""The published weights that are known by name, and where their authors offer them.

A digest is only written here where it is known: in full for files that were hashed, its first eight digits where the
authors' file name ends in them, as mmdetection's do, and nothing otherwise. None was copied from third parties.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from gfl_edge.errors import InputError

FULL_DIGITS = 64  # of a SHA-256, hexadecimal
_DRIVE_PAGE = "https://drive.google.com/file/d/{}/view"
# Without the page that asks whether to download a file too large for Google's virus scan
_DRIVE_FILE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
_OPENMMLAB = "https://download.openmmlab.com/mmdetection/v2.0"
_NANODET_RELEASE = "https://github.com/RangiLyu/nanodet/releases/download/v1.0.0-alpha-1"
_PLUS_320, _PLUS_416 = (f"nanodet-plus-m_{side}_checkpoint.ckpt" for side in (320, 416))
_PLUS_15X_320, _PLUS_15X_416 = (f"nanodet-plus-m-1.5x_{side}_checkpoint.ckpt" for side in (320, 416))
_LITE = "nanodet-EfficientNet-Lite{}_{}.ckpt"
_DRIVE_M_320, _SHA256_M_320 = (
    "1ZkYucuLusJrCb_i63Lid0kYyyLvEiGN3",
    "08a0bf0dad3648714c91960db4d699242d09ad27bf9492dd13ee754f79c892e9",
)
_DRIVE_M_416, _SHA256_M_416 = (
    "1jY-Um2VDDEhuVhluP9lE70rG83eXQYhV",
    "1dc2b6381647c9d3bed6fe2db74bdae3e183e41a389e4ef5b9a2b3c5ed89b9d0",
)


@dataclass(frozen=True)
class PublishedWeights:
    """A checkpoint that its authors published.

    Attributes:
        name: as ``--weights`` and ``--model`` take it.
        file_name: in the cache; the authors' own name where it is known.
        url: HTTPS address that gives the file.
        page: address for a browser; the same as ``url`` where a browser gets the file from there.
        input_hw: (height, width) in pixels that it was trained for.
        val_ap: COCO AP on val2017 in percent that the authors state.
        license: of the project that published it.
        project: that project, as owner/name on GitHub.
        sha256: of the file, hexadecimal; all 64 digits, the first 8 as its authors give them, or "" where unknown.
    """

    name: str
    file_name: str
    url: str
    page: str
    input_hw: tuple[int, int]
    val_ap: float
    license: str
    project: str
    sha256: str

    @property
    def check(self) -> str:
        """How much of a downloaded file's SHA-256 can be checked: "all digits", "8 digits" or "nothing"."""
        if not self.sha256:
            return "nothing"
        return "all digits" if len(self.sha256) == FULL_DIGITS else f"{len(self.sha256)} digits"


def _nanodet(name: str, file_name: str, address: str, side: int, val_ap: float, sha256: str = "") -> PublishedWeights:
    on_drive = not address.startswith("https://")
    url, page = (pattern.format(address) if on_drive else address for pattern in (_DRIVE_FILE, _DRIVE_PAGE))
    return PublishedWeights(name, file_name, url, page, (side, side), val_ap, "Apache-2.0", "RangiLyu/nanodet", sha256)


def _mmdetection(name: str, folder: str, stem: str, val_ap: float) -> PublishedWeights:
    """``stem`` of the file ends in the day and time of the training and eight digits of the file's digest."""
    file_name = f"{stem}.pth"
    url = f"{_OPENMMLAB}/{folder}/{file_name}"
    digest = stem.rpartition("-")[2]
    return PublishedWeights(
        name, file_name, url, url, (800, 1344), val_ap, "Apache-2.0", "open-mmlab/mmdetection", digest
    )


def _gfl(name: str, config: str, dated: str, val_ap: float) -> PublishedWeights:
    return _mmdetection(name, f"gfl/{config}", f"{config}_{dated}", val_ap)


def _gfocal(name: str, drive_id: str, val_ap: float) -> PublishedWeights:
    url, page = (pattern.format(drive_id) for pattern in (_DRIVE_FILE, _DRIVE_PAGE))
    return PublishedWeights(
        name, f"{name}.pth", url, page, (800, 1344), val_ap, "Apache-2.0", "implus/GFocalV2", sha256=""
    )


# From RangiLyu/nanodet README.md, mmdetection 3.3.0 configs/gfl/metafile.yml and configs/atss/metafile.yml,
# implus/GFocalV2 README.md
CATALOGUE: dict[str, PublishedWeights] = {
    entry.name: entry
    for entry in (
        _nanodet("nanodet-m-320", "nanodet_m.ckpt", _DRIVE_M_320, 320, 20.6, _SHA256_M_320),
        _nanodet("nanodet-m-416", "nanodet_m_416.ckpt", _DRIVE_M_416, 416, 23.5, _SHA256_M_416),
        _nanodet("nanodet-m-0.5x-320", "nanodet_m_0.5x.ckpt", "1rMHkD30jacjRpslmQja5jls86xd0YssR", 320, 13.5),
        _nanodet("nanodet-m-1.5x-320", "nanodet_m_1.5x.ckpt", "1_n1cAWy622LV8wbUnXImtcvcUVPOhYrW", 320, 23.5),
        _nanodet("nanodet-m-1.5x-416", "nanodet_m_1.5x_416.ckpt", "1CCYgwX3LWfN7hukcomhEhGWN-qcC3Tv4", 416, 26.8),
        _nanodet("nanodet-t-320", "nanodet_t.ckpt", "1TqRGZeOKVCb98ehTaE0gJEuND6jxwaqN", 320, 21.7),
        _nanodet("nanodet-g-416", "nanodet_g.ckpt", "1f2lH7Ae1AY04g20zTZY7JS_dKKP37hvE", 416, 22.9),
        _nanodet("nanodet-efficientlite0-320", _LITE.format(0, 320), "1Dj1nBFc78GHDI9Wn8b3X4MTiIV2el8qP", 320, 24.7),
        _nanodet("nanodet-efficientlite1-416", _LITE.format(1, 416), "1ernkb_XhnKMPdCBBtUEdwxIIBF6UVnXq", 416, 30.3),
        _nanodet("nanodet-efficientlite2-512", _LITE.format(2, 512), "11V20AxXe6bTHyw3aMkgsZVzLOB31seoc", 512, 32.6),
        _nanodet("nanodet-repvgg-a0-416", "nanodet-RepVGG-A0_416.ckpt", "1nWZZ1qXb1HuIXwPSYpEyFHHqX05GaFer", 416, 27.8),
        _nanodet("nanodet-plus-m-320", _PLUS_320, f"{_NANODET_RELEASE}/{_PLUS_320}", 320, 27.0),
        _nanodet("nanodet-plus-m-416", _PLUS_416, f"{_NANODET_RELEASE}/{_PLUS_416}", 416, 30.4),
        _nanodet("nanodet-plus-m-1.5x-320", _PLUS_15X_320, "1qXR6t3TBMXlz6GlTU3fxiLA-eueYoGrW", 320, 29.9),
        _nanodet("nanodet-plus-m-1.5x-416", _PLUS_15X_416, "17sdAUydlEXCrHMsxlDPLj5cGb-8-mmY6", 416, 34.1),
        _gfl("gfl-r50-1x", "gfl_r50_fpn_1x_coco", "20200629_121244-25944287", 40.2),
        _gfl("gfl-r50-2x", "gfl_r50_fpn_mstrain_2x_coco", "20200629_213802-37bb1edc", 42.9),
        _gfl("gfl-r101-2x", "gfl_r101_fpn_mstrain_2x_coco", "20200629_200126-dd12f847", 44.7),
        _gfl("gfl-r101-dcn-2x", "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco", "20200630_102002-134b07df", 47.1),
        _gfl("gfl-x101-2x", "gfl_x101_32x4d_fpn_mstrain_2x_coco", "20200630_102002-50c1ffdb", 45.9),
        _gfl("gfl-x101-dcn-2x", "gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco", "20200630_102002-14a2bf25", 48.1),
        _mmdetection("atss-r50-1x", "atss/atss_r50_fpn_1x_coco", "atss_r50_fpn_1x_coco_20200209-985f7bd0", 39.4),
        _mmdetection("atss-r101-1x", "atss/atss_r101_fpn_1x_coco", "atss_r101_fpn_1x_20200825-dfcadd6f", 41.5),
        _gfocal("gflv2-r50-1x", "1wSE9-c7tcQwIDPC6Vm_yfOokdPfmYmy7", 41.0),
        _gfocal("gflv2-r50-2x", "17-1cKRdR5J3SfZ9NBCwe6QE554uTS30F", 43.9),
        _gfocal("gflv2-r101-2x", "1qomgA7mzKW0bwybtG4Avqahv67FUxmNx", 45.8),
        _gfocal("gflv2-x101-dcn-2x", "1AHDVQoclYPSP0Ync2a5FCsr_rhq2QdMH", 48.8),
    )
}


def find(name: str) -> PublishedWeights:
    """The weights of that name; raises InputError that names the nearest, or lists them all."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name, CATALOGUE, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(CATALOGUE)}."
    raise InputError(f"{name}: neither a file nor the name of published weights; {hint} See: gfl-edge models")
