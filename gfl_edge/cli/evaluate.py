"""The command ``gfl-edge eval``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

from gfl_edge import optional
from gfl_edge.cli.options import add_format, add_measured_images, add_model, add_on_bad, open_detector
from gfl_edge.cli.result import check_result, described, write_result
from gfl_edge.console import log
from gfl_edge.detector import Detector
from gfl_edge.engine.storing import check_copy, copy_with_spec
from gfl_edge.errors import InputError
from gfl_edge.evaluation.ap import Evaluation, Evaluator, evaluate
from gfl_edge.evaluation.examination import Examination, examine
from gfl_edge.evaluation.page import HTML_NAME, JSON_NAME, check_page, write_evaluation
from gfl_edge.evaluation.uncertainty import learned_scale
from gfl_edge.files import check_output, write_atomically
from gfl_edge.filters.arguments import add_classes, add_score, chosen_classes, join_scores
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.report.reliability import reliability_chart
from gfl_edge.results.evaluated import evaluated, file_category_ids
from gfl_edge.results.formats import Format, check_results, join_formats, result_files
from gfl_edge.results.write import write_results


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    add_measured_images(parser)
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="COCO instances file")
    add_on_bad(parser)
    parser.add_argument(
        "--evaluator",
        choices=get_args(Evaluator),
        default="pycocotools",
        help="what computes AP; the numbers are the same, faster-coco-eval takes less time (default: pycocotools)",
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        metavar="DIR",
        help=f"write {HTML_NAME} there, with AP by class, curves, confusions and the worst images",
    )
    add_format(parser)
    add_score(parser, "with --format, write from this score on (default: all that AP is computed of)")
    add_classes(parser, "evaluate, and write, only these")
    parser.add_argument(
        "--store-scores",
        type=Path,
        metavar="COPY",
        help="write a copy of the model that recommends for each class the score with the highest F1 on these images; "
        "measure on others than those it is tested on",
    )
    sigmas = parser.add_argument_group("of a model with --uncertainty")
    sigmas.add_argument(
        "--reliability-chart", type=Path, metavar="OUT.svg", help="draw the errors of edges over their sigmas"
    )
    sigmas.add_argument(
        "--store-sigma-scale",
        type=Path,
        metavar="COPY",
        help="write a copy of the model with the factors by which one sigma covers 68 %% of these errors; measure on "
        "other images than those it is tested on",
    )


def run(args: argparse.Namespace) -> int:
    """Measure AP and print it as JSON, write its page, and store what it recommends."""
    check_result(args)
    if args.output_dir:
        check_output(args.output_dir / HTML_NAME)
        check_page()
    files, keep = _result_files(args)
    with open_detector(args, "throughput") as detector:
        keep.check_classes(detector.spec.class_names)
        if args.store_scores:
            check_copy(_file(detector), args.store_scores)
        _check_sigmas(args, detector)
        result = evaluate(
            *(detector, args.images, args.annotations, args.limit),
            evaluator=args.evaluator,
            on_bad=args.on_bad,
            classes=keep.classes,
        )
        found = examine(result, detector.spec)
        measured = described({**result.to_dict(), **found.to_dict(), **detector.describe()}, args)
        page = write_evaluation(found, measured, args.output_dir) if args.output_dir else None
        if files:
            ids = file_category_ids(result.evidence)
            write_results(evaluated(result.evidence, keep), files, detector.spec.class_names, ids)
        write_result(measured, result.skipped, args)  # before what may still fail, as on too few edges
        log(f"AP {measured['AP']}, AP50 {measured['AP50']} on {measured['images']} images")
        for path in (page, *files.values()):
            if path:
                log(f"wrote {path}")
        if args.store_scores:
            _store(found, detector, args.store_scores)
        _write_sigmas(args, detector, result)
    return 0


def _result_files(args: argparse.Namespace) -> tuple[dict[Format, Path], DetectionFilter]:
    """Where results are written, and which of them, before anything is measured."""
    scores, formats = join_scores(args.score), join_formats(args.format)
    keep = DetectionFilter(scores.general, scores.by_class, chosen_classes(args))
    if args.score and not formats:
        raise InputError("--score chooses what --format writes: give it, as --format coco. AP is of all scores")
    if not formats:
        return {}, keep
    if not args.output_dir:
        raise InputError("--format writes into a folder: name it with -o DIR")
    files = result_files(formats, args.output_dir)
    pages = [args.output_dir / name for name in (HTML_NAME, JSON_NAME)]
    check_results(files, [*pages, *(path for path in (args.annotations, args.json, args.model) if path)])
    return files, keep


def _file(detector: Detector) -> Path:
    """The model's file."""
    if detector.path is None:
        raise InputError("a copy of the model's file was requested, and this model has none")
    return detector.path


def _store(found: Examination, detector: Detector, output: Path) -> None:
    """Write a copy of the model with the best score of each class; those without one keep theirs."""
    best = {each.name: each.best_score for each in found.classes if each.best_score is not None}
    own = zip(detector.spec.class_names, detector.spec.shown_scores, strict=True)
    scores = tuple(best.get(name, score) for name, score in own)
    copy_with_spec(_file(detector), output, lambda spec: replace(spec, class_scores=scores))
    log(f"{output}: best scores of {len(best)} classes; {len(scores) - len(best)} without one keep theirs")


def _check_sigmas(args: argparse.Namespace, detector: Detector) -> None:
    """Raise GflEdgeError before the measurement where the options about sigmas cannot be followed after it."""
    if args.reliability_chart:
        detector.spec.require_sigmas("--reliability-chart")
        optional.load("matplotlib.figure")
        check_output(args.reliability_chart)
    if args.store_sigma_scale:
        detector.spec.require_sigmas("--store-sigma-scale")
        check_copy(_file(detector), args.store_sigma_scale)


def _write_sigmas(args: argparse.Namespace, detector: Detector, result: Evaluation) -> None:
    """Write the chart, and a copy of the model with its factors."""
    if result.uncertainty is None:
        return
    if args.reliability_chart:
        write_atomically(args.reliability_chart, reliability_chart({detector.spec.name: result.uncertainty}))
    if args.store_sigma_scale:
        scale, output = learned_scale(result.uncertainty, detector.spec), args.store_sigma_scale
        source = output if output == args.store_scores else _file(detector)  # both may go into one copy
        copy_with_spec(source, output, lambda spec: replace(spec, sigma_scale=scale))
        log(f"{output}: sigma_scale {', '.join(f'{one:g}' for one in scale)} (left, top, right, bottom)")
