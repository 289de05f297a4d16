"""What the checks find before training, in words that lead to the mistake."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfl_edge.annotations.checks import check_annotations
from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.errors import AnnotationError, InputError

NAN = float("nan")
GOOD = [10, 10, 50, 40]
BAD = {
    "boxes with NaN or infinity": [[NAN, 1, 2, 3], [1, 1, float("inf"), 9]],
    "boxes inverted": [[50, 10, 40, 20], [10, 50, 20, 40]],
    "box empty": [[10, 10, 10, 30]],
    "boxes more than 1 px outside": [[-1.5, 0, 20, 20], [90, 70, 101.5, 75], [10, 10, 20, 81.5]],
}


@pytest.fixture
def images(tmp_path):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.zeros((80, 100, 3), np.uint8))
    return tmp_path


def annotations(folder, *boxes, names=("a", "b", "c"), labels=0, size=(80, 100), class_names=("cat", "dog")):
    """One record per name with the boxes of that place, all of one label."""
    records = []
    for index, name in enumerate(names):
        mine = boxes[index] if index < len(boxes) else []
        objects = Objects.of(mine, [labels] * len(mine))
        records.append(ImageRecord(folder / f"{name}.jpg", index + 1, objects, size_hw=size))
    return Annotations(class_names, tuple(records), folder, "train.json", ("mouse",))


def test_a_good_set_passes_and_is_counted(images, caplog):
    checked, report = check_annotations(annotations(images, [GOOD, [20, 10, 60, 40]], [GOOD]))
    assert (report.images, report.background, report.boxes, report.clipped, report.dropped) == (3, 1, 3, 0, {})
    assert report.per_class == {"cat": 3, "dog": 0}
    assert report.summary() == "3 images (1 background), 3 boxes"
    assert "no box of 1 classes: dog" in caplog.text
    assert len(checked) == 3
    assert report.to_dict()["background"] == 1


@pytest.mark.parametrize("kind", BAD)
def test_bad_boxes_are_counted_and_named(images, kind):
    with pytest.raises(AnnotationError) as caught:
        check_annotations(annotations(images, [GOOD], [*BAD[kind], GOOD]))
    message = str(caught.value)
    assert message.startswith(f"train.json: {len(BAD[kind])} {kind}")
    assert "b.jpg: [" in message
    assert "cat" in message
    assert "\n" not in message
    assert 'on_bad = "drop"' in message


def test_a_box_of_an_unknown_class_is_named_with_it(images):
    with pytest.raises(AnnotationError, match=r"2 boxes of an unknown class: a.jpg: \[10, 10, 50, 40\] mouse; b.jpg"):
        check_annotations(annotations(images, [GOOD], [GOOD], labels=-1))


def test_all_kinds_come_in_one_error_and_are_left_out_on_request(images, caplog):
    everything = [box for boxes in BAD.values() for box in boxes]
    with pytest.raises(AnnotationError) as caught:
        check_annotations(annotations(images, [*everything, GOOD]))
    assert all(kind in str(caught.value) for kind in BAD)
    checked, report = check_annotations(annotations(images, [*everything, GOOD]), on_bad="drop")
    assert checked.records[0].boxes.tolist() == [GOOD]
    assert sum(report.dropped.values()) == len(everything)
    assert "left out 2 boxes with NaN" in caplog.text


def test_long_lists_are_cut(images):
    with pytest.raises(AnnotationError, match=r"9 boxes empty .*; and 4 more"):
        check_annotations(annotations(images, [[5, 5, 5, 5]] * 9 + [GOOD]))


def test_small_overshoots_are_clipped_and_counted(images):
    checked, report = check_annotations(annotations(images, [[-1, -0.5, 20, 20], GOOD, [50, 40, 101, 80.25]]))
    assert checked.records[0].boxes.tolist() == [[0, 0, 20, 20], GOOD, [50, 40, 100, 80]]
    assert report.clipped == 2
    with pytest.raises(AnnotationError, match="1 box empty"):  # nothing of it is inside
        check_annotations(annotations(images, [GOOD, [100, 10, 101, 20]]))


def test_ignored_objects_are_checked_without_a_word(images):
    record = ImageRecord(
        images / "a.jpg", 1, Objects.of([GOOD], [0]), Objects.of([[1, 1, 1, 1], GOOD], [0, 0]), (80, 100)
    )
    checked, report = check_annotations(Annotations(("cat",), (record,), images, "train.json"))
    assert (report.ignored, report.dropped) == (1, {})
    assert checked.records[0].ignored.boxes.tolist() == [GOOD]


def test_missing_and_doubled_images(images):
    doubled = annotations(images, [GOOD], [GOOD], [GOOD], [GOOD], names=("a", "gone", "lost", "sub/../a"))
    (images / "sub").mkdir()
    with pytest.raises(
        AnnotationError, match=r"2 missing image files: .*gone.jpg; .*lost.jpg \| 1 images listed twice: a"
    ):
        check_annotations(doubled)
    checked, report = check_annotations(doubled, on_bad="drop")
    assert [record.path.name for record in checked.records] == ["a.jpg"]
    assert sum(report.dropped.values()) == 3


def test_images_of_another_size_than_declared(images):
    with pytest.raises(
        AnnotationError, match=r"3 images read are not as declared: .*a.jpg is 100 x 80 pixels, .* 200 x 80"
    ):
        check_annotations(annotations(images, [GOOD], size=(80, 200)))
    with pytest.raises(
        AnnotationError, match=r"quarter turn: by its EXIF data, .* swapped\), its annotations are for 80 x 100"
    ):
        check_annotations(annotations(images, [GOOD], size=(100, 80)))
    (images / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(AnnotationError, match=r"a.jpg is no image that OpenCV can decode"):
        check_annotations(annotations(images, [GOOD]))


def test_unknown_sizes_are_read_from_the_files(images):
    checked, _ = check_annotations(annotations(images, [GOOD], size=None))
    assert {record.size_hw for record in checked.records} == {(80, 100)}
    with pytest.raises(AnnotationError, match="outside"):
        check_annotations(annotations(images, [[0, 0, 200, 20]], size=None))
    (images / "b.jpg").write_bytes(b"nothing")
    with pytest.raises(AnnotationError, match=r"b.jpg is no image that OpenCV can decode"):
        check_annotations(annotations(images, [GOOD], size=None))


def test_a_set_without_boxes_is_refused(images):
    with pytest.raises(AnnotationError, match="no box in 3 images"):
        check_annotations(annotations(images))
    with pytest.raises(InputError, match="on_bad 'ignore'"):
        check_annotations(annotations(images, [GOOD]), on_bad="ignore")


# Boxes in other units


def test_boxes_in_parts_of_the_image_are_named(images):
    parts = [[0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 1.4, 1.2]]
    with pytest.raises(AnnotationError, match=r"2 boxes within 0\.\.1, as in parts of the image .*a.jpg: \[0.1, 0.2,"):
        check_annotations(annotations(images, parts))
    with pytest.raises(AnnotationError, match=r"1 box within 0\.\.1"):  # of two joined files
        check_annotations(annotations(images, [GOOD] * 40, parts[:1]))


def test_a_sliver_in_the_corner_is_a_box(images):
    _, report = check_annotations(annotations(images, [[0, 0, 0.8, 0.9]], [[i / 10, 10, 50, 40] for i in range(100)]))
    assert report.boxes == 101


def test_the_first_pixel_of_a_tiny_image_is_a_box(images):
    cv2.imwrite(str(images / "a.jpg"), np.zeros((4, 4, 3), np.uint8))
    assert check_annotations(annotations(images, [[0, 0, 1, 1]], names="a", size=(4, 4)))[1].boxes == 1


@pytest.mark.parametrize("on_bad", ["error", "drop"])
def test_corners_given_as_x_y_width_height_are_recognized(images, on_bad):
    """Leaving out those that end outside would keep the others, which are as wrong."""
    corners = [[10, 10, 50, 40], [40, 30, 90, 70], [60, 40, 95, 75]]
    read = [[x1, y1, x1 + x2, y1 + y2] for x1, y1, x2, y2 in corners]
    with pytest.raises(AnnotationError, match=r"2 of 3 boxes end outside .* as x1, y1, x2, y2 3 would be inside"):
        check_annotations(annotations(images, read), on_bad)


def test_boxes_that_come_twice_are_counted_and_kept(images, caplog):
    checked, report = check_annotations(annotations(images, [GOOD, GOOD, GOOD], [GOOD]))
    assert (report.identical, report.boxes) == (2, 4)
    assert caplog.text.count("2 identical boxes") == 1
    assert "in a.jpg. Each counts" in caplog.text
    assert "2 identical" in report.summary()
    assert len(checked.records[0].objects) == 3


# For evaluation


def test_evaluation_counts_as_coco_does(images, caplog):
    """Boxes are not clipped, and one of zero area is to be found, too."""
    boxes = [[-1, -0.5, 20, 20], [10, 10, 10, 30]]
    checked, report = check_annotations(annotations(images, boxes), purpose="evaluation")
    assert checked.records[0].boxes.tolist() == boxes
    assert (report.boxes, report.clipped, report.dropped) == (2, 0, {})
    assert "1 box empty (zero area): a.jpg: [10, 10, 10, 30] cat. They count as missed" in caplog.text
    dropped, _ = check_annotations(annotations(images, boxes), "drop", "evaluation")
    assert dropped.records[0].boxes.tolist() == boxes[:1]


@pytest.mark.parametrize("box", [[NAN, 1, 2, 3], [10, 10, 5, 30], [10, 10, 200, 30]])
def test_evaluation_refuses_bad_crowds(images, box):
    """Dropped without a word they would turn detections on them into wrong ones."""
    record = ImageRecord(images / "a.jpg", 1, Objects.of([GOOD], [0]), Objects.of([box], [0]), (80, 100))
    with pytest.raises(AnnotationError, match=r"1 box .*: a.jpg: \["):
        check_annotations(Annotations(("cat",), (record,), images, "val.json"), purpose="evaluation")


def test_evaluation_leaves_images_that_cannot_be_decoded_to_the_evaluation(images):
    (images / "b.jpg").write_bytes(b"nothing")
    for size in ((80, 100), None):
        checked, _ = check_annotations(annotations(images, [GOOD], [GOOD], size=size), purpose="evaluation")
        assert len(checked) == 3


def test_evaluation_without_boxes_is_refused(images):
    with pytest.raises(AnnotationError, match="no box in 3 images, so AP cannot be computed"):
        check_annotations(annotations(images), purpose="evaluation")
