"""Parts of a COCO file by the ids of their images: what is held out is not trained on, and nothing else is."""

from __future__ import annotations

import json

import pytest

from benchmarks.training.hold_out import hold_out, left_out
from gfl_edge.errors import AnnotationError, InputError
from train.config import EXAMPLES, read_config
from train.data.formats.image_ids import read_ids
from train.data.load import load_data

RECIPE = EXAMPLES / "coco.toml"
HELD_OUT, LEFT_OUT = (EXAMPLES / f"coco_more_{name}.txt" for name in ("held_out", "left_out"))


def images_of(annotations):
    return sorted(int(record.path.stem) for record in annotations.records)


def test_two_parts_of_one_file(toml, squares):
    (squares / "held_out.txt").write_text("# two of them\r\n7\r\n\r\n2\r\n")
    words = ['data.train.except_ids="held_out.txt"', 'data.val.only_ids="held_out.txt"']
    data = load_data(read_config(toml, words).data)
    assert images_of(data.train) == [1, 3, 4, 5, 6, 8]
    assert images_of(data.val) == [2, 7]
    assert data.class_names == ("white", "gray")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n9\n10\n", r"ids\.txt: 2 of 3 ids are of no image of .*instances\.json, first 9, 10\. Is it the list of"),
        ("1\n2.0\n", r"ids\.txt, line 2: '2\.0', expected the id of an image, a whole number"),
        ("1\n-2\n", r"line 2: '-2', expected the id"),
        ("1\n\u0662\n", r"line 2: .*expected the id"),
        ("9" * 5000, r"line 1: .*expected the id"),
        ("1.png", r"line 1: '1\.png', expected the id"),
        ("1\n2\n01\n", r"line 3: the id 01 comes twice"),
        ("", r"ids\.txt lists no ids"),
        ("# nothing\n", r"ids\.txt lists no ids"),
        ("\n".join(map(str, range(1, 9))), r"ids\.txt lists all images of .*so that none is left"),
    ],
)
def test_lists_that_do_not_fit(toml, squares, text, message):
    (squares / "ids.txt").write_text(text)
    config = read_config(toml, ['data.train.except_ids="ids.txt"'])
    with pytest.raises(AnnotationError, match=message) as caught:
        load_data(config.data)
    assert len(str(caught.value)) < 500


def test_only_cocos_images_have_ids(toml, squares):
    (squares / "ids.txt").write_text("1\n")
    words = ['data.train={format="yolo",images="images",annotations="images",class_names=["a"],only_ids="ids.txt"}']
    with pytest.raises(InputError, match=r"data\.train\.only_ids: only COCO's images have ids; leave it out"):
        read_config(toml, words)
    with pytest.raises(InputError, match=r"data\.train\.only_ids.*found neither in"):
        read_config(toml, ['data.train.only_ids="none.txt"'])


def test_the_recipe_trains_on_nothing_that_it_is_judged_by(data):
    data("coco_more/images")
    config = read_config(RECIPE)
    loaded = load_data(config.data)
    trained, held_out = set(images_of(loaded.train)), set(images_of(loaded.val))
    assert (len(trained), len(held_out)) == (1881 + 971 + 128, 300)
    assert held_out == read_ids(HELD_OUT)
    content = json.loads(data("coco/instances_val2017_mix397.json").read_text())
    assert not trained & (held_out | {image["id"] for image in content["images"]})
    assert loaded.train_report.ignored > 100


def test_which_images_are_held_out(data):
    content = json.loads(data("coco_more/instances.json").read_text())
    assert hold_out(content, 300) == sorted(read_ids(HELD_OUT))
    assert left_out(content, hold_out(content, 300)) == sorted(read_ids(LEFT_OUT))
    ids = set(hold_out(content, 300))
    assert {image["coco_split"] for image in content["images"] if image["id"] in ids} == {"val2017"}
