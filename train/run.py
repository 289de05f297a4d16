"""One training run: put together from its settings, driven to its end, kept in its folder."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gfl_edge.annotations.records import Annotations
from gfl_edge.errors import AnnotationError, CheckpointError, InputError
from gfl_edge.evaluation.ap import Metrics
from gfl_edge.files import check_output
from gfl_edge.progress import progress_bar
from gfl_edge.terminal.printable import word
from train.checkpoint import BEST, LAST, Checkpoint
from train.config import Config
from train.data.load import LoadedData, load_data
from train.data.loader import TrainingLoader
from train.data.workers import all_there
from train.describe import describe
from train.distributed import Process, joined, said_once, share_buffers
from train.ema import start_average
from train.loop import LoopSettings, Trainer, TrainingError
from train.memory import enough_memory
from train.metrics import RunLog
from train.models.build import Network
from train.models.gfl import GFL
from train.models.nanodet import NanoDet
from train.models.traits import TRAITS
from train.network import TrainedNetwork, build_criterion, build_detector, weights_name
from train.optim import Schedule, build_optimizer
from train.quantize import fake_quantize, float_state
from train.resuming import check_position
from train.saved import Resume, alone_in, find_state
from train.unfolding import neutral_norms, unfold_batch_norms
from train.validation import Validation
from train.weights.loading import describe_architecture
from train.weights.naming import listed

logger = logging.getLogger(__name__)

# Of the weights, that best.pt, last.pt and its successor take with averages and both moments of an optimizer
CHECKPOINT_SIZES = 9
BEST_METRIC = "AP"
UNFOLDED_ON = 256  # images, whose statistics batch norms get that have none
MAX_PERCENT = 100
LESS_MEMORY = (
    "Set train.batch lower and train.accumulate higher, train.evaluation_batch lower, or train.amp to bf16 or fp16"
)
SHOWN = ("AP", "AP50", "AP75")  # after each evaluation
BOX_LOSSES = ("giou", "iou")  # sums over positives


class Run:
    """A training run on this process.

    Args:
        config: its settings.
        process: this one among those of the run.
        resume: go on from ``last.pt`` of the output folder; "auto": or start where there is none.

    Attributes:
        detector: the network in training.
        trainer: what steps through the data.
        metrics: of the last evaluation, in percent.

    Raises:
        InputError: settings, data or weights that cannot be used; an output folder with another run in it.
    """

    def __init__(self, config: Config, process: Process, resume: Resume = False) -> None:
        self.config, self.process = config, process
        self.folder = config.train.output
        saved = find_state(self.folder, resume, process)
        changed = _differences(saved.config, config.to_dict()) if saved is not None else []
        if changed and process.is_main:
            logger.warning("settings differ from those the run was started with: %s", ", ".join(changed))
        if config.train.sync_batchnorm and process.device.type != "cuda":
            raise InputError("train.sync_batchnorm: it needs GPUs; leave it out")
        _seed(config.train.seed)  # before there are weights, so that all processes start with the same

        with said_once(process):
            data, limit = load_data(config.data, process.is_main), config.train.first_images  # None: all
            self.class_names = data.class_names
            self.detector = build_detector(config, len(self.class_names)).to(process.device)
        family = self.detector.config.family
        rule = TRAITS[family].resize
        if config.data.resize != rule:
            raise InputError(
                f"data.resize {config.data.resize!r}: an exported {family} is run with {rule!r}; train it so, too"
            )
        if process.is_main:
            weights_bytes = sum(value.numel() * value.element_size() for value in self.detector.state_dict().values())
            check_output(self.folder / LAST, CHECKPOINT_SIZES * weights_bytes)
        self._train = replace(data.train, records=data.train.records[:limit])
        self.data = self._loader(self._train)
        soft = config.train.soft_levels_epoch
        self.network = TrainedNetwork(
            self.detector,
            config.train.channels_last,
            config.train.auxiliary_detach_epoch,
            config.train.epochs // 2 if soft is None else soft,
        ).to(process.device)
        if config.quantize.enabled:
            self._fake_quantize()
        elif saved is None:  # else it has the statistics
            self._unfold()
        self.average = start_average(self.detector, config.train.ema_decay) if config.train.ema_decay else None
        self.trainer = self._trainer()
        val = None if data.val is None else replace(data.val, records=data.val.records[:limit])
        self.validation = self._validation(val)

        self.metrics: Metrics = {}
        self.best = -1.0
        self._unfinished = False  # whether the epoch that the checkpoint ends with was to be evaluated yet
        self._has_positives = False
        if saved is not None:
            self._restore(saved)
        else:
            _seed(config.train.seed + process.rank)  # dropout and the like differ between processes
        self._say_start(data)

    def run(self) -> Metrics:
        """Train to the end; returns the metrics of the last evaluation, empty where there is none."""
        position, epochs = self.trainer.position, self.config.train.epochs
        log = RunLog(self.folder, position.step or None, self.process.is_main, remeasure=self._unfinished)
        try:
            if self._unfinished:
                self._evaluate(position.epoch, log)
            while position.epoch < epochs:
                self._epoch(log)
                self._finish_epoch(position.epoch, log)
                position = self.trainer.position
        finally:
            log.close()
        return self.metrics

    def _epoch(self, log: RunLog) -> None:
        train, position = self.config.train, self.trainer.position
        self.network.start_epoch(position.epoch)
        label = f"epoch {position.epoch + 1}/{train.epochs}"
        total, is_main, is_whole = self.data.steps_per_epoch, self.process.is_main, position.batch == 0
        with self._kept_on_lost_data(), progress_bar(label, total, enabled=is_main, done=position.batch) as bar:
            for step in self.trainer.run_epoch(self.data):
                log.losses(step.number, step.to_dict())
                self._has_positives |= any(step.losses.get(name, 0) > 0 for name in BOX_LOSSES)
                at = position.batch or self.data.steps_per_epoch
                bar.set_description(f"{label}, loss {step.total:.3f}, lr {step.lr:.2g}", refresh=False)
                bar.update(at - bar.n)
                if train.checkpoint_steps and step.number % train.checkpoint_steps == 0 and position.batch:
                    self._save_last()
        if is_whole and not self._has_positives:
            raise TrainingError(self._without_positives())

    @contextmanager
    def _kept_on_lost_data(self) -> Iterator[None]:
        """Write what has been learned before the run stops because its images are gone."""
        try:
            yield
        except AnnotationError:
            if self.process.is_only:  # with others, it would wait for them
                self._save_last()
                self._say(f"{self.folder / LAST} has the run up to here: go on with --resume")
            raise

    def _without_positives(self) -> str:
        """Why a run whose losses had no positive in an epoch is stopped."""
        config, records = build_criterion(self.detector.config, self.config.loss).config, self._train.records
        boxes = np.concatenate([record.boxes for record in records])
        sides = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
        height, width = np.median([record.size_hw for record in records], axis=0)
        input_hw = " x ".join(str(side) for side in self.config.data.input_hw[::-1])
        return (
            f"no object of {self._train.origin} was learned in the first epoch: {config.assigner} assigned no cell of "
            f"the strides {', '.join(map(str, config.strides))} to one of {len(boxes)} boxes, which are "
            f"{sides[0]:.3g} x {sides[1]:.3g} pixels in images of {width:.0f} x {height:.0f} (medians), at an input of "
            f"{input_hw}. Expected boxes of several pixels: are they in parts of the image?"
        )

    def _finish_epoch(self, done: int, log: RunLog) -> None:
        """Evaluate if it is time, and write checkpoints."""
        train = self.config.train
        due = train.evaluate_every and (done % train.evaluate_every == 0 or done == train.epochs)
        if due and self.validation is not None:
            share_buffers(self._evaluated, self.process)
            self._save_last(unfinished=True)  # whatever happens in the evaluation
            self._evaluate(done, log)
        else:
            self._save_last()

    def _evaluate(self, done: int, log: RunLog) -> None:
        assert self.validation is not None
        metrics = self.metrics = self.validation(self._evaluated)
        log.metrics(self.trainer.position.step, {"epoch": done, **metrics})
        values = {name: metrics[name] for name in SHOWN}
        shown = ", ".join(f"{name} {'none' if value is None else f'{value:.2f}'}" for name, value in values.items())
        self._say(f"epoch {done}/{self.config.train.epochs}: {shown}")
        if (found := metrics[BEST_METRIC]) is not None and found > self.best:
            self.best = found
            if self.process.is_main:
                self._checkpoint(metrics).save(self.folder / BEST)
        self._save_last(metrics)

    @property
    def _evaluated(self) -> Network:
        """The network whose weights are evaluated and kept: the average where there is one."""
        network = self.detector if self.average is None else self.average.module
        assert isinstance(network, (NanoDet, GFL))
        return network

    def _save_last(self, metrics: Mapping[str, float | None] | None = None, unfinished: bool = False) -> None:
        # by all processes: it gathers
        training = {**self.trainer.state_dict(), "best": self.best, "unfinished": unfinished}
        if self.process.is_main:
            replace(self._checkpoint(metrics or {}), training=training).save(self.folder / LAST)

    def _checkpoint(self, metrics: Mapping[str, float | None]) -> Checkpoint:
        network = self._evaluated
        state = float_state(network) if self.config.quantize.enabled else network.state_dict()
        architecture = describe_architecture(network.config)
        return Checkpoint(state, architecture, self.class_names, self.config.to_dict(), dict(metrics))

    def _restore(self, saved: Checkpoint) -> None:
        last, state = self.folder / LAST, saved.training
        assert state is not None
        if saved.class_names != self.class_names:
            names = [f"{len(classes)} ({listed(classes)})" for classes in (saved.class_names, self.class_names)]
            raise CheckpointError(f"{last}: the run was started with the classes {names[0]}, not {names[1]}")
        try:
            self._check_state(state)
            self.trainer.load_state_dict(state)
        except CheckpointError as error:
            raise CheckpointError(
                f"{last}: {error}. Copy it again, or start anew in another train.output, from {BEST} as model.weights"
            ) from error
        self.best, self.metrics = float(state["best"]), saved.metrics
        self._unfinished = state["unfinished"] and self.validation is not None
        if len(state["random"]) != self.process.world_size:  # chance starts anew, another one in each process
            place = [self.config.train.seed, self.trainer.position.step, self.process.rank]
            _seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """What the trainer does not know of."""
        best, unfinished = state.get("best"), state.get("unfinished")
        if not isinstance(best, (int, float)) or not -1 <= best <= MAX_PERCENT or not isinstance(unfinished, bool):
            raise CheckpointError(f"its best {BEST_METRIC} or whether that was measured is damaged")
        check_position(state.get("position"))
        batch, batches = state["position"]["batch"], self.data.steps_per_epoch
        if batch >= batches:
            raise CheckpointError(f"the run was left after {batch} batches of an epoch, which now has only {batches}")

    def _loader(self, annotations: Annotations) -> TrainingLoader:
        train, process = self.config.train, self.process
        return TrainingLoader(
            self.config.data,
            annotations,
            train.batch,
            train.seed,
            workers=train.workers,
            rank=process.rank,
            world_size=process.world_size,
            pin_memory=process.device.type == "cuda",
        )

    def _trainer(self) -> Trainer:
        train = self.config.train
        if train.compile:
            self.network.compile()
        steps = -(-self.data.steps_per_epoch // train.accumulate)
        return Trainer(
            self.network,
            build_criterion(self.detector.config, self.config.loss),
            build_optimizer(self.detector, self.config.optimizer),
            Schedule(self.config.schedule, steps, train.epochs),
            LoopSettings(train.accumulate, train.clip_norm, train.amp),
            self.process,
            self.average,
            self.detector,
        )

    def _validation(self, annotations: Annotations | None) -> Validation | None:
        data, train = self.config.data, self.config.train
        if annotations is None:
            return None
        spec = describe(self.detector, input_hw=data.input_hw, class_names=self.class_names, short_long=data.short_long)
        return Validation(data, annotations, spec, self.process, train.evaluation_batch, train.workers)

    def _fake_quantize(self) -> None:
        """By ranges of the first batches; a resumed run finds the same ones, and then takes those it has saved."""
        settings, device = self.config.quantize, self.process.device
        batches = itertools.islice(self.data.batches(0), settings.calibration_batches)
        images = (batch.to(device).images for batch in batches)
        count = fake_quantize(self.network, self.detector, images, settings.method)
        share_buffers(self.network, self.process)
        self._say(f"{count} convolutions compute as in INT8, ranges by {settings.method}; AP is measured so, too")

    def _unfold(self) -> None:
        """Make batch norms that normalize nothing fit for training."""
        norms = neutral_norms(self.detector)
        if not norms:
            return
        count = min(-(-UNFOLDED_ON // self.config.train.batch), self.data.steps_per_epoch)
        batches = (batch.to(self.process.device).images for batch in itertools.islice(self.data.batches(0), count))
        unfold_batch_norms(self.network, norms, batches, self.process)
        self._say(
            f"{len(norms)} batch norms of {weights_name(self.config.model)} normalize nothing, as of weights for "
            f"inference: they got the statistics of {count * self.config.train.batch} training images, and compute "
            "what they did"
        )

    def _say_start(self, data: LoadedData) -> None:
        config, position = self.config, self.trainer.position
        parameters = sum(p.numel() for p in self.detector.parameters() if p.requires_grad)
        first = config.train.first_images
        self._say(f"data: {data.train_report.summary()}" + (f"; the first {first} images are used" if first else ""))
        start = weights_name(config.model)
        self._say(
            f"{config.train.output}: {self.detector.config.family} from {start}, {len(self.class_names)} classes, "
            f"{parameters / 1e6:.2f} M parameters to train, {self.data.steps_per_epoch} batches an epoch on "
            f"{self.process.world_size} x {self.process.device}"
            + (f", going on after step {position.step}" if position.step else "")
        )

    def _say(self, message: str) -> None:
        if self.process.is_main:
            logger.info("%s", message)


def train(config: Config, resume: Resume = False) -> Metrics:
    """Run training from its start, or from where it was left, to its end.

    Args:
        config: its settings.
        resume: go on from ``last.pt`` of the output folder; "auto": or start where there is none.

    Returns:
        The metrics of the last evaluation in percent; empty without validation data.

    Raises:
        GflEdgeError: see :class:`Run` and :meth:`train.loop.Trainer.run_epoch`.
    """
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    output = config.train.output
    with (
        joined(config.train.device, config.train.timeout_s) as process,
        alone_in(output, resume, process),
        all_there(),
        enough_memory(LESS_MEMORY),
    ):
        return Run(config, process, resume).run()


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _differences(old: Mapping[str, object], new: Mapping[str, object], where: str = "") -> list[str]:
    """The fields in which two configurations differ, as ``section.field``."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += _differences(before, now, f"{where}{name}.")
        elif before != now:
            found.append(f"{where}{name}")
    return found


def next_command(folder: Path) -> str:
    """What to do with a finished run."""
    best = folder / BEST
    weights = best if best.is_file() else folder / LAST
    return f"python export/to_onnx.py --weights {word(weights)} -o {word(folder / 'model.onnx')}"
