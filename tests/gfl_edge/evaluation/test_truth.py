"""AP of annotation files as they come: right, or an error that names what is wrong with which entry."""

from __future__ import annotations

import contextlib
import io
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gfl_edge.annotations.coco import write_coco
from gfl_edge.errors import AnnotationError
from gfl_edge.evaluation.ap import METRICS, Evaluator
from gfl_edge.evaluation.truth import read_truth
from tests.support import spoiled_coco as files

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    files.write_images(folder)
    return folder


def by_hand(content, rows):
    """Pycocotools on the file as it stands."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        if rows:
            found = coco.loadRes(rows)
        else:
            found = COCO()
            found.dataset = {**content, "annotations": []}
            found.createIndex()
        run = COCOeval(coco, found, "bbox")
        run.evaluate(), run.accumulate(), run.summarize()
    return {name: 100 * value if value >= 0 else None for name, value in zip(METRICS, run.stats, strict=True)}


@QUICK
@given(files.contents(), st.sets(st.sampled_from(sorted(files.HARMLESS)), max_size=4), st.integers(0, 99))
def test_the_same_boxes_in_other_words_have_the_same_ap(folder, content, changes, seed):
    rows = files.detections(content, seed)
    expected = by_hand(content, rows)
    truth = read_truth(files.write(folder / "a.json", files.spoiled(content, *sorted(changes))), folder)
    for evaluator in get_args(Evaluator):
        assert files.judged(truth, rows, evaluator) == pytest.approx(expected, abs=1e-9)


@QUICK
@given(
    files.contents(),
    st.sets(st.sampled_from(sorted(files.HARMLESS)), max_size=2),
    st.sampled_from(sorted(files.HARMFUL)),
    st.sampled_from(("error", "drop")),
    st.integers(0, 99),
)
def test_a_spoiled_file_is_refused_or_both_evaluators_agree(folder, content, changes, mistake, on_bad, seed):
    path = files.write(folder / "a.json", files.spoiled(content, *sorted(changes), mistake))
    try:
        truth = read_truth(path, folder, on_bad=on_bad)
    except AnnotationError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert str(path) in refusal
        assert "\n" not in refusal
        return
    rows = files.detections(content, seed)
    one, other = (files.judged(truth, rows, evaluator) for evaluator in get_args(Evaluator))
    assert one == pytest.approx(other, abs=1e-9)
    assert one["AP"] is not None
    write_coco(truth, folder / "b.json")
    again = files.judged(read_truth(folder / "b.json", folder), rows, "pycocotools")
    assert again == pytest.approx(one, abs=1e-9)
