"""The page of `gfl-edge batch` says what was measured, or that nothing was."""

from __future__ import annotations

from docs import batch

RESULT = {
    "device": {"cpu": "CPU", "cores": 2},
    "images": {"few": 400, "many": 2400, "chunk": 100, "rounds": 3},
    "ways": {
        "without Ray": {"images_per_second": 100.0, "lowest": 99.0, "highest": 101.0, "start_seconds": 1.5},
        "Ray, 1 worker": {"images_per_second": 50.0, "lowest": 49.0, "highest": 51.0, "start_seconds": 9.0},
        "Ray, 2 workers": {"images_per_second": 90.0, "lowest": 89.0, "highest": 91.0, "start_seconds": 9.0},
    },
    "stages_ms": {"read and decode": 5.0, "network": 15.0},
}


def test_the_page_is_what_the_result_says():
    assert batch.PAGE.read_text() == batch.page(), "write it with: python docs/batch.py"
    assert batch.RESULT.exists() or batch.NOT_MEASURED in batch.PAGE.read_text()


def test_the_figures_are_drawn_from_the_result():
    text = batch.measured(RESULT)
    assert "| without Ray | 100.0 | 99.0 to 101.0 | 1.5 | 2.8 |" in text  # 10**6 / 100 / 3600 hours
    assert "an image takes 20.0 ms: read and decode 5.00, network 15.00. Network takes 75 % of that" in text
    assert "Two workers do 1.80 times what one does" in text
