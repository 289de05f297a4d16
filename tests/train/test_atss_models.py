"""ATSS as mmdetection publishes it: its keys, maps, boxes, detections, assigned labels and losses.

The numbers of ``tests/support/mmdet_atss.py`` were computed by mmdetection 3.3.0 itself. What is compared element by
element is computed here by its formulas, written down from its source.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from gfl_edge.ops import decode
from gfl_edge.ops.postprocess import detections_from_scores
from tests.support import mmdet_atss as theirs
from train.config import read_config
from train.describe import describe
from train.models.gfl import GFL, GFLConfig
from train.models.gfl_head import delta_distances
from train.network import Normalized
from train.objective.criterion import CONFIGS, Criterion
from train.run import train as run
from train.structures import Outputs, Target
from train.validation import TorchBackend
from train.weights.loading import load_detector
from train.weights.trained import Trained

ATSS = {"family": "atss", "quality": "centerness", "regression": "delta"}
NAMES = ("a", "b", "c")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    config = GFLConfig(**ATSS, **theirs.SMALL)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in GFL(config).state_dict().items()}
    state = {key: torch.from_numpy(value) for key, value in theirs.drawn_state(shapes).items()}
    loaded = load_detector(state)
    assert loaded.config == config
    return loaded


def expected_boxes(deltas, input_hw):
    """mmdet/models/task_modules/coders/delta_xywh_bbox_coder.py (delta2bbox), for anchors of 8 strides on each cell."""
    boxes = []
    for level, stride in zip(deltas, theirs.STRIDES, strict=True):
        level = level.astype(np.float64)
        rows, columns = np.mgrid[: level.shape[2], : level.shape[3]] * stride
        limit = abs(np.log(16 / 1000))
        x, y = columns + 8 * stride * 0.1 * level[:, 0], rows + 8 * stride * 0.1 * level[:, 1]
        w, h = (8 * stride * np.exp(np.clip(0.2 * level[:, i], -limit, limit)) for i in (2, 3))
        corners = np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), axis=-1)
        boxes.append(corners.reshape(len(level), -1, 4))
    height, width = input_hw
    return np.clip(np.concatenate(boxes, axis=1), 0, (width, height, width, height))


def expected_scores(cls_scores, centernesses):
    """base_dense_head.py (_predict_by_feat_single): the product, of classes above the threshold by themselves."""
    found = []
    for level, centerness in zip(cls_scores, centernesses, strict=True):
        classes, factor = (1 / (1 + np.exp(-values.astype(np.float64))) for values in (level, centerness))
        found.append((classes * factor * (classes > 0.05)).reshape(*level.shape[:2], -1).swapaxes(1, 2))
    return np.concatenate(found, axis=1)


def maps_of(network, images):
    """By mmdetection's names, before anything is decoded."""
    seen = []
    hooks = [scale.register_forward_hook(lambda *call: seen.append(call[-1])) for scale in network.bbox_head.scales]
    with torch.no_grad():
        outputs = network.forward_train(images)
    for hook in hooks:
        hook.remove()
    return {"cls_scores": outputs.cls_logits, "bbox_preds": seen, "centernesses": outputs.centerness}


