"""The images that a model is calibrated on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from calib.images import MIN_IMAGES, choose_images
from gfl_edge.detector import Detector
from gfl_edge.errors import InputError
from gfl_edge.spec import read_spec
from tests.support.calibration import write_images

pytestmark = pytest.mark.usefixtures("one_thread")


class TestImages:
    def test_same_choice_every_time(self, tmp_path):
        write_images(tmp_path, 24)
        first, again = (choose_images(tmp_path, 20, seed=3) for _ in range(2))
        assert first == again
        assert len(first) == 20
        assert first.names != choose_images(tmp_path, 20, seed=4).names

    def test_digest_is_of_the_contents(self, tmp_path):
        write_images(tmp_path)
        before = choose_images(tmp_path, MIN_IMAGES).digest
        cv2.imwrite(str(tmp_path / "003.png"), np.zeros((8, 8, 3), np.uint8))
        assert choose_images(tmp_path, MIN_IMAGES).digest != before

    def test_unreadable_files_are_named_and_left_out(self, tmp_path):
        write_images(tmp_path, 20)
        (tmp_path / "bad.png").write_bytes(b"no image")
        (tmp_path / "notes.txt").write_text("no image either")
        (tmp_path / ".gfl_edge-0123456789abcdef.partial.png").write_bytes(b"of a run that was killed")
        found = choose_images(tmp_path, 32)
        assert found.skipped == ("bad.png",)
        assert len(found) == 20

    def test_too_few(self, tmp_path):
        write_images(tmp_path, 3)
        (tmp_path / "bad.png").write_bytes(b"no image")
        with pytest.raises(InputError, match=r"3 readable images, 1 more cannot be used \(.*bad.png .*at least 16"):
            choose_images(tmp_path, 64)

    def test_images_of_the_wrong_kind(self, tmp_path):
        for i in range(20):
            (tmp_path / f"{i}.npy").write_bytes(b"x")
        with pytest.raises(InputError, match="0 readable images"):
            choose_images(tmp_path, 64)

    def test_no_folder(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            choose_images(tmp_path / "missing", 64)

    def test_prepared_as_at_run_time(self, calib_images, float_onnx):
        spec = read_spec(float_onnx)
        chosen = choose_images(calib_images, MIN_IMAGES)
        with Detector(float_onnx) as detector:
            for name, batch in zip(chosen.names, chosen.inputs(spec), strict=True):
                prepared = detector.prepare([cv2.imread(str(calib_images / name))])
                np.testing.assert_array_equal(batch, prepared.inputs)
