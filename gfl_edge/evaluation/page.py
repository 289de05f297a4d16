"""The page of an evaluation: AP by class and size, curves, confusions and the worst images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gfl_edge import optional
from gfl_edge.evaluation.ap import METRICS
from gfl_edge.evaluation.classes import CANDIDATES, RECALLS, ClassResult
from gfl_edge.evaluation.examination import Examination
from gfl_edge.evaluation.sheet import MAX_IMAGES, MEANING, worst_images
from gfl_edge.files import write_together
from gfl_edge.ops.preprocess import Image
from gfl_edge.parsing.json_text import json_text
from gfl_edge.report.document import Section, Table, number
from gfl_edge.report.figures import Figure
from gfl_edge.report.html import page
from gfl_edge.report.markdown import markdown
from gfl_edge.report.plots import heat_chart, line_chart, ranked_bars
from gfl_edge.report.reliability import reliability_chart

TITLE = "gfl_edge: evaluation"
HTML_NAME, JSON_NAME = "evaluation.html", "evaluation.json"
MAX_CURVES = 7  # classes in a chart, beside all of them
MAX_CONFUSED = 20  # classes in the chart of confusions
MAX_ROWS = 30  # of a table of confusions or images
JPEG_QUALITY = 85
POINTS_PER_PIXEL = 0.75

MEANINGS = {
    "AP": "mean over IoU 0.5 to 0.95",
    "AP50": "at IoU 0.5",
    "AP75": "at IoU 0.75",
    "APs": "objects below 32 x 32 pixels",
    "APm": "objects of 32 x 32 to 96 x 96 pixels",
    "APl": "larger objects",
    "AR1": "recall with 1 detection per image",
    "AR10": "recall with 10",
    "AR100": "recall with 100",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
}


def write_evaluation(examination: Examination, measured: Mapping[str, Any], folder: Path) -> Path:
    """Write the pages, charts and ``evaluation.json`` into ``folder``; where the HTML page is.

    All of them are written, or on an error none; other files in the folder stay.

    Args:
        examination: what is shown.
        measured: what the command prints, for the first section and ``evaluation.json``, which has faults beside it.
        folder: made if it is missing.

    Raises:
        OutputError: they cannot be written.
        MissingDependencyError: the extra "report" is not installed.
    """
    sections = document(examination, measured)
    charts = {folder / f"{figure.name}.svg": figure.svg for section in sections for figure in section.figures}
    write_together(
        {
            folder / HTML_NAME: page(TITLE, sections).encode(),
            folder / "evaluation.md": markdown(TITLE, sections).encode(),
            folder / JSON_NAME: f"{json_text({**measured, **examination.faults_to_dict()}, indent=1)}\n".encode(),
            **charts,
        }
    )
    return folder / HTML_NAME


def check_page() -> None:
    """Raise MissingDependencyError where the extra "report", which draws and writes the page, is not installed."""
    for name in ("matplotlib.figure", "jinja2"):
        optional.load(name)


def document(examination: Examination, measured: Mapping[str, Any]) -> list[Section]:
    """The sections of the page; ``measured`` as above."""
    return [
        about_section(examination, measured),
        summary_section(examination),
        classes_section(examination),
        curves_section(examination),
        confusion_section(examination),
        *edges_sections(examination),
        images_section(examination),
    ]


def about_section(examination: Examination, measured: Mapping[str, Any]) -> Section:
    """What was evaluated, on what and by what."""
    evaluation = examination.evaluation
    model, backend = measured["model"], measured["backend"]
    words = [
        f"{model['file'] or model['name']}, run in {backend['name']}, on {evaluation.images} images of "
        f"{measured['annotations']}.",
        f"Command: {measured['command']}",
    ]
    points = []
    if evaluation.only_classes:
        points.append(f"Only these classes were evaluated: {', '.join(evaluation.only_classes)}.")
    if evaluation.skipped:
        points.append(f"Warning: {len(evaluation.skipped)} images could not be read and were left out.")
    if evaluation.left_out:
        names = ", ".join(evaluation.left_out)
        points.append(f"Warning: categories that the model does not know were left out: {names}.")
    return Section("About this evaluation", tuple(words), tuple(points))


def summary_section(examination: Examination) -> Section:
    """The twelve numbers."""
    metrics = examination.evaluation.metrics
    rows = tuple((name, number(metrics[name], missing="no such box"), MEANINGS[name]) for name in METRICS)
    words = ("COCO's numbers, in percent. Sizes are areas as the annotations state them.",)
    return Section("AP and recall", words, (), (Table("COCO metrics", ("metric", "percent", "which is"), rows),))


def classes_section(examination: Examination) -> Section:
    """AP of every class, and the score from which on it is worth showing."""
    headers = ("class", "boxes", "AP", "AP50", "best score", "F1 there", "shown from")
    rows = tuple(
        (
            result.name,
            str(result.boxes),
            number(result.ap, missing="-"),
            number(result.ap50, missing="-"),
            number(result.best_score, missing="-"),
            number(result.best_f1, missing="-"),
            number(shown),
        )
        for result, shown in zip(examination.classes, examination.shown_scores, strict=True)
        if result.boxes
    )
    found = sorted(_with_boxes(examination), key=lambda result: -(result.ap or 0.0))
    bars = ranked_bars("AP by class", "COCO AP, percent", [(each.name, each.ap or 0.0, "AP") for each in found])
    words = [
        "The best score is the one from which on a class has the highest F1 at an IoU of 0.5 on these images; "
        "--store-scores writes it into a copy of the model. Few boxes say little: see how many there are."
    ]
    without = len(examination.classes) - len(rows)
    if without:
        words.append(f"There is no box of {without} of {len(examination.classes)} classes.")
    figure = Figure("ap-by-class", "AP of each class with boxes; the table holds the same numbers", bars)
    return Section("Classes", tuple(words), (), (Table("Every class with boxes", headers, rows),), (figure,))


def curves_section(examination: Examination) -> Section:
    """Precision by recall, and F1 by score."""
    recalls = np.linspace(0, 1, RECALLS)
    most = sorted(_with_boxes(examination), key=lambda result: -result.boxes)[:MAX_CURVES]
    means = {
        "IoU 0.5": examination.precision[0],
        "IoU 0.75": examination.precision[5],
        "IoU 0.5 to 0.95": examination.precision.mean(axis=0),
    }
    charts = (
        ("precision-recall", "Precision by recall, mean of the classes", "recall", "precision", recalls, means),
        (
            "precision-recall-classes",
            "Precision by recall at IoU 0.5, the classes with the most boxes",
            *("recall", "precision", recalls, {result.name: result.precision for result in most}),
        ),
        (
            "f1-score",
            "F1 by score at IoU 0.5",
            *("shown from this score on", "F1", CANDIDATES),
            {"all classes": examination.f1, **{result.name: result.f1 for result in most}},
        ),
    )
    return Section("Curves", figures=tuple(_curves(*chart) for chart in charts))


def _curves(
    name: str, title: str, x_label: str, y_label: str, xs: Sequence[float], curves: Mapping[str, Sequence[float]]
) -> Figure:
    points = {each: list(zip(map(float, xs), map(float, ys), strict=True)) for each, ys in curves.items()}
    return Figure(name, title, line_chart(title, x_label, y_label, points, from_zero=True, marked=False))


def confusion_section(examination: Examination) -> Section:
    """What was taken for what."""
    confused = examination.confused()
    rows = tuple((box, found, str(count)) for box, found, count in confused[:MAX_ROWS])
    words = (
        "Detections from the shown scores on, each with the box that overlaps it most, by 0.5 at least, whatever their "
        f"classes. A box of {examination.background} is a detection of nothing, a box found as "
        f"{examination.background} was missed.",
    )
    table = Table("The most frequent confusions", ("box of", "found as", "times"), rows)
    figures = (_confusion_figure(examination),) if examination.confusion else ()
    return Section("Confusions", words, (), (table,) if rows else (), figures)


def _confusion_figure(examination: Examination) -> Figure:
    often = sorted(_with_boxes(examination), key=lambda result: -result.boxes)[:MAX_CONFUSED]
    names = [*(result.name for result in often), examination.background]
    values = [[float(examination.confusion.get((box, found), 0)) for found in names] for box in names]
    rest = "" if len(often) == len(_with_boxes(examination)) else f" of the {MAX_CONFUSED} classes with the most boxes"
    title = f"Boxes and what they were found as{rest}"
    return Figure("confusion", f"{title}; how often", heat_chart(title, "found as", "box of", names, values))


def edges_sections(examination: Examination) -> list[Section]:
    """Whether the sigmas of edges are as large as their errors; nothing of a model that gives none."""
    found = examination.evaluation.uncertainty
    if found is None:
        return []
    words = ("Of the edges of detections that are right; a sigma is right where 68 % of the errors are below it.",)
    chart = Figure("reliability", "Errors of edges by what the model expects", reliability_chart({"this model": found}))
    return [Section("Edges", words, (), (), (chart,))]


def images_section(examination: Examination) -> Section:
    """The images with the most faults."""
    rows = tuple(
        (examination.file_name(each.image_id), *(str(len(kind)) for kind in (each.missed, each.false, each.misplaced)))
        for each in examination.faults[:MAX_ROWS]
    )
    if not rows:
        return Section("The worst images", ("No image has a fault.",))
    words = (
        f"{len(examination.faults)} of {examination.evaluation.images} images have a fault, from the shown scores on. "
        f"The sheet shows the {min(MAX_IMAGES, len(rows))} with the most.",
    )
    table = Table("Faults by image", ("image", "missed", "false", "misplaced"), rows)
    sheet = worst_images(examination)
    figures = () if sheet is None else (Figure("worst-images", MEANING, embedded(sheet)),)
    return Section("The worst images", words, (), (table,), figures)


def embedded(image: Image) -> bytes:
    """An image, uint8 ``[H, W, 3]`` BGR, as an SVG that holds it as JPEG."""
    cv2 = optional.load("cv2")
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    height, width = image.shape[:2]
    size = f'width="{width * POINTS_PER_PIXEL:g}pt" height="{height * POINTS_PER_PIXEL:g}pt"'
    data = base64.b64encode(content.tobytes()).decode()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/></svg>\n'
    ).encode()


def _with_boxes(examination: Examination) -> list[ClassResult]:
    return [result for result in examination.classes if result.boxes]
