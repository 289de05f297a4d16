"""The public names of train.data."""

from __future__ import annotations

import subprocess
import sys

import pytest

import train.data


def test_every_public_name_is_there():
    assert sorted(train.data.__all__) == train.data.__dir__()
    for name in train.data.__all__:
        assert getattr(train.data, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Batches'"):
        _ = train.data.Batches


def test_settings_and_readers_need_no_pytorch(pytestconfig):
    """So that they also serve calibration and tools on a device."""
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from train.data import DataConfig, check_annotations, load_data, read_coco, read_voc, read_yolo"
    )
    subprocess.run([sys.executable, "-c", code], cwd=pytestconfig.rootpath, check=True)
