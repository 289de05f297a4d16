"""Checkpoints: PyTorch's formats, old and new, safetensors, those of our own, and the state that a run goes on from."""

from __future__ import annotations

import copy
import io
import pickle
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutate, nasty
from tests.fuzz.reader import Reader

PICKLE_CHANGES = (mutate.flip, mutate.put_byte, mutate.put_byte, mutate.put_integer, mutate.cut, mutate.repeat)
OTHER_VALUES = (None, True, "", "x" * 5000, "\x1b[31m", -1, 1 << 40, 1 << 63, 0.5, 1e308, float("nan"), float("inf"))


def read(path: Path) -> object:
    """As every command reads a file, with what it is trained with."""
    from train.weights.mmdet_config import trained_of_mmdet
    from train.weights.trained import trained_of_own
    from train.weights.unwrapping import read_checkpoint

    file = read_checkpoint(path)
    return str(trained_of_own(file)), str(trained_of_mmdet(file))


def architecture(path: Path) -> object:
    """What keys and shapes speak of."""
    from train.weights.loading import find_architecture
    from train.weights.unwrapping import read_checkpoint

    return find_architecture(read_checkpoint(path))


def resume(path: Path) -> object:
    """A run of a network of one layer goes on."""
    from train.checkpoint import Checkpoint

    training = Checkpoint.load(path).training or {}
    small_trainer().load_state_dict(training)
    return training


@cache
def small_trainer() -> Any:
    """A trainer of two weights and a bias, after a step."""
    import torch

    from train.config import ScheduleConfig
    from train.distributed import Process
    from train.ema import start_average
    from train.loop import LoopSettings, Trainer
    from train.optim import Schedule

    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW([{"params": list(network.parameters()), "lr": 0.1, "base_lr": 0.1}])
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule, process = Schedule(ScheduleConfig(), 5, 5), Process(torch.device("cpu"))
    average = start_average(network, 0.9)
    return Trainer(network, lambda *_: {}, optimizer, schedule, LoopSettings(), process, average)


