"""The training objective against what mmdetection and nanodet computed, and what it promises by itself."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from train.objective.criterion import CONFIGS, Criterion, CriterionConfig
from train.objective.losses import iou
from train.structures import Outputs, Target

# --- inputs ----------------------------------------------------------------------------------------------------------


def random_maps(rng, config, num_images, input_hw, quality="joint"):
    """Maps of an untrained head. A frozen stream of random numbers: the literals below depend on it."""
    bins = 1 if config.regression == "dirac" else config.reg_max + 1
    shapes = [(-(-input_hw[0] // stride), -(-input_hw[1] // stride)) for stride in config.strides]

    def draw(channels, mean, std):
        maps = [rng.normal(mean, std, (num_images, channels, *shape)).astype(np.float32) for shape in shapes]
        return [torch.from_numpy(values) for values in maps]

    cls_logits, reg_logits = draw(config.num_classes, -2.5, 1.2), draw(4 * bins, 0, 2)
    if config.regression == "dirac":
        reg_logits = [values.abs() + 0.5 for values in reg_logits]
    return Outputs(cls_logits, reg_logits, draw(1, 0, 1) if quality == "centerness" else None)


def random_batch(config, counts, input_hw=(96, 160), seed=0, auxiliary=False):
    """Outputs for, and targets with, so many boxes an image."""
    rng = np.random.RandomState(seed)
    targets = []
    for count in counts:
        centers = rng.uniform(0.1, 0.9, (count, 2)) * input_hw[::-1]
        halves = 5 * 2 ** rng.uniform(0, 3, (count, 2))
        boxes = np.concatenate((centers - halves, centers + halves), axis=1).clip(0, np.tile(input_hw[::-1], 2))
        labels = rng.randint(0, config.num_classes, count)
        targets.append(Target(torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))))
    outputs = random_maps(rng, config, len(counts), input_hw, config.quality)
    if auxiliary:
        outputs = dataclasses.replace(outputs, auxiliary=random_maps(rng, config, len(counts), input_hw))
    return outputs, targets, input_hw


def require_grad(outputs):
    """All maps of ``outputs`` and of its auxiliary head, which then want gradients."""
    maps = [*outputs.cls_logits, *outputs.reg_logits, *(outputs.centerness or [])]
    for values in maps:
        values.requires_grad_()
    return maps + (require_grad(outputs.auxiliary) if outputs.auxiliary else [])


def dense_labels(criterion, outputs, targets, input_hw):
    """Class of every cell ``[N, A]``, ``num_classes`` for background, as the fixtures have it."""
    positives = criterion.assign(outputs, targets, input_hw)
    num_cells = sum(values.shape[2] * values.shape[3] for values in outputs.cls_logits)
    labels = torch.full((len(targets), num_cells), criterion.config.num_classes)
    labels[positives.images, positives.cells] = torch.cat([target.labels for target in targets])[positives.objects]
    return labels


# --- against mmdetection and nanodet ---------------------------------------------------------------------------------

FIXTURES = {
    "gfl_head_losses": ((416, 544), 10),
    "gfl_r50_small": ((128, 160), 80),
    "gfl_r50_dcn_c3-c5_small": ((128, 160), 80),
    "gfl_x50-32x1d_dcn_c4-c5_small": ((128, 160), 80),
}


@pytest.fixture(params=FIXTURES)
def recorded(request, data):
    """What mmdetection 3.3.0 computed, the maps it had, and the criterion that should compute the same."""
    expected = torch.load(data(f"../fixtures/{request.param}.pt"), weights_only=True)
    input_hw, num_classes = FIXTURES[request.param]
    targets = [Target(one["bboxes"], one["labels"]) for one in expected["gt"]]
    outputs = Outputs(expected["cls_scores"], expected["bbox_preds"])
    return expected, Criterion(CriterionConfig(num_classes=num_classes)), (outputs, targets, input_hw)


def test_assigned_labels_are_mmdetections(recorded):
    expected, criterion, batch = recorded
    if "targets" in expected:
        labels = torch.cat(expected["targets"]["labels"], dim=1)
    else:
        labels = torch.stack(expected["assigned_labels"]).long()
    assert torch.equal(dense_labels(criterion, *batch), labels)


def test_assigned_boxes_are_mmdetections(recorded):
    expected, criterion, batch = recorded
    if "targets" in expected:
        boxes = torch.cat(expected["targets"]["bbox_targets"], dim=1)
    else:
        boxes = torch.stack(expected["assigned_boxes"])
    positives = criterion.assign(*batch)
    given = torch.cat([target.boxes for target in batch[1]])
    assert torch.equal(given[positives.objects], boxes[positives.images, positives.cells])


def test_losses_of_every_level_are_mmdetections(recorded):
    expected, criterion, batch = recorded
    found = criterion.per_level(*batch)
    for name, theirs in (("qfl", "loss_cls"), ("giou", "loss_bbox"), ("dfl", "loss_dfl")):
        np.testing.assert_allclose(found[name], expected["losses"][theirs], rtol=1e-5, atol=1e-9)
    total = sum(sum(values) for values in expected["losses"].values())
    assert sum(criterion(*batch).values()).item() == pytest.approx(total, rel=1e-5)


def test_gradients_of_every_map_are_mmdetections(data):
    expected = torch.load(data("../fixtures/gfl_head_losses.pt"), weights_only=True)
    targets = [Target(one["bboxes"], one["labels"]) for one in expected["gt"]]
    outputs = Outputs(expected["cls_scores"], expected["bbox_preds"])
    maps = require_grad(outputs)
    sum(Criterion(CriterionConfig(num_classes=10))(outputs, targets, (416, 544)).values()).backward()
    norms = [values.grad.norm().item() for values in maps]
    assert norms == pytest.approx(expected["grad_norms"]["cls"] + expected["grad_norms"]["reg"], rel=1e-4, abs=1e-9)


# What the named code gives for random_batch(config, (4, 0, 2)) with five classes
NANODET = {  # RangiLyu/nanodet at commit be9b4a9, GFLHead and NanoDetPlusHead
    ("nanodet", False): {"qfl": 2.4479451, "giou": 1.5790706, "dfl": 0.8332155},
    ("nanodet-plus", False): {"qfl": 4.4316216, "giou": 1.3301163, "dfl": 0.8292181},
    ("nanodet-plus", True): {
        "qfl": 4.8273692,
        "giou": 1.7470405,
        "dfl": 0.9462738,
        "aux_qfl": 4.4336658,
        "aux_giou": 1.3708560,
        "aux_dfl": 0.8665088,
    },
}
ATSS_BASELINE = {  # mmdetection 3.3.0, ATSSHead, with its deltas encoded from these distances
    "focal": [1.506658, 0.245443, 0.079646, 0.059523, 0.007695],
    "giou": [1.642640, 0, 0, 0, 0],
    "centerness": [0.755041, 0, 0, 0, 0],
}


@pytest.mark.parametrize(("family", "auxiliary"), NANODET)
def test_losses_are_nanodets(family, auxiliary):
    config = dataclasses.replace(CONFIGS[family], num_classes=5)
    found = Criterion(config)(*random_batch(config, (4, 0, 2), auxiliary=auxiliary))
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(NANODET[family, auxiliary], rel=1e-6)


def test_losses_of_the_atss_baseline_are_mmdetections():
    config = CriterionConfig(num_classes=5, quality="centerness", regression="dirac")
    found = Criterion(config).per_level(*random_batch(config, (4, 0, 2)))
    assert found.keys() == ATSS_BASELINE.keys()
    for name, expected in ATSS_BASELINE.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


# --- what it promises ------------------------------------------------------------------------------------------------

VARIANTS = {
    f"{quality}-{regression}-{assigner}": CriterionConfig(
        num_classes=3,
        reg_max=7,
        strides=(8, 16, 32),
        anchor_scale=5.0,
        quality=quality,
        regression=regression,
        assigner=assigner,
        topk=9 if assigner == "atss" else 13,
    )
    for quality, regression, assigner in itertools.product(
        ("joint", "centerness"), ("distribution", "dirac"), ("atss", "dynamic_soft_label")
    )
    if (quality, assigner) != ("centerness", "dynamic_soft_label")
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return VARIANTS[request.param]


def test_names_follow_the_configuration(config):
    names = {"qfl" if config.quality == "joint" else "focal", "giou"}
    names |= {"dfl"} if config.regression == "distribution" else set()
    names |= {"centerness"} if config.quality == "centerness" else set()
    found = Criterion(config)(*random_batch(config, (3,)))
    assert found.keys() == names
    assert all(loss.shape == () and loss.dtype == torch.float32 for loss in found.values())


def test_weights_scale_their_losses(config):
    batch = random_batch(config, (3, 1))
    plain = Criterion(config)(*batch)
    fields = {"qfl": "cls_weight", "focal": "cls_weight", "giou": "giou_weight", "dfl": "dfl_weight"}
    for name in plain:
        field = fields.get(name, "centerness_weight")
        scaled = Criterion(dataclasses.replace(config, **{field: 3 * getattr(config, field)}))(*batch)
        for other, loss in scaled.items():
            assert loss.item() == pytest.approx(plain[other].item() * (3 if other == name else 1), rel=1e-6)


@pytest.mark.parametrize("score", [1e-4, 0.9])
def test_box_losses_are_weighted_means_unless_the_scores_add_up_to_less_than_one(score):
    config = VARIANTS["joint-distribution-atss"]
    outputs, targets, input_hw = random_batch(config, (3, 1))

    def losses(all_scores):
        logit = torch.logit(torch.tensor(all_scores)).item()
        cls_logits = [torch.full_like(values, logit) for values in outputs.cls_logits]
        return Criterion(config)(dataclasses.replace(outputs, cls_logits=cls_logits), targets, input_hw)

    count = len(Criterion(config).assign(outputs, targets, input_hw).cells)
    plain_means, found = losses(0.5), losses(score)
    for name in ("giou", "dfl"):
        assert found[name].item() == pytest.approx(plain_means[name].item() * min(count * score, 1), rel=1e-5)


@pytest.mark.parametrize("counts", [(0,), (0, 0)])
def test_images_without_boxes_train_the_scores_alone(config, counts):
    outputs, targets, input_hw = random_batch(config, counts)
    maps = require_grad(outputs)
    losses = Criterion(config)(outputs, targets, input_hw)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(values.grad is not None for values in maps)  # distributed training wants gradients for every weight
    trained = {id(values) for values in maps if values.grad.any()}
    assert trained == {id(values) for values in outputs.cls_logits}


def test_objects_too_small_for_any_cell_train_the_scores_alone(config):
    outputs, _, input_hw = random_batch(config, (0,))
    maps = require_grad(outputs)
    tiny = Target(torch.tensor([[9.0, 9.0, 9.5, 9.5]]), torch.tensor([1]))
    sum(Criterion(config)(outputs, [tiny], input_hw).values()).backward()
    assert all(values.grad.isfinite().all() for values in maps)
    assert not any(values.grad.any() for values in outputs.reg_logits)


def test_half_precision_maps_and_autocast_compute_in_float32(config):
    outputs, targets, input_hw = random_batch(config, (3, 1))

    def cast(dtype):
        lists = (outputs.cls_logits, outputs.reg_logits, outputs.centerness or [])
        cls_logits, reg_logits, centerness = ([values.bfloat16().to(dtype) for values in maps] for maps in lists)
        return Outputs(cls_logits, reg_logits, centerness or None)

    criterion = Criterion(config)
    expected = criterion(cast(torch.float32), targets, input_hw)
    with torch.autocast("cpu", torch.bfloat16):
        found = criterion(cast(torch.bfloat16), targets, input_hw)
    assert {name: loss.item() for name, loss in found.items()} == {k: loss.item() for k, loss in expected.items()}


def test_channels_last_maps_give_the_same(config):
    outputs, targets, input_hw = random_batch(config, (3, 1))
    turned = Outputs(
        [values.to(memory_format=torch.channels_last) for values in outputs.cls_logits],
        [values.to(memory_format=torch.channels_last) for values in outputs.reg_logits],
        outputs.centerness,
    )
    expected = Criterion(config)(outputs, targets, input_hw)
    found = Criterion(config)(turned, targets, input_hw)
    assert {k: v.item() for k, v in found.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5
    )


# --- ignored regions -------------------------------------------------------------------------------------------------

REGIONS = torch.tensor([[40.0, 20.0, 150.0, 90.0], [0.0, 0.0, 30.0, 12.0]])


def inside_regions(config, input_hw):
    """The cells of all levels whose centers lie in one of the regions ``[A]``, one cell after the other."""
    found = []
    for stride in config.strides:
        for row, column in itertools.product(range(-(-input_hw[0] // stride)), range(-(-input_hw[1] // stride))):
            x, y = (column + config.point_offset) * stride, (row + config.point_offset) * stride
            found.append(any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in REGIONS.tolist()))
    return torch.tensor(found)


def class_gradients(config, targets, batch):
    """Losses, and the gradients of the class logits ``[N, num_classes, A]`` of the head and the auxiliary one."""
    outputs, _, input_hw = batch
    heads = [head for head in (outputs, outputs.auxiliary) if head is not None]
    for values in require_grad(outputs):
        values.grad = None
    losses = Criterion(config)(outputs, targets, input_hw)
    sum(losses.values()).backward()
    return losses, [torch.cat([values.grad.flatten(2) for values in head.cls_logits], 2) for head in heads]


def test_what_nothing_claims_in_an_ignored_region_is_no_background(config):
    batch = random_batch(config, (4, 2, 0), auxiliary=config.quality == "joint")
    outputs, targets, input_hw = batch
    regions = (REGIONS, None, REGIONS)
    marked = [dataclasses.replace(target, ignored=one) for target, one in zip(targets, regions, strict=True)]
    positives = Criterion(config).assign(outputs.auxiliary or outputs, targets, input_hw)
    left_out = torch.stack([inside_regions(config, input_hw), torch.zeros_like(inside_regions(config, input_hw))] * 2)[
        :3
    ]
    claimed = torch.zeros_like(left_out)
    claimed[positives.images, positives.cells] = True
    assert (claimed & left_out).any()
    left_out &= ~claimed

    plain_losses, plain = class_gradients(config, targets, batch)
    losses, found = class_gradients(config, marked, batch)
    for before, after in zip(plain, found, strict=True):
        before, after = before.transpose(1, 2), after.transpose(1, 2)
        assert (before[left_out] != 0).all()
        assert (after[left_out] == 0).all()
        torch.testing.assert_close(after[~left_out], before[~left_out])
    scores = {name for name in losses if name.endswith(("qfl", "focal"))}
    assert all(losses[name] < plain_losses[name] for name in scores)
    assert all(torch.equal(losses[name], plain_losses[name]) for name in losses.keys() - scores)


def test_regions_without_a_center_and_none_at_all_change_nothing(config):
    outputs, targets, input_hw = random_batch(config, (3, 1))
    expected = Criterion(config)(outputs, targets, input_hw)
    for regions in (torch.zeros(0, 4), torch.tensor([[9.0, 9.0, 9.5, 9.5]]), torch.tensor([[50.0, 50.0, 10.0, 10.0]])):
        marked = [dataclasses.replace(target, ignored=regions) for target in targets]
        found = Criterion(config)(outputs, marked, input_hw)
        assert {name: loss.item() for name, loss in found.items()} == {k: v.item() for k, v in expected.items()}


def test_the_assignment_follows_the_auxiliary_head():
    config = dataclasses.replace(CONFIGS["nanodet-plus"], num_classes=5)
    outputs, targets, input_hw = random_batch(config, (4, 2), auxiliary=True)
    swapped = dataclasses.replace(outputs.auxiliary, auxiliary=dataclasses.replace(outputs, auxiliary=None))
    criterion = Criterion(config)
    found, alone = criterion(outputs, targets, input_hw), criterion(outputs.auxiliary, targets, input_hw)
    for name, loss in alone.items():
        assert found[f"aux_{name}"].item() == loss.item()
    assert criterion(swapped, targets, input_hw)["aux_qfl"] != found["qfl"]


@pytest.fixture
def one_thread():
    """For many small steps: threads cost more than they bring, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train_maps(config, targets, input_hw, steps):
    """Gradient descent on the maps themselves."""
    outputs = random_maps(np.random.RandomState(0), config, len(targets), input_hw, config.quality)
    criterion, optimizer = Criterion(config), torch.optim.Adam(require_grad(outputs), lr=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(criterion(outputs, targets, input_hw).values()).backward()
        optimizer.step()
    return outputs


@pytest.mark.usefixtures("one_thread")
def test_the_least_loss_is_where_the_objects_are(config):
    targets = [Target(torch.tensor([[6.0, 10.0, 50.0, 58.0], [40.0, 4.0, 60.0, 30.0]]), torch.tensor([2, 0]))]
    outputs = train_maps(config, targets, (64, 64), steps=130)
    scores = torch.cat([values.detach().flatten(2) for values in outputs.cls_logits], dim=2)[0].sigmoid()
    criterion = Criterion(config)
    centers, strides = criterion._grid((64, 64), scores.device)
    reg_logits = torch.cat([values.detach().flatten(2) for values in outputs.reg_logits], dim=2)[0].T
    distances = criterion._distances(reg_logits) * strides
    boxes = torch.cat((centers - distances[:, :2], centers + distances[:, 2:]), dim=1)
    for box, label in zip(targets[0].boxes, targets[0].labels, strict=True):
        best = scores[label].argmax()
        assert scores[label, best] > 0.8
        assert iou(boxes[best], box) > 0.9
    assert scores[1].max() < 0.1  # no object of this class


# --- several processes -----------------------------------------------------------------------------------------------


def half_of_the_batch(rank, folder, configs):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for family, config in configs.items():
        mean = mean_of_halves(rank, config)
        if rank == 0:
            torch.save(mean, f"{folder}/{family}.mean")
    dist.destroy_process_group()


def mean_of_halves(rank, config):
    outputs, targets, input_hw = random_batch(config, (9, 0), auxiliary=True)

    def own(head):
        halves = ([values[rank : rank + 1] for values in maps] for maps in (head.cls_logits, head.reg_logits))
        return Outputs(*halves, auxiliary=own(head.auxiliary) if head.auxiliary else None)

    losses = Criterion(config)(own(outputs), targets[rank : rank + 1], input_hw)
    mean = torch.stack(list(losses.values())) / 2
    dist.all_reduce(mean)
    return mean


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(tmp_path):
    """Also where one process has no boxes at all, which must not leave the others waiting."""
    families = ("nanodet", "nanodet-plus")
    configs = {family: dataclasses.replace(CONFIGS[family], num_classes=5) for family in families}
    torch.multiprocessing.spawn(half_of_the_batch, (str(tmp_path), configs), nprocs=2)
    for family, config in configs.items():
        expected = torch.stack(list(Criterion(config)(*random_batch(config, (9, 0), auxiliary=True)).values()))
        found = torch.load(tmp_path / f"{family}.mean", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


# --- misuse ----------------------------------------------------------------------------------------------------------


def test_configurations_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="Take assigner atss or quality joint"):
        CriterionConfig(quality="centerness", assigner="dynamic_soft_label")
    with pytest.raises(ValueError, match="at least one class"):
        CriterionConfig(num_classes=0)


@pytest.mark.parametrize("field", ["quality", "regression", "assigner"])
def test_unknown_choices_are_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{field} 'typo': expected one of "):
        CriterionConfig(**{field: "typo"})


@pytest.mark.parametrize(
    ("change", "name"),
    [({"num_classes": 4}, "cls_logits"), ({"reg_max": 8}, "reg_logits"), ({"strides": (8, 16)}, "cls_logits")],
)
def test_maps_of_another_shape_are_refused(change, name):
    config = VARIANTS["joint-distribution-atss"]
    batch = random_batch(config, (1,))
    with pytest.raises(ValueError, match=rf"{name} .*: expected"):
        Criterion(dataclasses.replace(config, **change))(*batch)


def test_another_number_of_targets_and_a_missing_branch_are_refused(config):
    outputs, targets, input_hw = random_batch(config, (1, 2))
    with pytest.raises(ValueError, match="cls_logits"):
        Criterion(config)(outputs, targets[:1], input_hw)
    if config.quality == "centerness":
        with pytest.raises(ValueError, match=r"centerness \[\]: expected"):
            Criterion(config)(dataclasses.replace(outputs, centerness=None), targets, input_hw)
