"""GFL networks: parity with mmdetection, deformable convolution, joint scores, training outputs, shipped configs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gfl_edge.ops import decode
from gfl_edge.ops.boxes import multiclass_nms
from train.models.batch_norm import fuse_batch_norm
from train.models.gfl import GFL, GFLConfig
from train.models.gfl_head import GroupNorm, distribution_statistics, joint_logits
from train.models.nanodet import NanoDet, NanoDetConfig
from train.models.resnet import ResNetLayout
from train.weights.loading import load_detector

SMALL = {"base_channels": 16, "neck_channels": 64, "head_channels": 64}
DCN = {"dcn": "v1", "dcn_stages": (False, False, True, True)}
RUNS = {
    "gfl_r50_small": GFLConfig(**SMALL),
    "gfl_r50_dcn_c3-c5_small": GFLConfig(**SMALL, dcn="v1", dcn_stages=(False, True, True, True)),
    "gfl_x50-32x1d_dcn_c4-c5_small": GFLConfig(**SMALL, **DCN, groups=32, base_width=1),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def rows(level):
    """One image's map ``[X, H, W]`` -> ``[H * W, X]``."""
    return level.flatten(1).T.numpy()


# --- against mmdetection ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=RUNS)
def run(request, data):
    """What mmdetection computed, its configuration, and the raw maps of our network."""
    expected = torch.load(data(f"../fixtures/{request.param}.pt"), weights_only=True)
    detector = load_detector(expected["state_dict"])
    with torch.no_grad():
        return expected, detector.config, RUNS[request.param], detector(expected["image"].float())


def test_the_architecture_is_read_off_keys_and_shapes(run):
    _, inferred, config, _ = run
    assert inferred == config