def _saved(content: Any, **options: Any) -> bytes:
    import torch

    torch.save(content, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def _contents() -> list[Any]:
    """Small checkpoints of several trainers."""
    import numpy
    import torch

    state = {"head.a.weight": torch.arange(6.0).reshape(2, 3), "head.a.bias": torch.ones(2).half()}
    prefixed = {f"module.{key}": torch.nn.Parameter(value) for key, value in state.items()}
    return [
        {"state_dict": prefixed, "epoch": 3},
        {"model": state, "ema": {"module": prefixed, "updates": 7}, "optimizer": {"lr": [0.1, 1e-4]}},
        {
            "meta": {"CLASSES": ("a", "b"), "cfg": "model = dict(type='GFL')\n", "when": numpy.float64(1.5)},
            "state_dict": state,
        },
    ]


def _zip_seeds() -> list[bytes]:
    return [_saved(content) for content in _contents()] + [_saved(_contents()[0], pickle_protocol=4)]


def _legacy_seeds() -> list[bytes]:
    return [_saved(content, _use_new_zipfile_serialization=False) for content in _contents()]


def _safetensors_seeds() -> list[bytes]:
    from safetensors.torch import save

    return [save(_contents()[1]["model"], {"format": "pt"})]


def _own() -> dict[str, Any]:
    return {
        "format": 1,
        "state_dict": {"head.a.weight": _contents()[1]["model"]["head.a.weight"]},
        "architecture": {"nanodet": {"family": "nanodet", "num_classes": 2}},
        "class_names": ["a", "b"],
        "config": {"model": {"name": "x"}, "data": {"input_hw": [320, 320], "resize": "letterbox"}},
        "metrics": {"AP": 1.5, "AP_small": None},
    }


def _own_seeds() -> list[bytes]:
    return [_saved(_own())]


def _resume_seeds() -> list[bytes]:
    return [_saved({**_own(), "training": copy.deepcopy(small_trainer().state_dict())})]


def _architecture_seeds() -> list[bytes]:
    """The keys that an architecture is read off."""
    import torch

    one = torch.ones(1)
    head = {"head.gfl_cls.0.weight": torch.ones(35, 8, 1, 1), "head.cls_convs.0.0.depthwise.weight": one}
    stages = {f"backbone.{stage}.0.branch2.0.weight": torch.ones(8) for stage in ("stage2", "stage3", "stage4")}
    nanodet = {**head, **stages, "fpn.lateral_convs.0.conv.weight": one, "backbone.conv1.0.weight": one}
    gfl = {
        "bbox_head.gfl_cls.weight": torch.ones(3, 32),
        "bbox_head.gfl_reg.weight": torch.ones(68, 32),
        "neck.lateral_convs.0.conv.weight": torch.ones(8),
        "backbone._conv_stem.weight": one,
        **{f"bbox_head.scales.{level}.scale": one for level in range(5)},
    }
    return [_saved(nanodet), _saved(gfl), _saved({**_own(), "state_dict": nanodet})]


# --- changes ---------------------------------------------------------------------------------------------------------


def change_members(random: Random, content: bytes) -> bytes:
    """An archive whose members are damaged before it was packed, so that its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    for _ in range(random.choice((1, 1, 2, 4))):
        name = pickled if random.random() < 0.8 else random.choice(list(members))
        members[name] = random.choice(PICKLE_CHANGES)(random, members[name], [content])
    method = zipfile.ZIP_STORED if random.random() < 0.95 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", method) as file:
        for name, value in members.items():
            file.writestr(name, value)
    return buffer.getvalue()


def change_opcodes(random: Random, content: bytes) -> bytes:
    """A pickle with other opcodes here and there."""
    opcodes = [value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes)]
    for _ in range(random.choice((1, 2, 3))):
        at = random.randrange(len(content) // 2)
        content = content[:at] + random.choice(opcodes) + content[at + random.randrange(2) :]
    return content


def change_values(random: Random, content: bytes) -> bytes:
    """A whole file with other values in it: wrong types, shapes, names; or with some that are missing."""
    import torch

    tree = [torch.load(io.BytesIO(content), weights_only=False)]
    for _ in range(random.choice((1, 1, 2))):
        holder, key = random.choice(_places(tree))
        if random.random() < 0.2 and holder is not tree:
            del holder[key]
        else:
            holder[key] = _other(random, holder[key], tree)
    return _saved(tree[0] if tree else {})


def _places(tree: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    left: list[Any] = [tree]
    while left:
        holder = left.pop()
        for key in list(holder) if isinstance(holder, dict) else range(min(len(holder), 8)):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                left.append(holder[key])
    return found


def _other(random: Random, value: Any, tree: list[Any]) -> Any:
    import torch

    how = random.randrange(6)
    if isinstance(value, torch.Tensor) and how < 3:
        shapes = [value.flatten(), value[None], value[:0] if value.ndim else value, value.to(torch.int64)]
        return random.choice([*shapes, value * float("nan") if value.is_floating_point() else value.float()])
    if how == 3:
        return random.choice(([], {}, [value], {"a": value}, (), b"", torch.ones(2), torch.ones(()), nasty.TEXTS[0]))
    if how == 4:
        holder, key = random.choice(_places(tree))
        return copy.deepcopy(holder[key])
    return random.choice(OTHER_VALUES)


READERS = [
    Reader("torch-zip", read, _zip_seeds, ".pth", change_members),
    Reader("torch-legacy", read, _legacy_seeds, ".ckpt", change_opcodes),
    Reader("safetensors", read, _safetensors_seeds, ".safetensors"),
    Reader("architecture", architecture, _architecture_seeds, ".pth", change_values),
    Reader("own-checkpoint", read, _own_seeds, ".pt", change_values),
    Reader("resume", resume, _resume_seeds, ".pt", change_values),
]
