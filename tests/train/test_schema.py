"""The JSON schemas that editors take for the shipped configurations."""

from __future__ import annotations

import json

import pytest

from train.schema import CONFIGS, schemas

TOMLS = sorted(CONFIGS.rglob("*.toml"))


def test_schemas_are_current():
    for path, schema in schemas().items():
        assert json.loads(path.read_text()) == schema, f"{path} is out of date; run: python train/schema.py"


def test_fields_have_their_limits_and_choices():
    schema = schemas()[CONFIGS / "schema.json"]
    assert schema["$defs"]["TrainConfig"]["properties"]["epochs"]["minimum"] == 1
    assert schema["$defs"]["TrainConfig"]["properties"]["amp"]["enum"] == ["none", "bf16", "fp16"]
    assert schema["$defs"]["GFLConfig"]["additionalProperties"] is False
    assert "num_classes" not in schema["$defs"]["GFLConfig"]["properties"]


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: path.stem)
def test_shipped_files_name_their_schema(path):
    assert path.read_text().startswith("#:schema ./schema.json\n")
    assert (path.parent / "schema.json").is_file()
