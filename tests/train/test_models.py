"""The networks and their checkpoints, against other people's ONNX of the same weights."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from gfl_edge.errors import CheckpointError
from train.models.nanodet import NANODET_G, PUBLISHED, NanoDet, NanoDetConfig
from train.weights.loading import infer_config, load_detector
from train.weights.unwrapping import unwrap


def rows(level):
    return level.flatten(2).permute(0, 2, 1).numpy()


@pytest.mark.parametrize("size", [320, 416])
def test_nanodet_m_equals_the_independent_onnx(checkpoint, data, size):
    detector = load_detector(checkpoint(f"nanodet-m-{size}"))
    images = torch.from_numpy(np.random.default_rng(size).normal(0, 1, (1, 3, size, size)).astype(np.float32))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data(f"weights/nanodet_m/nanodet_m_{size}.onnx"), options)
    names = [f"{kind}_pred_stride_{stride}" for kind in ("cls", "dis") for stride in (8, 16, 32)]
    expected = session.run(names, {"input.1": images.numpy()})
    with torch.no_grad():
        cls_logits, reg_logits = detector(images)
    for level in range(3):
        np.testing.assert_allclose(rows(cls_logits[level].sigmoid()), expected[level], atol=1e-5)
        np.testing.assert_allclose(rows(reg_logits[level]), expected[3 + level], atol=1e-4)


def test_nanodet_g_equals_upstream(checkpoint, data):
    detector = load_detector(checkpoint("nanodet-g-416"))
    assert detector.config == NANODET_G
    expected = torch.load(data("weights/nanodet_g/nanodet_g_160_io.pt"), weights_only=True)
    with torch.no_grad():
        cls_logits, reg_logits = detector(expected["image"].float())
    for level, stride in enumerate(detector.config.strides):
        np.testing.assert_allclose(rows(cls_logits[level]), expected[f"cls_logits_{stride}"], atol=5e-5)
        np.testing.assert_allclose(rows(reg_logits[level]), expected[f"reg_logits_{stride}"], atol=5e-5)


@pytest.mark.parametrize("name", ["nanodet-m-320", "nanodet-plus-m-416"])
def test_architecture_is_read_off_the_checkpoint(checkpoint, name):
    detector = load_detector(checkpoint(name))
    family = "nanodet-plus" if "plus" in name else "nanodet"
    assert detector.config == NanoDetConfig(family)
    assert not detector.training


def test_maps_have_the_documented_shapes(checkpoint):
    detector = load_detector(checkpoint("nanodet-plus-m-416"))
    with torch.no_grad():
        cls_logits, reg_logits = detector(torch.zeros(2, 3, 96, 128))
    assert [tuple(m.shape) for m in cls_logits] == [(2, 80, 12, 16), (2, 80, 6, 8), (2, 80, 3, 4), (2, 80, 2, 2)]
    assert [tuple(m.shape[1:]) for m in reg_logits] == [(32, 12, 16), (32, 6, 8), (32, 3, 4), (32, 2, 2)]


@pytest.fixture(params=PUBLISHED)
def own(request):
    """A small network of our own with three classes."""
    torch.manual_seed(0)
    small = replace(PUBLISHED[request.param], num_classes=3, stage_channels=(16, 32, 64), neck_channels=32)
    if small.attention_hw is not None:
        small = replace(small, attention_hw=(4, 4))
    return NanoDet(small).eval()


def save(state, path):
    torch.save(state, path)
    return path


def test_other_class_counts_and_widths_load(own, tmp_path):
    loaded = load_detector(save({"state_dict": own.state_dict()}, tmp_path / "own.pth"))
    assert loaded.config == own.config
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(
            torch.equal(a, b)
            for mine, got in zip(own(x), loaded(x), strict=True)
            for a, b in zip(mine, got, strict=True)
        )


def test_a_state_dict_loads_without_a_file(own):
    assert load_detector(own.state_dict()).config == own.config


def test_averaged_weights_are_preferred_and_training_parts_ignored(own):
    state = own.state_dict()
    raw = {f"model.{k}": torch.zeros_like(v) for k, v in state.items()}
    raw |= {f"avg_model.{k}": v for k, v in state.items()} | {"avg_model.aux_head.x": torch.zeros(1)}
    raw["avg_model.aux_fpn.y"] = torch.zeros(1)
    loaded = load_detector(raw)
    assert torch.equal(loaded.state_dict()["head.gfl_cls.0.weight"], state["head.gfl_cls.0.weight"])


def test_missing_unexpected_and_misshapen_keys_are_listed(own):
    state = dict(own.state_dict())
    del state["head.gfl_cls.1.bias"]
    state["head.surprise"] = torch.zeros(1)
    first = next(key for key in state if key.startswith("backbone.") and key.endswith(".bias"))
    state[first] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        load_detector(state)
    assert "1 keys missing: head.gfl_cls.1.bias" in str(caught.value)
    assert "1 keys unexpected: head.surprise" in str(caught.value)
    assert f"{first} [7] (expected [" in str(caught.value)
    assert str(caught.value).endswith("and take that with: gfl-edge adopt")


def test_networks_that_nanodet_builds_otherwise_go_by_onnx(own):
    """With one level less, and with its older head, which all levels share."""
    state = dict(own.state_dict())
    fewer = {key: value for key, value in state.items() if not key.startswith("head.gfl_cls.2.")}
    shared = {key.replace("head.gfl_cls.0.", "head.gfl_cls."): value for key, value in state.items()}
    for other in (fewer, shared):
        with pytest.raises(CheckpointError, match=r"tools/export_onnx\.py .* take that with: gfl-edge adopt"):
            load_detector(other)


def test_a_projection_that_is_not_0_to_reg_max_is_refused(own):
    reg_max = own.config.reg_max
    state = own.state_dict() | {"head.distribution_project.project": torch.linspace(0, 1, reg_max + 1)}
    with pytest.raises(CheckpointError, match=rf"expected 0\.\.{reg_max}"):
        load_detector(state)


def test_a_checkpoint_of_another_model(tmp_path, checkpoint):
    path = save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match="no checkpoint of a NanoDet, GFL, GFLv2 or ATSS"):
        load_detector(path)
    with pytest.raises(CheckpointError, match="is a nanodet checkpoint, nanodet-plus was requested"):
        load_detector(checkpoint("nanodet-m-320"), family="nanodet-plus")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_pickled_code_in_place_of_tensors_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({"state_dict": {"head.hook": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"contains the Python object .*system.*refused"):
        load_detector(path)
    assert not (tmp_path / "pwned").exists()


def test_pickled_code_beside_the_tensors_is_skipped_and_never_run(own, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    path = save({"state_dict": own.state_dict(), "hook": Evil()}, tmp_path / "evil.pth")
    assert load_detector(path).config == own.config
    assert not (tmp_path / "pwned").exists()
    assert "skipped objects that are no tensors: " in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated_checkpoints(tmp_path, checkpoint, share):
    content = checkpoint("nanodet-m-320").read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"is empty \(0 bytes\)|truncated or not a PyTorch checkpoint"):
        load_detector(path)


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00."])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"truncated or not a PyTorch checkpoint|holds no state dict"):
        load_detector(path)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_detector(tmp_path / "none.pth")


def test_a_file_without_tensors(tmp_path):
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_detector(save({"epoch": 3}, tmp_path / "x.pth"))


def test_inference_of_architecture_needs_no_module(own):
    buffer = io.BytesIO()
    torch.save(own.state_dict(), buffer)
    buffer.seek(0)
    assert infer_config(unwrap(torch.load(buffer, weights_only=True))) == own.config


@pytest.mark.parametrize("channels", [(116, 232, 464), (4, 8, 16), (128, 128, 128), (0, 0, 0)])
def test_channels_that_nanodet_g_cannot_have(channels):
    with pytest.raises(ValueError, match="double from stage to stage, from a multiple of 8 on, such as"):
        replace(NANODET_G, stage_channels=channels)