def test_raw_maps_equal_mmdetections(run):
    expected, _, _, (cls_logits, reg_logits) = run
    for mine, theirs in zip(
        (*cls_logits, *reg_logits), (*expected["cls_scores"], *expected["bbox_preds"]), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def detections(cls_logits, reg_logits, image, input_hw, config, test_cfg):
    """mmdetection's post-processing: the best pairs of each level, then class-wise NMS over all of them."""
    all_scores, all_logits = [], []
    for cls_level, reg_level in zip(cls_logits, reg_logits, strict=True):
        scores = rows(cls_level[image].sigmoid())
        threshold = np.sort(scores, axis=None)[-min(test_cfg["nms_pre"], scores.size)]
        all_scores.append(np.where(scores >= threshold, scores, 0))
        all_logits.append(rows(reg_level[image]))
    return multiclass_nms(
        decode.decode(np.concatenate(all_logits), input_hw, config.strides, 0.0),
        np.concatenate(all_scores),
        score_threshold=test_cfg["score_thr"],
        iou_threshold=test_cfg["iou"],
        max_candidates=len(config.strides) * test_cfg["nms_pre"],
        max_detections=test_cfg["max_per_img"],
    )


@pytest.mark.parametrize("image", [0, 1])
def test_detections_equal_mmdetections(run, image):
    expected, _, config, maps = run
    boxes, scores, labels = detections(*maps, image, expected["image"].shape[-2:], config, expected["test_cfg"])
    theirs = expected["detections"][image]
    assert len(scores) == 100
    np.testing.assert_allclose(scores, theirs["scores"].numpy(), atol=1e-5)
    np.testing.assert_array_equal(labels, theirs["labels"].numpy())
    np.testing.assert_allclose(boxes, theirs["bboxes"].numpy(), atol=1e-3)


def test_half_precision_stays_close_to_float(run):
    expected, _, _, exact = run
    detector = fuse_batch_norm(load_detector(expected["state_dict"])).half()
    with torch.no_grad():
        halved = detector(expected["image"].half())
    for mine, theirs in zip((*halved[0], *halved[1]), (*exact[0], *exact[1]), strict=True):
        assert (mine.float() - theirs).abs().max() < 0.01 * theirs.abs().max()


# --- heads -----------------------------------------------------------------------------------------------------------


def test_group_norm_of_large_half_activations():
    torch.manual_seed(0)
    norm = GroupNorm(2, 8)
    x = 500 * torch.randn(1, 8, 64, 64)  # whose squares are beyond half's largest number, 65504
    exact = norm(x)
    halved = norm.half()(x.half())
    assert halved.dtype == torch.float16
    torch.testing.assert_close(halved.float(), exact, atol=5e-3, rtol=0)


@pytest.mark.parametrize("fields", [{"family": "gflv2"}, {"quality": "centerness"}])
def test_half_networks_with_a_joint_score_stay_close_to_float(fields):
    torch.manual_seed(0)
    dcn = {"dcn": "v2", "dcn_stages": (False, False, False, True)}
    detector = GFL(GFLConfig(**fields, **dcn, num_classes=4, **SMALL)).eval()
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        exact = detector(x)
        halved = fuse_batch_norm(detector).half()(x.half())
    assert {level.dtype for level in halved[0]} == {torch.float32}
    for mine, theirs in zip((*halved[0], *halved[1]), (*exact[0], *exact[1]), strict=True):
        torch.testing.assert_close(mine.float(), theirs, atol=0.01, rtol=0)


def test_joint_logits_are_the_logit_of_the_product():
    cls_logits, quality = torch.meshgrid(torch.linspace(-12, 12, 49), torch.linspace(-12, 12, 49), indexing="ij")
    product = cls_logits.double().sigmoid() * quality.double().sigmoid()
    expected = torch.log(product) - torch.log1p(-product)
    torch.testing.assert_close(joint_logits(cls_logits, quality).double(), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("extreme", [-1000.0, -100.0, 100.0, 1000.0])
def test_joint_logits_of_extreme_logits_are_finite_and_have_gradients(extreme):
    cls_logits = torch.tensor([extreme], dtype=torch.float32, requires_grad=True)
    quality = torch.tensor([extreme], dtype=torch.float32, requires_grad=True)
    result = joint_logits(cls_logits, quality)
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert cls_logits.grad is not None
    assert torch.isfinite(cls_logits.grad).all()
    assert torch.isfinite(quality.grad).all()


def test_joint_logits_of_half_maps_are_float():
    assert joint_logits(torch.zeros(1).half(), torch.zeros(1).half()).dtype == torch.float32


def test_distribution_statistics_are_the_four_largest_and_their_mean_per_edge():
    torch.manual_seed(0)
    logits = torch.randn(2, 4 * 17, 3, 5)
    statistics = distribution_statistics(logits, 17)
    assert statistics.shape == (2, 20, 3, 5)
    bottom = np.sort(logits[1, 51:, 2, 4].softmax(0).numpy())[::-1][:4]
    np.testing.assert_allclose(statistics[1, 15:20, 2, 4].numpy(), [*bottom, bottom.mean()], atol=1e-6)


def test_gflv2_scores_are_class_times_quality():
    torch.manual_seed(0)
    detector = GFL(GFLConfig(family="gflv2", num_classes=4, **SMALL)).eval()
    head, seen = detector.bbox_head, {}
    head.gfl_cls.register_forward_hook(lambda *call: seen.setdefault("cls", call[-1]))
    head.reg_conf.register_forward_hook(lambda *call: seen.setdefault("quality", call[-1]))
    with torch.no_grad():
        cls_logits, _ = detector(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(cls_logits[0].sigmoid(), seen["cls"].sigmoid() * seen["quality"].sigmoid())


def test_baselines_of_the_paper():
    torch.manual_seed(0)
    config = GFLConfig(depth=18, num_classes=4, quality="centerness", regression="dirac", **SMALL)
    detector = GFL(config).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        outputs = detector.forward_train(images)
        cls_logits, distances = detector(images)
    assert outputs.centerness is not None
    assert [tuple(m.shape) for m in outputs.centerness[:2]] == [(2, 1, 8, 12), (2, 1, 4, 6)]
    assert [tuple(m.shape) for m in distances[:2]] == [(2, 4, 8, 12), (2, 4, 4, 6)]
    assert all((level > 0).all() for level in distances)
    joint = outputs.cls_logits[0].sigmoid() * outputs.centerness[0].sigmoid()
    torch.testing.assert_close(cls_logits[0].sigmoid(), joint)


@pytest.mark.parametrize(
    ("fields", "levels"),
    [
        ({"depth": 18}, 5),
        ({"depth": 34, "strides": (8, 16, 32, 64)}, 4),
        ({"backbone": "efficientnet-lite0"}, 5),
        ({"backbone": "efficientnet-lite0", "neck": "pan", "strides": (8, 16, 32)}, 3),
    ],
)
def test_light_backbones(fields, levels):
    detector = GFL(GFLConfig(**{**SMALL, "num_classes": 4, **fields})).eval()
    with torch.no_grad():
        cls_logits, reg_logits = detector(torch.zeros(1, 3, 128, 160))
    sizes = [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)][:levels]
    assert [tuple(m.shape) for m in cls_logits] == [(1, 4, *size) for size in sizes]
    assert [tuple(m.shape) for m in reg_logits] == [(1, 68, *size) for size in sizes]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 51}, "depth 51: expected one of 18, 34, 50, 101"),
        ({"depth": 18, **DCN}, "depth 18 has neither groups nor deformable"),
        ({"dcn": "v1"}, "give both or neither"),
        ({"strides": (4, 8, 16)}, "expected 8, 16, 32 and doublings"),
        ({"neck": "pan"}, "take the fpn neck for more"),
        ({"head_channels": 40}, "no multiple of num_groups 32"),
        ({"num_classes": 0}, "num_classes 0, reg_max 16: expected 1 or more"),
        ({"family": "gflv2", "quality": "centerness"}, "gflv2 predicts its quality"),
        ({"family": "atss"}, "atss is trained with quality 'centerness', regression 'delta': give both"),
        ({"family": "atss", "quality": "centerness"}, "atss is trained with quality 'centerness', regression 'delta'"),
        ({"quality": "centerness", "regression": "delta"}, "gfl predicts no differences from anchors"),
    ],
)
def test_fields_that_do_not_fit_together(fields, message):
    with pytest.raises(ValueError, match=message):
        GFLConfig(**fields)


