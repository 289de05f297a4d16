"""Drawing: what is drawn where, and that it stays inside the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.media import draw
from gfl_edge.media.draw import class_color, contact_sheet, draw_detections, draw_status, fitted, palette

NAMES = ("person", "bicycle", "car", "refrigerator gypsy")
GRAY = 128


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GRAY, np.uint8)


def detections(*boxes: tuple[float, ...], class_ids: list[int] | None = None) -> Detections:
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    ids = np.array(class_ids if class_ids is not None else [0] * len(boxes), np.int32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, ids, NAMES)


def changed(image: np.ndarray) -> np.ndarray:
    """Mask of pixels that are no longer gray."""
    return np.any(image != GRAY, axis=-1)


def test_box_is_drawn_along_its_edges_and_nowhere_else() -> None:
    frame = gray(480, 640)
    image = draw_detections(frame, detections((100, 200, 300, 400)))
    assert np.all(frame == GRAY), "the frame itself stays as it was"
    for x, y in ((200, 200), (200, 400), (100, 300), (300, 300)):
        assert tuple(image[y, x]) == class_color(0)
    assert not changed(image)[210:390, 110:290].any(), "nothing inside the box"
    assert not changed(image)[410:].any(), "nothing below"
    assert not changed(image)[:, 320:].any(), "nothing to the right"


def test_nothing_to_draw() -> None:
    assert not changed(draw_detections(gray(48, 64), detections())).any()


def test_out_is_drawn_into() -> None:
    frame = gray(100, 100)
    out = np.zeros_like(frame)
    boxes = detections((20, 40, 80, 80))
    assert draw_detections(frame, boxes, out=out) is out
    np.testing.assert_array_equal(out, draw_detections(frame, boxes))
    assert draw_detections(frame, boxes, out=frame) is frame
    np.testing.assert_array_equal(frame, out)


def test_mirrored_frame() -> None:
    """cv2 cannot draw into views with negative strides, which is what flipping an array gives."""
    frame = np.random.default_rng(0).integers(0, 255, (100, 120, 3), np.uint8)
    image = draw_detections(frame[:, ::-1], detections((20, 40, 80, 80)))
    np.testing.assert_array_equal(image[90:], frame[90:, ::-1])


BORDER_BOXES = {
    "upper left": (0, 0, 60, 60),
    "top": (300, 0, 360, 60),
    "upper right": (620, 2, 640, 60),
    "right": (630, 200, 640, 260),
    "lower right": (620, 470, 640, 480),
    "bottom": (300, 474, 360, 480),
    "lower left": (0, 440, 60, 480),
    "left": (0, 200, 20, 260),
    "whole frame": (0, 0, 640, 480),
    "beyond every border": (-50, -50, 700, 500),
    "no area": (320, 240, 320, 240),
}


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """The filled rectangles ``(left, top, right, bottom)`` that are drawn, inclusive."""
    found = []
    rectangle = cv2.rectangle

    def spy(image: np.ndarray, start: tuple[int, int], end: tuple[int, int], color: object, thickness: int) -> None:
        if thickness == cv2.FILLED:
            found.append((*start, *end))
        rectangle(image, start, end, color, thickness)

    monkeypatch.setattr(cv2, "rectangle", spy)
    return found


@pytest.mark.parametrize("box", BORDER_BOXES.values(), ids=BORDER_BOXES.keys())
@pytest.mark.parametrize("class_id", [0, 3])
def test_labels_stay_inside(box: tuple[float, ...], class_id: int, fills: list[tuple[int, int, int, int]]) -> None:
    frame = gray(480, 640)
    image = draw_detections(frame, detections(box, class_ids=[class_id]))
    ((left, top, right, bottom),) = fills
    assert 0 <= left < right < 640
    assert 0 <= top < bottom < 480
    label = image[top + 1 : bottom, left + 1 : right]  # without its outline
    ink = np.any(np.abs(label.astype(int) - class_color(class_id)) > 60, axis=-1)
    assert 0.05 < ink.mean() < 0.6, "there is text on the label"
    # and nothing of it is cut off
    assert not ink[:, 0].any()
    assert not ink[:, -1].any()
    assert not ink[0].any()
    assert not ink[-1].any()


def test_label_lies_above_its_box_where_there_is_room(fills: list[tuple[int, int, int, int]]) -> None:
    draw_detections(gray(480, 640), detections((100, 200, 300, 400)))
    ((left, _, _, bottom),) = fills
    assert (left, bottom) == (100, 199)


@pytest.mark.parametrize("hw", [(1, 1), (1, 500), (500, 1), (2, 2), (7, 9), (24, 32), (60, 80)])
def test_tiny_images(hw: tuple[int, int], fills: list[tuple[int, int, int, int]]) -> None:
    image = draw_detections(gray(*hw), detections((0, 0, hw[1], hw[0]), class_ids=[3]))
    assert image.shape == (*hw, 3)
    assert changed(image).any()
    for left, top, right, bottom in fills:
        assert 0 <= left <= right < hw[1]
        assert 0 <= top <= bottom < hw[0]


def test_lines_and_text_grow_with_the_image(fills: list[tuple[int, int, int, int]]) -> None:
    widths, heights = [], []
    for scale in (1, 2, 4):
        image = draw_detections(gray(480 * scale, 640 * scale), detections((100, 200, 300, 400)))
        widths.append(int(changed(image)[300, 50:200].sum()))
        heights.append(fills[-1][3] - fills[-1][1])
    assert widths == sorted(set(widths)), "thicker lines"
    assert heights == sorted(set(heights)), "larger text"


def test_highest_score_lies_on_top() -> None:
    image = draw_detections(gray(480, 640), detections((100, 200, 300, 400), (100, 200, 300, 400), class_ids=[0, 1]))
    assert tuple(image[400, 200]) == class_color(0)


def test_colors_are_stable_and_distinct() -> None:
    assert len(set(palette())) == draw.PALETTE_SIZE
    assert class_color(5) == class_color(5)
    assert class_color(draw.PALETTE_SIZE + 5) == class_color(5), "more classes than colors"
    lab = cv2.cvtColor(np.array([palette()], np.float32) / 255, cv2.COLOR_BGR2LAB)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(len(lab))
    # 2.3 is just noticeable (Mahy et al. 1994)
    assert distance[:10, :10].min() > 45
    assert distance[:20, :20].min() > 30
    assert distance.min() > 12


@pytest.mark.parametrize("class_id", range(0, draw.PALETTE_SIZE, 7))
def test_text_contrasts_with_its_background(class_id: int) -> None:
    def luminance(bgr: tuple[int, ...]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in bgr)]
        return float(np.dot(linear, (0.0722, 0.7152, 0.2126)))

    fill = class_color(class_id)
    light, dark = sorted((luminance(fill), luminance(draw._contrasting(fill))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.4, "WCAG asks for 4.5"


def test_status_is_written_into_the_corner() -> None:
    image = draw_status(gray(480, 640), "24.8 FPS")
    ys, xs = np.nonzero(changed(image))
    assert (ys.min(), xs.min()) == (0, 0)
    assert ys.max() < 40
    assert xs.max() < 200
    assert image.max() > 200, "white text"


@pytest.mark.parametrize("hw", [(48, 64), (64, 48), (10, 200), (1, 1), (300, 400)])
def test_fitted_keeps_the_aspect_ratio(hw: tuple[int, int]) -> None:
    image = fitted(np.full((*hw, 3), 200, np.uint8), (100, 150))
    assert image.shape == (100, 150, 3)
    ys, xs = np.nonzero(image.max(axis=-1))
    height, width = ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
    assert height == 100 or width == 150
    assert abs(height - width * hw[0] / hw[1]) <= 1
    assert abs((ys.min() + ys.max()) / 2 - 49.5) <= 1, "centered"
    assert abs((xs.min() + xs.max()) / 2 - 74.5) <= 1


def test_fitted_leaves_an_image_of_that_size_as_it_is() -> None:
    image = gray(10, 20)
    assert fitted(image, (10, 20)) is image


def test_contact_sheet() -> None:
    images = [np.full((60, 80, 3), 50 * i, np.uint8) for i in range(1, 6)]
    sheet = contact_sheet(images, columns=3, width=308)
    assert sheet.shape == (75 + 4 + 75, 308, 3)  # three cells of 100 x 75 and gaps of 4
    assert [int(sheet[37, x, 0]) for x in (50, 154, 258)] == [50, 100, 150]
    assert [int(sheet[116, x, 0]) for x in (50, 154, 258)] == [200, 250, 0]
    assert sheet[37, 102].max() == 0, "black between images"


def test_contact_sheet_of_mixed_sizes() -> None:
    sheet = contact_sheet([gray(100, 10), gray(10, 100), gray(1, 1)], columns=2, width=104)
    assert sheet.shape == (50 + 4 + 50, 104, 3), "no row higher than a cell is wide"


@pytest.mark.parametrize(("count", "columns", "width"), [(0, 3, 300), (2, 0, 300), (2, 3, 9)])
def test_contact_sheet_without_room(count: int, columns: int, width: int) -> None:
    with pytest.raises(InputError, match="expected room for at least one"):
        contact_sheet([gray(4, 4)] * count, columns, width)


def shaded(sigma: tuple[float, ...], box: tuple[float, ...] = (30, 40, 70, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a gray image a detection with these sigmas changes besides its lines and label; and the image."""
    frame, one = gray(120, 110), detections(box)
    unsure = Detections(one.boxes, one.scores, one.class_ids, one.class_names, edge_sigma=np.float32([sigma]))
    plain, banded = draw_detections(frame, unsure), draw_detections(frame, unsure, bands=True)
    np.testing.assert_array_equal(draw_detections(frame, one, bands=True), plain)  # nothing to draw
    return (plain != banded).any(axis=2), banded


def test_bands_reach_one_sigma_to_either_side_of_each_edge() -> None:
    found, image = shaded((4, 6, 8, 2))
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (columns[0], columns[-1] + 1) == (26, 78)
    assert rows[-1] + 1 == 82  # the upper end is under the label
    middle = found[60]
    assert not middle[35:62].any()
    assert middle[26:28].all()
    assert middle[32:34].all()
    assert middle[62:68].all()
    np.testing.assert_allclose(image[60, 64], np.rint(0.6 * GRAY + 0.4 * np.array(class_color(0))), atol=1)


def test_bands_that_meet_or_leave_the_image() -> None:
    assert shaded((0, 0, 0, 0))[0].sum() == 0
    assert shaded((500, 500, 500, 500))[0][90:].all()
    assert shaded((30, 0, 30, 0))[0][50:70, 1:29].all()
    assert shaded((1, 1, 1, 1), (0, 0, 109, 119))[0][60, 107:].any()
