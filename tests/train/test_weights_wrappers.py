"""Weights as trainers save them: in entries and behind prefixes of any name, once or twice, in files of any kind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from gfl_edge.errors import CheckpointError
from train.models.gfl import GFL, GFLConfig
from train.models.nanodet import NanoDet, NanoDetConfig
from train.weights import load_detector

pytestmark = pytest.mark.usefixtures("one_thread")

KEY = "head.gfl_cls.0.weight"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    config = NanoDetConfig("nanodet-plus", num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    return NanoDet(config).eval().state_dict()


@pytest.fixture(scope="module")
def older(state):
    """The same network at another time of its training."""
    return {key: value + 0.25 if value.is_floating_point() else value for key, value in state.items()}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path


def loads(source, expected, **options):
    loaded = load_detector(source, **options).state_dict()
    return loaded.keys() == expected.keys() and all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_the_door_needs_no_pytorch_until_it_is_used():
    code = "import sys, train.weights, train.weights.find; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(ImportError):
        from train.weights import load_detectors  # noqa: F401


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module.",
        "model.",
        "ema.",
        "ema_model.",
        "student.",
        "teacher.",
        "avg_model.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "model._orig_mod.module.model.",
        "ema_model.module._orig_mod.",
        "teacher.module.",
        "_forward_module.model.",
        "lightning_detector.",
        "my_wrapper.model._orig_mod.",
    ],
)
def test_prefixes_of_wrappers(state, prefix):
    assert loads(prefixed(prefix, state), state)


def test_wrappers_of_parts_of_a_network(state):
    inside = {key.replace(".", "._orig_mod.", 1): value for key, value in state.items()}
    assert loads(inside, state)
    assert loads({key.replace(".", ".module.", 1): value for key, value in state.items()}, state)


@pytest.mark.parametrize(
    "entry",
    [
        "state_dict",
        "model",
        "model_state_dict",
        "net",
        "network",
        "ema",
        "ema_state_dict",
        "avg_model",
        "params",
        "module",
    ],
)
@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_entries_of_files(state, tmp_path, entry, prefix):
    content = {"epoch": 3, entry: prefixed(prefix, state), "optimizer": {"lr": 0.1}}
    assert loads(saved(content, tmp_path / "x.pth"), state)


def test_entries_in_entries_and_counters(state, tmp_path):
    content = {"ema": {"module": prefixed("module.", state) | {"n_averaged": torch.tensor(7)}, "decay": 0.999}}
    assert loads(saved(content, tmp_path / "x.pth"), state)


def test_what_lies_around_the_network_is_left_out(state, tmp_path, caplog):
    caplog.set_level("INFO")
    around = {"loss_fn.weight": torch.ones(3), "metric.total": torch.zeros(1), "epoch": torch.tensor(3)}
    assert loads(saved({"state_dict": prefixed("model.", state) | around}, tmp_path / "x.ckpt"), state)
    assert "left out what lies around the network, not in it: loss_fn.weight, metric.total" in caplog.text
    assert loads({**state, "epoch": torch.tensor(3)}, state)
    with pytest.raises(CheckpointError, match="1 keys unexpected: loss_fn"):
        load_detector({**state, "loss_fn.weight": torch.ones(3)})


def test_the_name_of_a_model_beside_its_weights(state, tmp_path):
    content = {"model": "nanodet", "net": {"depth": 3}, "params": {"lr": 0.1}, "state_dict": state}
    assert loads(saved(content, tmp_path / "x.pth"), state)


def test_a_checkpoint_of_lightning_with_its_callbacks(state, tmp_path):
    content = {
        "epoch": 9,
        "global_step": 900,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": prefixed("model.", state),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "x"}},
        "hyper_parameters": {"lr": 0.1},
    }
    assert loads(saved(content, tmp_path / "x.ckpt"), state)


@pytest.mark.parametrize(
    "content",
    [
        lambda raw, average: {"model": raw, "ema": average},
        lambda raw, average: {"model": raw, "ema": {"module": average, "updates": 7}},
        lambda raw, average: {"state_dict": raw, "state_dict_ema": prefixed("module.", average)},
        lambda raw, average: {"state_dict": prefixed("model.", raw) | prefixed("avg_model.", average)},
        lambda raw, average: {
            "model": raw,
            "model_ema": prefixed("module.", average) | {"n_averaged": torch.tensor(5)},
        },
        lambda raw, average: prefixed("student.", raw) | prefixed("teacher.", average),
        lambda raw, average: prefixed("net.module.", raw) | prefixed("ema_net._orig_mod.", average),
        lambda raw, average: {  # mmengine: they have changed places
            "meta": {"mmengine_version": "0.10"},
            "state_dict": average,
            "ema_state_dict": prefixed("module.", raw) | {"steps": torch.tensor(9)},
        },
        lambda raw, average: {  # mmcv: what was trained lies among the averages
            "state_dict": average | {"ema_" + key.replace(".", "_"): value for key, value in raw.items()}
        },
    ],
)
def test_averaged_weights_are_taken_unless_others_are_asked_for(state, older, tmp_path, caplog, content):
    caplog.set_level("INFO")
    path = saved(content(older, state), tmp_path / "x.pth")
    assert loads(path, state)
    assert "x.pth holds averaged (EMA) weights and those trained: taking the averaged" in caplog.text
    assert "--no-ema takes the others" in caplog.text
    assert loads(path, state, ema=True)
    assert loads(path, older, ema=False)
    assert "taking the trained" in caplog.text


def test_asking_for_weights_that_are_not_there(state, tmp_path, caplog):
    raw, average = (saved({name: state}, tmp_path / f"{name}.pth") for name in ("model", "ema"))
    with pytest.raises(CheckpointError, match=r"model\.pth holds no averaged \(EMA\) weights\. Leave out --ema"):
        load_detector(raw, ema=True)
    with pytest.raises(CheckpointError, match=r"ema\.pth holds only averaged \(EMA\) weights\. Leave out --no-ema"):
        load_detector(average, ema=False)
    assert not caplog.text


def test_averages_without_statistics_of_batch_norms_take_those_of_training(state, older, tmp_path):
    average = {key: value for key, value in state.items() if "running" not in key and "tracked" not in key}
    path = saved({"model": older, "ema": average}, tmp_path / "x.pth")
    assert loads(path, {**older, **average})


def test_a_teacher_of_another_architecture_is_no_average(state, tmp_path):
    larger = NanoDet(NanoDetConfig("nanodet-plus", num_classes=3, stage_channels=(32, 64, 128), neck_channels=32))
    content = prefixed("student.", state) | prefixed("teacher.", larger.state_dict())
    assert loads(saved(content, tmp_path / "x.pth"), state)


def test_detectors_of_mmdetection(tmp_path):
    small = GFL(GFLConfig(num_classes=3, base_channels=16, neck_channels=64, head_channels=64)).eval().state_dict()
    for prefix in ("_orig_mod.", "model.module.", "teacher."):
        assert loads(saved({"model": prefixed(prefix, small)}, tmp_path / "x.pth"), small)


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_before_torch_1_6(state, tmp_path):
    assert loads(saved({"model": state}, tmp_path / "x.pth", _use_new_zipfile_serialization=False), state)


def test_files_of_safetensors(state, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file(prefixed("module.", state), str(path), metadata={"format": "pt"})
    assert loads(path, state)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or no file of safetensors"):
        load_detector(path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("entry", ["model", "ema", "state_dict", "net"])
def test_a_pickled_network_is_refused_with_what_to_do(tmp_path, entry):
    path = saved({entry: torch.nn.Linear(1, 1), "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=rf"Linear at '{entry}' .*refused.*save\(model\.state_dict\(\), PATH"):
        load_detector(path)


def test_a_pickled_network_beside_its_weights_is_left_out(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert loads(saved({"model": torch.nn.Linear(1, 1), "ema": Evil(), "state_dict": state}, tmp_path / "x.pt"), state)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("entry", ["model", "ema_state_dict", "params"])
def test_code_among_the_weights_is_refused_in_any_entry(state, tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    path = saved({entry: {**state, "hook": Evil()}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"(posix|nt)\.system at 'hook' .*refused"):
        load_detector(path)
    assert not (tmp_path / "pwned").exists()


def test_entries_that_lead_into_each_other_end(tmp_path):
    content = {}
    content["model"] = content
    with pytest.raises(CheckpointError, match="contains itself"):
        load_detector(saved(content, tmp_path / "x.pth"))