def test_widths_of_resnext_follow_mmdetection():
    layout = ResNetLayout(101, groups=32, base_width=4)
    assert [layout.width(stage) for stage in range(4)] == [128, 256, 512, 1024]


# --- training --------------------------------------------------------------------------------------------------------


def test_untrained_classes_start_near_the_prior_and_residuals_at_zero():
    torch.manual_seed(0)
    detector = GFL(GFLConfig(num_classes=4, **SMALL)).eval()
    with torch.no_grad():
        cls_logits, reg_logits = detector(torch.randn(1, 3, 64, 64))
    assert all(level.sigmoid().min() > 0.005 and level.sigmoid().max() < 0.02 for level in cls_logits)
    assert all(level.abs().max() < 1 for level in reg_logits)
    assert not detector.backbone.layer3[0].bn3.weight.any()


@pytest.mark.parametrize("family", ["nanodet", "nanodet-plus"])
def test_an_untrained_nanodet_starts_as_in_nanodet(family):
    detector = NanoDet(NanoDetConfig(family, 3, stage_channels=(16, 32, 64), neck_channels=32))
    for predict in detector.head.gfl_cls:
        torch.testing.assert_close(predict.bias[:3].sigmoid(), torch.full((3,), 0.01))
        assert not predict.bias[3:].any()
    norms = [module for module in detector.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 1e-4).all() for norm in norms)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    config = GFLConfig(family="gflv2", num_classes=4, dcn="v2", dcn_stages=(False, True, False, True), **SMALL)
    detector = GFL(config)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # zero at the ends of residuals would hide what lies before
    outputs = detector.forward_train(torch.randn(2, 3, 128, 128))
    loss = sum(level.square().mean() for level in (*outputs.cls_logits, *outputs.reg_logits))
    loss.backward()
    silent = [name for name, value in detector.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


@pytest.fixture(params=["gfl", "efficientnet-lite0", "nanodet-plus"])
def trainable(request):
    """A small detector of each kind of backbone in training mode."""
    torch.manual_seed(0)
    if request.param == "nanodet-plus":
        return NanoDet(NanoDetConfig("nanodet-plus", 3, stage_channels=(16, 32, 64), neck_channels=32))
    backbone = "resnet" if request.param == "gfl" else request.param
    return GFL(GFLConfig(backbone=backbone, num_classes=3, **SMALL))


def test_frozen_stages_and_statistics_do_not_move(trainable):
    trainable.freeze(stages=1)
    trainable.train()
    before = {name: value.clone() for name, value in trainable.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in trainable.parameters() if p.requires_grad], lr=0.1)
    outputs = trainable.forward_train(torch.randn(2, 3, 64, 64))
    sum(level.square().mean() for level in (*outputs.cls_logits, *outputs.reg_logits)).backward()
    optimizer.step()
    frozen = {id(value) for stage in trainable.backbone_stages()[:2] for m in stage for value in m.parameters()}
    names = {name for name, value in trainable.named_parameters() if id(value) in frozen}
    statistics = {name for name in before if name.startswith("backbone.") and "running_" in name}
    moved = {name for name, value in trainable.state_dict().items() if not torch.equal(value, before[name])}
    assert names
    assert statistics
    assert not moved & (names | statistics)
    assert any(name.startswith("backbone.") for name in moved)


def test_freezing_can_be_taken_back(trainable):
    trainable.freeze(stages=2)
    trainable.freeze(stages=-1, norm_eval=False)
    assert all(value.requires_grad for value in trainable.parameters())
    assert all(module.training for module in trainable.train().modules())
    with pytest.raises(ValueError, match=r"stages 9: expected -1 to"):
        trainable.freeze(stages=9)


def test_the_auxiliary_head_of_nanodet_plus():
    torch.manual_seed(0)
    config = NanoDetConfig("nanodet-plus", 3, stage_channels=(16, 32, 64), neck_channels=32)
    detector = NanoDet(config, auxiliary=True)
    images = torch.randn(2, 3, 64, 96)
    outputs = detector.forward_train(images)
    assert outputs.auxiliary is not None
    for own, auxiliary in zip(outputs.reg_logits, outputs.auxiliary.reg_logits, strict=True):
        assert own.shape == auxiliary.shape == (2, 32, *own.shape[-2:])
    keys = detector.state_dict().keys()
    assert {"aux_fpn.reduce_layers.0.conv.weight", "aux_head.cls_convs.3.gn.weight", "aux_head.scales.3.scale"} <= keys
    assert load_detector(detector.state_dict()).config == config  # which has no use for it
    outputs = detector.forward_train(images, detach_auxiliary=True)
    sum(level.sum() for level in outputs.auxiliary.cls_logits).backward()
    touched = {name.split(".")[0] for name, value in detector.named_parameters() if value.grad is not None}
    assert touched == {"aux_fpn", "aux_head"}
    with pytest.raises(ValueError, match="nanodet has no auxiliary head"):
        NanoDet(NanoDetConfig("nanodet"), auxiliary=True)