def test_maps_are_mmdetections(network):
    normalized = Normalized("atss")(torch.from_numpy(theirs.drawn_images()))
    for name, maps in maps_of(network, normalized).items():
        found = [[m.abs().mean(), m.mean(), m.flatten()[m.numel() // 2]] for m in maps]
        np.testing.assert_allclose(found, theirs.MAPS[name], atol=2e-4)


def test_boxes_and_scores_are_mmdetections(network):
    """Of every anchor, by its formulas; those with a class score of at most 0.05 it gives none."""
    spec = describe(network, input_hw=theirs.INPUT_HW, class_names=NAMES)
    images = theirs.drawn_images()
    maps = maps_of(network, Normalized("atss")(torch.from_numpy(images)))
    cls_scores, deltas, centernesses = ([level.numpy() for level in maps[name]] for name in maps)
    found = TorchBackend(network, spec, torch.device("cpu")).run(images)
    boxes = expected_boxes(deltas, theirs.INPUT_HW)
    np.testing.assert_allclose(found["boxes"], boxes, atol=1e-3)
    scores = expected_scores(cls_scores, centernesses) * ((boxes[..., 2:] - boxes[..., :2]).min(-1) > 0)[..., None]
    np.testing.assert_allclose(found["scores"][scores > 0], scores[scores > 0], atol=1e-5)
    assert (scores > 0).mean() > 0.05
    assert found["scores"][scores == 0].max() <= 0.05


def check_detections(found, expected):
    """Those above 0.05 are the same; below, mmdetection gives what has a class score above 0.05, and we give more."""
    for it, (total, above, score_sum, first, last) in zip(found, expected, strict=True):
        rows, scores = np.column_stack((it.boxes, it.scores, it.classes)), it.scores
        assert (len(rows) >= total, (scores > 0.05).sum()) == (True, above)
        assert scores[:above].sum() == pytest.approx(score_sum, abs=1e-3)
        np.testing.assert_allclose(rows[: len(first)], first, atol=2e-3)
        np.testing.assert_allclose(rows[above - 1], last, atol=2e-3)


def test_detections_are_mmdetections(network):
    spec = describe(network, input_hw=theirs.INPUT_HW, class_names=NAMES)
    outputs = TorchBackend(network, spec, torch.device("cpu")).run(theirs.drawn_images())
    found = [detections_from_scores(outputs["boxes"][i], outputs["scores"][i], spec) for i in range(theirs.IMAGES)]
    check_detections(found, theirs.DETECTIONS)


def test_the_threshold_of_a_class_score_is_squared(network):
    """mmdetection filters before it multiplies by the centerness: of its detections the products may be lower."""
    describe_with = functools.partial(describe, network, input_hw=theirs.INPUT_HW, class_names=NAMES)
    assert describe_with().score_threshold == pytest.approx(0.0025)
    assert describe_with(trained=Trained(score_threshold=0.1)).score_threshold == pytest.approx(0.01)
    assert describe_with(trained=Trained(score_threshold=0.0)).score_threshold == 0


@pytest.mark.parametrize("scale", [1, 30])  # the latter is clipped
def test_deltas_are_decoded_by_mmdetections_formulas(scale):
    deltas = [scale * level for level in theirs.drawn_maps()["bbox_preds"]]
    found = [delta_distances(torch.from_numpy(level)).flatten(2).transpose(1, 2) for level in deltas]
    centers, strides = decode.points(theirs.INPUT_HW, theirs.STRIDES, 0.0)
    distances = torch.cat(found, dim=1).numpy() * strides[:, None]
    boxes = decode.boxes_from_distances(distances, centers, theirs.INPUT_HW)
    np.testing.assert_allclose(boxes, expected_boxes(deltas, theirs.INPUT_HW), atol=2e-3)


def test_deltas_have_the_gradients_of_their_formulas():
    deltas = torch.tensor([0.3, -1.2, 4.0, 25.0]).reshape(1, 4, 1, 1).requires_grad_()
    delta_distances(deltas)[0, :2].sum().backward()  # left and top
    half_width = 4 * np.exp(0.2 * 4.0)
    expected = [-0.8, -0.8, 0.2 * half_width, 0]  # the height is clipped at 62.5 anchors
    np.testing.assert_allclose(deltas.grad.flatten(), expected, rtol=1e-5)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def learning():
    """The head's maps of mmdetection's numbers as the criterion takes them, and the raw maps that have gradients."""
    maps = {
        name: [torch.from_numpy(level).requires_grad_() for level in levels]
        for name, levels in theirs.drawn_maps().items()
    }
    distances = [delta_distances(level) for level in maps["bbox_preds"]]
    boxes = [
        (torch.tensor(boxes), torch.tensor(labels)) for boxes, labels in zip(theirs.BOXES, theirs.LABELS, strict=True)
    ]
    return Outputs(maps["cls_scores"], distances, maps["centernesses"]), [Target(*it) for it in boxes], maps


CRITERION = Criterion(dataclasses.replace(CONFIGS["atss"], num_classes=3))


def test_assigned_labels_are_mmdetections(learning):
    outputs, targets, _ = learning
    found = CRITERION.assign(outputs, targets, theirs.INPUT_HW)
    labels = torch.cat([target.labels for target in targets])[found.objects]
    assert torch.stack((found.images, found.cells, labels), dim=1).tolist() == theirs.ASSIGNED


def test_losses_and_gradients_are_mmdetections(learning):
    outputs, targets, maps = learning
    losses = CRITERION.per_level(outputs, targets, theirs.INPUT_HW)
    assert losses.keys() == theirs.LOSSES.keys()
    for name, expected in theirs.LOSSES.items():
        np.testing.assert_allclose(losses[name].detach(), expected, atol=2e-6, rtol=2e-5)
    sum(level.sum() for level in losses.values()).backward()
    for name, levels in maps.items():
        found = [0 if level.grad is None else level.grad.norm() for level in levels]
        np.testing.assert_allclose(found, theirs.GRADIENT_NORMS[name], atol=1e-6, rtol=1e-4)


def test_every_parameter_learns(network):
    learner = GFL(network.config)
    images = torch.randn(2, 3, *theirs.INPUT_HW, generator=torch.Generator().manual_seed(0))
    targets = [
        Target(torch.tensor(boxes), torch.tensor(labels))
        for boxes, labels in zip(theirs.BOXES, theirs.LABELS, strict=True)
    ]
    learner.load_state_dict(network.state_dict())
    sum(CRITERION(learner.forward_train(images), targets, theirs.INPUT_HW).values()).backward()
    assert [name for name, value in learner.named_parameters() if value.grad is None] == []
    assert learner.bbox_head.atss_reg.weight.grad.any()


@pytest.mark.slow
def test_a_run_learns_and_its_checkpoint_is_exported(toml, tmp_path):
    from export.arguments import ExportRequest
    from export.to_onnx import export_onnx

    fields = {"family": '"atss"', "quality": '"centerness"', "regression": '"delta"'}
    words = [f"model.gfl.{name}={value}" for name, value in fields.items()]
    metrics = run(read_config(toml, [*words, "train.epochs=20"]))
    assert metrics["AP50"] > 20
    spec = export_onnx(ExportRequest(tmp_path / "run" / "last.pt"), tmp_path / "m.onnx").spec
    assert (spec.name, spec.reg_max, spec.class_names) == ("atss-r18-64", 0, ("white", "gray"))
