"""What a sidecar says about an engine: whether it runs here, whether it is whole, how to build it again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from gfl_edge.engine.sidecar import Sidecar, sidecar_path
from gfl_edge.errors import ContractError, EngineMismatchError, ModelFileError
from tests.support.tiny_spec import TINY

CONTENT = b"an engine"
SIDECAR = Sidecar(
    flavor="rtx",
    version="1.7.1.116",
    targets=("sm75", "sm86"),
    max_batch=4,
    onnx_sha256="0" * 64,
    engine_sha256=hashlib.sha256(CONTENT).hexdigest(),
    spec=TINY,
    build_seconds=1.5,
    convolutions=9,
    int8_convolutions=0,
)
REBUILD = "gfl-edge build --model tiny-fp32.onnx --max-batch 4 --flavor rtx --target current"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "m.engine"
    path.write_bytes(CONTENT)
    sidecar_path(path).write_bytes(SIDECAR.to_json())
    return path


def test_the_file_lies_beside_its_engine_and_can_be_read_by_people(engine: Path) -> None:
    path = engine.parent / "m.engine.json"
    assert sidecar_path(engine) == sidecar_path(str(engine)) == path
    values = json.loads(path.read_text())
    assert values["targets"] == ["sm75", "sm86"]
    assert values["spec"]["class_names"] == ["cat", "dog"]
    assert path.read_text().startswith('{\n  "flavor": "rtx",\n')  # a line for each field
    assert path.read_text().endswith("}\n")


def test_how_to_build_it_again() -> None:
    assert SIDECAR.rebuild_command == REBUILD
    for batch, option in ((1, ""), (2, " --max-batch 2")):
        command = dataclasses.replace(SIDECAR, max_batch=batch, flavor="tensorrt").rebuild_command
        assert command == f"gfl-edge build --model tiny-fp32.onnx{option} --flavor tensorrt --target current"


@pytest.mark.parametrize(
    ("machine", "problems"),
    [
        (("rtx", "1.7.1.116", "sm75"), ""),
        (("rtx", "1.7.1.116", "sm86"), ""),
        (("rtx", "1.6.0", "sm75"), "built by rtx 1.7.1.116, installed is 1.6.0"),
        (("tensorrt", "1.7.1.116", "sm75"), "built by rtx, to be loaded by tensorrt"),
        (("tensorrt", "10.13", "sm75"), "built by rtx, to be loaded by tensorrt"),  # the version says nothing then
        (("rtx", "1.7.1.116", "sm8"), "built for sm75, sm86, this GPU is sm8"),
        (
            ("rtx", "1.6.0", "sm90"),
            "built by rtx 1.7.1.116, installed is 1.6.0; built for sm75, sm86, this GPU is sm90",
        ),
    ],
)
def test_an_engine_runs_where_it_was_built_for(machine: tuple[str, str, str], problems: str) -> None:
    flavor, version, device = machine
    if not problems:
        SIDECAR.check("m.engine", flavor, version, device)
        return
    with pytest.raises(EngineMismatchError) as caught:
        SIDECAR.check("m.engine", flavor, version, device)
    assert str(caught.value) == f"m.engine: {problems}. Rebuild with: {REBUILD}"


def test_a_whole_engine_is_read_and_a_cut_one_is_named(engine: Path) -> None:
    assert SIDECAR.check_file(engine) == CONTENT
    engine.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelFileError) as caught:
        SIDECAR.check_file(engine)
    assert str(caught.value) == (
        f"{engine} (8 bytes) is not the file its sidecar describes: truncated, or copied without its sidecar. Copy "
        f"both again, or rebuild with: {REBUILD}"
    )


def test_a_missing_engine_and_a_missing_sidecar_are_named(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(ModelFileError) as caught:
        Sidecar.read(engine)
    assert str(caught.value) == (
        f"{engine}.json is missing: without it the engine's TensorRT version, GPU and classes are unknown. Copy it "
        "along with the engine, or rebuild with: gfl-edge build --model MODEL.onnx"
    )
    engine.unlink()
    with pytest.raises(ModelFileError, match=r"m\.engine: no such engine\. Build one with: gfl-edge build --model"):
        Sidecar.read(engine)


@pytest.mark.parametrize(
    "change",
    [
        {"targets": ["sm1"]},
        {"targets": ["sm1234"]},
        {"targets": ["sm05"]},
        {"targets": ["SM75"]},
        {"targets": ["sm75 "]},
        {"targets": ["sm75"] * 65},
        {"version": "v1"},
        {"version": "1." * 32 + "1"},
        {"version": "1 2"},
        {"max_batch": 65537},
    ],
)
def test_values_beyond_their_limits_are_refused(engine: Path, change: dict[str, object]) -> None:
    sidecar_path(engine).write_text(json.dumps({**dataclasses.asdict(SIDECAR), **change}))
    (field,) = change
    with pytest.raises(ContractError, match=rf"m\.engine\.json is not a gfl_edge sidecar: {field}") as caught:
        Sidecar.read(engine)
    advice = "Copy it again along with the engine, or rebuild with: gfl-edge build --model MODEL.onnx"
    assert str(caught.value).endswith(f". {advice}")


@pytest.mark.parametrize(
    "change",
    [
        {"targets": ["sm75", "sm100", "sm90a", "sm120f"]},
        {"targets": [f"sm{number}" for number in range(10, 74)]},
        {"version": "10"},
        {"version": "10.13.2.6"},
        {"version": "1.0rc1+cu13_x-y"},
        {"version": "1.0RC1"},
        {"version": "1." * 31 + "10"},
        {"max_batch": 1},
        {"max_batch": 65536},
        {"build_seconds": 0},
    ],
)
def test_values_at_their_limits_are_taken(engine: Path, change: dict[str, object]) -> None:
    sidecar_path(engine).write_text(json.dumps({**dataclasses.asdict(SIDECAR), **change}))
    (field,) = change
    found = getattr(Sidecar.read(engine), field)
    assert (list(found) if isinstance(found, tuple) else found) == change[field]


def test_a_sidecar_stays_what_it_is() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SIDECAR.flavor = "tensorrt"  # type: ignore[misc]
