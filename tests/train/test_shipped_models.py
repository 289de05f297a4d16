"""The model files that the project ships: they build, and name the published networks."""

from __future__ import annotations

import json

import pytest
import torch

from gfl_edge.errors import InputError
from gfl_edge.zoo.catalogue import CATALOGUE
from tests.support import mmdet_atss
from train.describe import PRESETS
from train.models.nanodet import NANODET_G
from train.models.published import build_model, model_files, read_model_file


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
    elif model.architecture.family == "atss":
        assert mmdet_atss.digest(built) == mmdet_atss.KEYS[name]
    elif model.architecture.family == "gflv2":
        assert built["bbox_head.reg_conf.0.weight"] == [64, 20, 1, 1]


def test_there_is_a_file_for_each_published_model():
    assert len({read_model_file(path).published.name for path in model_files().values()}) == len(model_files())
    assert set(CATALOGUE) - set(model_files()) == set(PRESETS)  # whose architectures are the families' defaults


def test_the_file_of_nanodet_g_is_the_network_of_its_checkpoint():
    assert read_model_file("nanodet-g-416").architecture == NANODET_G


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gfl]\ndepht = 50\n", r"depht: no such field; depth\?"),
        ("[gfl]\ndepth = '50'\n", r"depth '50': expected a whole number"),
        ("[gfl]\ndepth = 51\n", r"depth 51: expected one of 18, 34, 50, 101"),
        ("[gfl]\n[architekture]\n", r"architekture: no such field"),
        ("[gfl\n", "is no TOML"),
        ("[gfl]\n[nanodet]\nfamily = 'nanodet'\n", "gfl, nanodet: expected one of them"),
        ("", "gfl, nanodet: expected one of them"),
        ("[nanodet]\nfamily = 'nanodet-g'\n", r"stage_channels \[116, 232, 464\]: those of nanodet-g double"),
    ],
)
def test_faulty_model_files(tmp_path, text, message):
    path = tmp_path / "model.toml"
    path.write_text('[published]\nname = "n"\nproject = "p"\n' + text)
    with pytest.raises(InputError, match=message):
        read_model_file(path)


def test_a_missing_model_file_lists_those_there_are():
    with pytest.raises(InputError, match=r"no such model\. Give a \.toml file or one of atss-r101-1x, .*gflv2-r50-1x"):
        read_model_file("gfl-r51")
