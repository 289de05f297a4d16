"""Batches: what is in them, and that they depend on the seed alone."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
import pytest
import torch

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.errors import AnnotationError, InputError
from gfl_edge.ops.preprocess import fitted_input, input_size, resize_into
from gfl_edge.spec import ModelSpec
from train.data.batches import BatchPlan, Draw, InputSizes, evaluation_batches
from train.data.config import Augmentation, DataConfig, DataFiles
from train.data.datasets import TrainingImages
from train.data.loader import Batch, EvaluationLoader, TrainingLoader

EVERYTHING = Augmentation(
    crop=0.5,
    scale=(0.6, 1.4),
    stretch_x=(0.8, 1.2),
    stretch_y=(0.8, 1.2),
    translate=0.2,
    brightness=0.2,
    contrast=(0.6, 1.4),
    saturation=(0.5, 1.2),
    hsv_hue=0.02,
    mosaic=0.5,
    mosaic_stop_epoch=5,
)
FIXED = InputSizes(((64, 96),))
FRAMES = ((80, 100),) * 21


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """Ten images of two shapes; the number of each is its image id and in its pixels; the last is background."""
    folder = tmp_path_factory.mktemp("images")
    records = []
    for number in range(10):
        hw = (80, 120) if number % 3 else (120, 90)
        image = np.random.default_rng(number).integers(0, 256, (*hw, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        objects = Objects.of([[10, 10, 50, 60], [30, 20, 80, 70]], [0, 1]) if number < 9 else Objects.of([], [])
        records.append(ImageRecord(folder / f"{number}.png", number, objects, size_hw=hw))
    return Annotations(("cat", "dog"), tuple(records), folder, "train.json")


def config(**fields):
    files = DataFiles("coco", "images", "train.json")
    return DataConfig(
        **{"train": files, "input_hw": (64, 96), "resize": "stretch", "augmentation": EVERYTHING, **fields}
    )


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and a.image_ids == b.image_ids
        and all(
            torch.equal(one.boxes, other.boxes) and torch.equal(one.labels, other.labels)
            for one, other in zip(a.targets, b.targets, strict=True)
        )
    )


def images_of(batches):
    return [[draw.image for draw in batch] for batch in batches]


def test_crowds_come_with_the_batches(annotations):
    """Whatever is done to the images in training, and in evaluation; they stay when a batch is moved."""
    crowd = Objects.of([[10, 10, 50, 60]], [1])
    marked = replace(annotations, records=tuple(replace(r, ignored=crowd) for r in annotations.records))
    for loader in (EvaluationLoader(config(), marked, 4), TrainingLoader(config(), marked, 5, 0).batches(0)):
        targets = [target for batch in loader for target in batch.to("cpu").targets]
        assert len(targets) == 10
        assert all(target.ignored.dtype == torch.float32 for target in targets)
        assert sum(len(target.ignored) for target in targets) >= 8
    (target,) = (
        EvaluationLoader(config(input_hw=(160, 128)), replace(marked, records=marked.records[1:2]), 1)
        .__iter__()
        .__next__()
        .targets
    )
    assert torch.equal(target.ignored, target.boxes[:1])


# The plan


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own():
    plan = BatchPlan(FRAMES, 4, 7, FIXED, drop_last=False)
    first, second = (images_of(plan.batches(epoch)) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 4, 4, 4, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(21))
    assert first != second
    assert images_of(plan.batches(0)) == first
    assert images_of(replace(plan, seed=8).batches(0)) != first
    dropped = replace(plan, drop_last=True)
    assert (dropped.steps_per_epoch, plan.steps_per_epoch) == (5, 6)
    assert images_of(dropped.batches(0)) == first[:5]


@pytest.mark.parametrize("world_size", [2, 3, 4, 6])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_stretches_of_all_processes_are_the_batch_of_one(world_size, drop_last, dynamic):
    frames = tuple((80, 100) if i % 3 else (100, 70) for i in range(28 if drop_last else 30))
    sizes = InputSizes(((320, 400), (352, 500)), dynamic)
    one = list(BatchPlan(frames, 6, 3, sizes, drop_last=drop_last).batches(2))
    parts = [BatchPlan(frames, 6, 3, sizes, r, world_size, drop_last).batches(2) for r in range(world_size)]
    together = [list(chain(*stretches)) for stretches in zip(*parts, strict=True)]
    assert together == one


def test_a_last_batch_may_be_shared_unevenly():
    parts = [list(BatchPlan(FRAMES[:15], 6, 0, FIXED, r, 2, drop_last=False).batches(0)) for r in range(2)]
    assert [len(part[-1]) for part in parts] == [2, 1]


def test_a_plan_goes_on_where_it_stopped():
    plan = BatchPlan(FRAMES, 4, 7, InputSizes(((64, 96), (96, 128))))
    whole = list(plan.batches(3))
    for step in range(6):
        assert list(plan.batches(3, step)) == whole[step:]


def test_each_batch_has_one_of_the_sizes():
    plan = BatchPlan(FRAMES, 2, 0, InputSizes(((64, 96), (96, 128), (128, 160))))
    sizes = Counter()
    for epoch in range(20):
        for batch in plan.batches(epoch):
            (size,) = {draw.input_hw for draw in batch}
            sizes[size] += 1
    assert set(sizes) == {(64, 96), (96, 128), (128, 160)}
    assert min(sizes.values()) > 40


def test_dynamic_sizes_keep_landscapes_and_portraits_apart():
    frames = tuple((480, 640) if i % 2 else (640, 480) for i in range(40))
    plan = BatchPlan(frames, 4, 0, InputSizes(((320, 640),), dynamic=True), drop_last=False)
    batches = list(plan.batches(0))
    assert sorted(draw.image for batch in batches for draw in batch) == list(range(40))
    assert {(draw.input_hw, draw.short_long) for batch in batches for draw in batch} == {
        ((320, 448), (320, 640)),
        ((448, 320), (320, 640)),
    }


@pytest.mark.parametrize("frame_hw", [(480, 640), (640, 480), (427, 640), (100, 1000), (33, 32), (1080, 1920)])
def test_a_dynamic_input_is_that_of_the_run_time(frame_hw):
    spec = ModelSpec(
        "x", "gfl", ("a",), (800, 1344), "fit", (0, 0, 0), (1, 1, 1), (8,), 16, 0.0, short_long=(800, 1333)
    )
    assert fitted_input(frame_hw, (800, 1333)) == input_size(frame_hw, spec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"batch_size": 5, "world_size": 6},
            "batch size 5 .* an image at least for each of 6",
        ),
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": 22}, "batch size 22, but only 21 images"),
        ({"batch_size": 4, "world_size": 4, "drop_last": False}, "has 1, too few for 4 processes"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_plans_that_cannot_be_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        BatchPlan(**{"frames_hw": FRAMES, "batch_size": 4, "seed": 0, "sizes": FIXED, **fields})


# Training


def test_a_batch_is_what_the_loop_expects(annotations):
    loader = TrainingLoader(config(), annotations, 4, 0)
    batches = list(loader.batches(0))
    assert len(batches) == loader.steps_per_epoch == 2
    for batch in batches:
        assert batch.images.shape == (4, 64, 96, 3)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous()
        assert (len(batch), len(batch.targets), len(set(batch.image_ids)), batch.placements) == (4, 4, 4, [])
        for target in batch.targets:
            assert (target.boxes.dtype, target.labels.dtype) == (torch.float32, torch.int64)
            assert target.boxes.shape == (len(target.labels), 4)
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()
        assert same(batch.to("cpu"), batch)


def test_background_has_no_target(annotations):
    plain = config(augmentation=Augmentation())
    batch = next(TrainingLoader(plain, annotations, 10, 0).batches(0))
    sizes = {image_id: len(target.labels) for image_id, target in zip(batch.image_ids, batch.targets, strict=True)}
    assert sizes == {**dict.fromkeys(range(9), 2), 9: 0}


def test_workers_change_nothing(annotations):
    one = TrainingLoader(config(), annotations, 4, 0)
    two = TrainingLoader(config(), annotations, 4, 0, workers=2)
    for epoch in (0, 1):  # the workers stay
        for a, b in zip(one.batches(epoch), two.batches(epoch), strict=True):
            assert same(a, b)
    next(two.batches(2))  # left in the middle
    assert same(next(one.batches(3)), next(two.batches(3)))


def test_two_processes_see_the_images_of_one(annotations):
    whole = TrainingLoader(config(), annotations, 4, 0).batches(1)
    halves = [TrainingLoader(config(), annotations, 4, 0, rank=rank, world_size=2).batches(1) for rank in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))
        assert batch.image_ids == parts[0].image_ids + parts[1].image_ids


def test_a_run_goes_on_where_it_stopped(annotations):
    sizes = config(sizes=((64, 96), (96, 96)))
    whole = list(TrainingLoader(sizes, annotations, 2, 5).batches(4))
    resumed = list(TrainingLoader(sizes, annotations, 2, 5).batches(4, 3))
    assert len(resumed) == len(whole) - 3
    assert all(same(a, b) for a, b in zip(resumed, whole[3:], strict=True))
    assert {tuple(batch.images.shape[1:3]) for batch in whole} == {(64, 96), (96, 96)}


def test_the_global_generators_are_neither_used_nor_touched(annotations):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = next(TrainingLoader(config(), annotations, 4, 0, workers=1).batches(0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.random.seed(3)  # to show that it does not matter
    assert same(next(TrainingLoader(config(), annotations, 4, 0).batches(0)), first)


def test_images_and_draws_reach_workers_that_do_not_share_memory(annotations):
    images = TrainingImages(annotations, "stretch", EVERYTHING, 0)
    draw = Draw(0, 1, (64, 96))
    copied_images, copied_draw = pickle.loads(pickle.dumps((images, draw)))
    np.testing.assert_array_equal(copied_images[copied_draw].sample.image, images[draw].sample.image)


def test_seed_epoch_and_image_each_change_the_augmentation(annotations):
    images = TrainingImages(annotations, "stretch", EVERYTHING, 0)
    first = images[Draw(0, 1, (64, 96))].sample.image
    np.testing.assert_array_equal(images[Draw(0, 1, (64, 96))].sample.image, first)
    assert (images[Draw(1, 1, (64, 96))].sample.image != first).any()
    other = TrainingImages(annotations, "stretch", EVERYTHING, 1)
    assert any(
        (other[Draw(e, 1, (64, 96))].sample.image != images[Draw(e, 1, (64, 96))].sample.image).any() for e in range(3)
    )


def test_mosaics_stop_at_their_epoch(annotations):
    """A mosaic of images with objects has more of them than one image."""
    images = TrainingImages(annotations, "stretch", Augmentation(mosaic=1.0, mosaic_stop_epoch=1, min_visible=0.0), 0)
    counts = [[len(images[Draw(epoch, image, (64, 96))].sample.labels) for image in range(9)] for epoch in (0, 1)]
    assert max(counts[0]) > 2
    assert set(counts[1]) == {2}


def test_objects_of_other_images_are_pasted_in(annotations):
    images = [
        TrainingImages(annotations, "stretch", Augmentation(paste=share, paste_size=(0.3, 0.3), flip=0.0), 0)
        for share in (0.0, 0.5)
    ]
    plain, pasted = ([each[Draw(0, i % 9, (64, 96))].sample for i in range(9)] for each in images)
    assert [len(sample.labels) for sample in plain] == [2] * 9
    assert 1 < sum(len(sample.labels) > 2 for sample in pasted) < 9
    assert sum(np.array_equal(a.image, b.image) for a, b in zip(plain, pasted, strict=True)) > 1


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_dynamic_inputs(annotations, augmentation):
    dynamic = config(resize="fit", short_long=(320, 400), augmentation=augmentation)
    shapes = [tuple(batch.images.shape) for batch in TrainingLoader(dynamic, annotations, 3, 0).batches(0)]
    assert sorted(shapes) == [(3, 320, 416, 3), (3, 320, 416, 3), (3, 416, 320, 3)]


def test_an_image_that_cannot_be_used_is_named(annotations, tmp_path):
    broken = replace(annotations.records[0], path=tmp_path / "broken.png")
    files = replace(annotations, records=(broken,))
    with pytest.raises(AnnotationError, match=r"train.json: .*broken.png cannot be read \(No such file"):
        next(TrainingLoader(config(augmentation=Augmentation()), files, 1, 0).batches(0))
    with pytest.raises(AnnotationError, match=r"^train.json: .*as it was\?$"):  # no traceback of the worker
        next(iter(EvaluationLoader(config(), files, 1, workers=1)))
    cv2.imwrite(str(broken.path), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(AnnotationError, match=r"broken.png is 30 x 20 pixels, its annotations are for 90 x 120"):
        next(TrainingLoader(config(augmentation=Augmentation()), files, 1, 0).batches(0))
    with pytest.raises(InputError, match="sizes of images are unknown"):
        TrainingLoader(config(), replace(files, records=(replace(broken, size_hw=None),)), 1, 0)
    with pytest.raises(InputError, match=r"boxes of unknown classes \(mouse\)"):
        TrainingLoader(config(), replace(annotations, foreign_classes=("mouse",)), 1, 0)
    with pytest.raises(InputError, match="workers -1"):
        TrainingLoader(config(), annotations, 1, 0, workers=-1)


# Evaluation


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_sees_each_image_once_as_the_run_time_does(annotations, rule, workers):
    batches = list(EvaluationLoader(config(resize=rule), annotations, 4, workers=workers))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert list(chain(*(batch.image_ids for batch in batches))) == list(range(10))
    for batch in batches:
        for image, image_id, placement, target in zip(
            batch.images.numpy(), batch.image_ids, batch.placements, batch.targets, strict=True
        ):
            record = annotations.records[image_id]
            expected = np.empty((64, 96, 3), np.uint8)
            assert resize_into(cv2.imread(str(record.path)), expected, rule) == placement
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_allclose(placement.to_frame(target.boxes.numpy()), record.boxes, atol=1e-3)
            np.testing.assert_array_equal(target.labels, record.labels)


def test_a_batch_does_not_share_memory_with_the_annotations(annotations):
    (batch,) = EvaluationLoader(config(), annotations, 10)
    for target in batch.targets:
        target.labels.fill_(-5)
        target.boxes.fill_(-5)
    assert set(chain(*(record.labels.tolist() for record in annotations.records))) == {0, 1}
    assert all((record.boxes >= 0).all() for record in annotations.records)


def test_evaluation_with_dynamic_inputs(annotations):
    batches = list(EvaluationLoader(config(resize="fit", short_long=(320, 400)), annotations, 4))
    assert sorted(chain(*(batch.image_ids for batch in batches))) == list(range(10))
    assert {tuple(batch.images.shape[1:3]) for batch in batches} == {(320, 416), (416, 320)}


def test_evaluation_is_shared_by_processes():
    parts = [evaluation_batches(FRAMES, 4, FIXED, rank, 3) for rank in range(3)]
    assert sorted(chain(*map(images_of, parts))) == sorted(
        [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17], [18, 19, 20]]
    )
    with pytest.raises(InputError, match="rank 3 of 3"):
        evaluation_batches(FRAMES, 4, FIXED, 3, 3)
