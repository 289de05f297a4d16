"""Weights that no training leaves behind are blamed on their file, by name, before anything is exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export import to_onnx
from gfl_edge.errors import CheckpointError
from train.models.nanodet import NanoDet, NanoDetConfig
from train.weights import load_detector

pytestmark = pytest.mark.usefixtures("one_thread")

KEY, NORM = "head.gfl_cls.0.weight", "backbone.conv1.1.running_var"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    config = NanoDetConfig("nanodet", num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    return NanoDet(config).eval().state_dict()


def changed(state, key, change):
    value = state[key].clone()
    change(value)
    return {**state, key: value}


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_blamed_on_the_weights(state, tmp_path, capsys, broken):
    def spoil(value):
        value.flatten()[:2] = broken

    spoiled = changed(changed(state, KEY, spoil), NORM, spoil)
    torch.save({"model": spoiled}, tmp_path / "x.pth")
    output = tmp_path / "x.onnx"
    assert to_onnx.main(["--weights", str(tmp_path / "x.pth"), "--input-size", "64", "64", "-o", str(output)]) == 1
    error = capsys.readouterr().err
    tensors = len(state)
    assert f"x.pth: 2 of {tensors} tensors hold NaN or infinity: {NORM} (2 of 24 values), {KEY} (2 of 1120" in error
    assert "The weights are broken, not the export" in error
    assert "exporting" not in error
    assert not output.exists()


def test_half_precision_that_overflowed(state):
    spoiled = changed(state, KEY, lambda value: value.fill_(1e6).flatten()[:1].zero_())
    with pytest.raises(CheckpointError, match=r"1119 of 1120 values"):
        load_detector({key: value.half() for key, value in spoiled.items()})


def test_broken_weights_that_are_not_used_do_no_harm(state):
    spoiled = {**state, "aux_head.x": torch.full((1,), float("nan"))}
    load_detector(spoiled)


def test_negative_variances(state):
    spoiled = changed(state, NORM, lambda value: value[3:4].fill_(-1e-3))
    with pytest.raises(CheckpointError, match=rf"variances of batch norms are below 0: {NORM} \(-0\.001\)"):
        load_detector(spoiled)


def test_a_convolution_of_one_value_is_named(state, caplog):
    load_detector(changed(state, KEY, lambda value: value.zero_()))
    assert f"convolutions of one value, which pass nothing on: {KEY} (all 0)" in caplog.text


@pytest.mark.parametrize("value", [0, 1])
def test_weights_that_were_never_trained(state, value):
    constant = {key: torch.full_like(old, value) if old.dim() == 4 else old for key, old in state.items()}
    with pytest.raises(CheckpointError, match=rf"every convolution holds one value, such as .*\(all {value}\)"):
        load_detector(constant)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_precision_are_taken(state, dtype):
    loaded = load_detector({key: value.to(dtype) for key, value in state.items()})
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    np.testing.assert_allclose(loaded.state_dict()[KEY], state[KEY], rtol=1e-2, atol=1e-6)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("beside", [{}, {"when": np.float64(1)}], ids=["tensors only", "objects beside"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to(torch.int8), r"torch\.int8"),
        (lambda value: value.to(torch.bool), r"torch\.bool"),
        (lambda value: value.to(torch.complex64), r"torch\.complex64"),
        (lambda value: value.flatten(1).to_sparse(), "sparse"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantized"),
        (lambda value: value.to("meta"), "without values"),
    ],
    ids=["int8", "bool", "complex", "sparse", "quantized", "meta"],
)
def test_tensors_that_are_no_floats_in_memory(state, tmp_path, change, kind, beside):
    torch.save({"model": {**state, KEY: change(state[KEY])}, **beside}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"x\.pth.*({kind}.*{KEY}|{KEY}.*{kind}).*from before") as caught:
        load_detector(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
