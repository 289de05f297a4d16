"""GFL networks: parity with mmdetection, deformable convolution, joint scores, training outputs, shipped configs."""

from __future__ import annotations

import json
import math

import numpy as np
import onnxruntime
import pytest
import torch

from gfl_edge.errors import InputError
from gfl_edge.ops import decode
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.zoo.catalogue import CATALOGUE
from train.models.batch_norm import fuse_batch_norm
from train.models.deform_conv import DeformConv2d, deform_conv2d
from train.models.gfl import GFL, GFLConfig
from train.models.gfl_head import GFLHead, GroupNorm, HeadLayout, distribution_statistics, joint_logits
from train.models.nanodet import NanoDet, NanoDetConfig
from train.models.published import build_model, model_files, read_model_file
from train.models.resnet import Bottleneck, ResNetLayout
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


# --- deformable convolution ------------------------------------------------------------------------------------------


def reference_deform(x, weight, offset, mask, bias, stride, padding, groups):
    """mmcv's definition, one sample at a time, float64."""
    outputs, inputs_per_group = weight.shape[:2]
    height, width = x.shape[-2:]
    result = np.zeros((len(x), outputs, *offset.shape[-2:]))

    def pixel(n, channel, i, j):
        return x[n, channel, i, j] if 0 <= i < height and 0 <= j < width else 0.0

    def sample(n, channel, y, xx):
        i, j = math.floor(y), math.floor(xx)
        a, b = y - i, xx - j
        top = (1 - b) * pixel(n, channel, i, j) + b * pixel(n, channel, i, j + 1)
        bottom = (1 - b) * pixel(n, channel, i + 1, j) + b * pixel(n, channel, i + 1, j + 1)
        return (1 - a) * top + a * bottom

    for n, d, row, column in np.ndindex(result.shape):
        first = d // (outputs // groups) * inputs_per_group
        for point in range(9):
            dy, dx = offset[n, 2 * point : 2 * point + 2, row, column]
            y = row * stride - padding + point // 3 + dy
            xx = column * stride - padding + point % 3 + dx
            factor = 1.0 if mask is None else mask[n, point, row, column]
            for channel in range(inputs_per_group):
                value = sample(n, first + channel, y, xx)
                result[n, d, row, column] += weight[d, channel, point // 3, point % 3] * value * factor
    return result + (0 if bias is None else bias[:, None, None])


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "modulated"),
    [(1, 1, 1, False), (2, 1, 2, False), (1, 0, 4, True), (2, 1, 1, True)],
)
def test_deform_conv_against_its_definition(stride, padding, groups, modulated):
    generator = np.random.default_rng(stride + groups)
    x = generator.normal(size=(2, 4, 5, 7))
    size = [(side + 2 * padding - 3) // stride + 1 for side in x.shape[-2:]]
    weight = generator.normal(size=(4, 4 // groups, 3, 3))
    offset = generator.normal(0, 2, size=(2, 18, *size))  # some samples far outside
    mask = generator.uniform(size=(2, 9, *size)) if modulated else None
    bias = generator.normal(size=4) if modulated else None
    expected = reference_deform(x, weight, offset, mask, bias, stride, padding, groups)
    tensors = [None if a is None else torch.from_numpy(a).float() for a in (x, weight, offset, mask, bias)]
    got = deform_conv2d(*tensors, stride=stride, padding=padding, groups=groups)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_without_offsets_it_is_an_ordinary_convolution(kind):
    torch.manual_seed(0)
    conv = DeformConv2d(8, 8, kind, stride=2, groups=2)
    x = torch.randn(1, 8, 9, 6)
    ordinary = torch.nn.functional.conv2d(x, conv.weight, None, 2, 1, groups=2)
    if kind == "v2":  # untrained masks are sigmoid(0)
        ordinary = ordinary / 2
    torch.testing.assert_close(conv(x), ordinary, atol=1e-5, rtol=0)


def test_a_single_row_or_column():
    conv = DeformConv2d(2, 2, "v1")
    assert torch.isfinite(conv(torch.randn(1, 2, 1, 1))).all()


def test_half_precision_samples_far_cells_as_exactly_as_near_ones():
    """Coordinates in half would move the samples beyond cell 1024 by up to half a cell."""
    x = torch.arange(2000.0).remainder(2).expand(1, 1, 3, 2000).contiguous()
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    offset = torch.full((1, 18, 3, 2000), 0.25)
    offset[:, 0::2] = 0
    half = deform_conv2d(x.half(), weight.half(), offset.half(), None, None, stride=1, padding=1, groups=1)
    assert half.dtype == torch.float16
    full = deform_conv2d(x, weight, offset, None, None, stride=1, padding=1, groups=1)
    torch.testing.assert_close(half.float(), full, atol=1e-3, rtol=0)


def test_a_batch_norm_folds_into_it():
    torch.manual_seed(0)
    block = Bottleneck(16, 16, width=8, stride=1, groups=2, dcn="v2").eval()
    torch.nn.init.normal_(block.conv2.conv_offset.weight, std=0.1)
    torch.nn.init.uniform_(block.bn2.running_mean)
    torch.nn.init.uniform_(block.bn2.bias)
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse_batch_norm(block)(x), block(x), atol=1e-4, rtol=0)


def test_an_exporter_can_replace_the_operator():
    conv = DeformConv2d(2, 2, "v2", stride=2)
    seen = {}

    def operator(x, weight, offset, mask, bias, *, stride, padding, groups):
        seen.update(offset=offset.shape[1], mask=mask.shape[1], stride=stride, padding=padding, groups=groups)
        return x

    conv.operator = operator
    conv(torch.zeros(1, 2, 4, 4))
    assert seen == {"offset": 18, "mask": 9, "stride": 2, "padding": 1, "groups": 1}


class DeformableHead(torch.nn.Module):
    """One DCNv2 and the head of GFLv2: everything of the family that is not an ordinary convolution."""

    def __init__(self):
        super().__init__()
        self.conv = DeformConv2d(3, 32, "v2", stride=2)
        torch.nn.init.normal_(self.conv.conv_offset.weight, std=0.5)
        self.head = GFLHead(HeadLayout(4, 32, 32, levels=1, reg_max=16, stacked_convs=1, quality="guided"))

    def forward(self, images):
        outputs = self.head([self.conv(images)])
        return outputs.cls_logits[0], outputs.reg_logits[0]


def test_dcnv2_and_gflv2_export_at_any_size():
    torch.manual_seed(0)
    network = DeformableHead().eval()
    sizes = {0: torch.export.Dim("batch", min=1)}
    sizes |= {axis: 32 * torch.export.Dim(name, min=2, max=42) for axis, name in ((2, "rows"), (3, "columns"))}
    example = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        program = torch.onnx.export(
            network, (example,), dynamic_shapes={"images": sizes}, opset_version=18, dynamo=True, verbose=False
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        for got, expected in zip(session.run(None, {"images": images.numpy()}), network(images), strict=True):
            np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)


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


# --- shipped configurations ------------------------------------------------------------------------------------------


def shapes(detector):
    return {name: list(value.shape) for name, value in detector.state_dict().items()}


@pytest.mark.parametrize("name", model_files())
def test_shipped_models_build_and_have_the_published_keys(name, data):
    model = read_model_file(name)
    with torch.device("meta"):
        built = shapes(build_model(name))
    assert model.published.project == CATALOGUE[name].project
    if model.architecture.family == "gfl":
        expected = json.loads(data(f"../fixtures/mmdet_keys/{model.published.name}.json").read_text())
        assert expected.pop("bbox_head.integral.project") == [17]
        assert built == expected
    else:
        assert built["bbox_head.reg_conf.0.weight"] == [64, 20, 1, 1]


def test_there_is_a_file_for_each_published_model():
    assert len({read_model_file(path).published.name for path in model_files().values()}) == 10
    assert set(model_files()) == {name for name in CATALOGUE if name.startswith("gfl")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[architecture]\ndepht = 50\n", r"depht: no such field; depth\?"),
        ("[architecture]\ndepth = '50'\n", r"depth '50': expected a whole number"),
        ("[architecture]\ndepth = 51\n", r"depth 51: expected one of 18, 34, 50, 101"),
        ("[architecture]\n[architekture]\n", r"architekture: no such field"),
        ("[architecture\n", "is no TOML"),
    ],
)
def test_faulty_model_files(tmp_path, text, message):
    path = tmp_path / "model.toml"
    path.write_text('[published]\nname = "n"\nproject = "p"\n' + text)
    with pytest.raises(InputError, match=message):
        read_model_file(path)


def test_a_missing_model_file_lists_those_there_are():
    with pytest.raises(InputError, match=r"no such model\. Give a \.toml file or one of gfl-r101-2x, .*gflv2-r50-1x"):
        read_model_file("gfl-r51")
