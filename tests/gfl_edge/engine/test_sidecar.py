"""What is written beside an engine is read back, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from gfl_edge.engine.options import BuildOptions
from gfl_edge.engine.sidecar import Sidecar, sidecar_path
from gfl_edge.errors import ContractError
from tests.support.specs import sidecars
from tests.support.tiny_spec import TINY

SIDECAR = Sidecar("rtx", "1.7.1.116", ("sm75", "sm86"), 3, "0" * 64, "1" * 64, TINY, 1.5, 9, 0)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "m.engine"
    path.write_bytes(b"engine")
    return path


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sidecar=sidecars())
def test_what_is_written_is_read_back(engine: Path, sidecar: Sidecar) -> None:
    sidecar_path(engine).write_bytes(sidecar.to_json())
    assert Sidecar.read(engine) == sidecar


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(flavor="trt"), "flavor 'trt': expected one of 'tensorrt', 'rtx'"),
        (changed(flavor=None), "flavor None: expected one of"),
        (changed(version=10), "version 10: expected a text"),
        (changed(version="../10"), "version '../10': expected a text that fits"),
        (changed(targets=[]), r"targets \[\]: expected 1 to 64 values"),
        (changed(targets="sm75"), "targets 'sm75': expected a list"),
        (changed(targets=["s", "m"]), r"targets\[0\] 's': expected a text that fits"),
        (changed(targets=["sm75", 86]), r"targets\[1\] 86: expected a text"),
        (changed(max_batch=0), r"max_batch 0: expected 1\.\.65536"),
        (changed(max_batch=True), "max_batch True: expected a whole number"),
        (changed(max_batch="3"), "max_batch '3': expected a whole number"),
        (changed(max_batch=1.5), "max_batch 1.5: expected a whole number"),
        (changed(max_batch=10**9), r"max_batch 1000000000: expected 1\.\.65536"),
        (changed(engine_sha256="0" * 63), "engine_sha256 '0+"),
        (changed(engine_sha256="Z" * 64), "engine_sha256 'Z+"),
        (changed(build_seconds=-1), "build_seconds -1: expected 0 or more"),
        (changed(device=75), "device 75: expected a text"),
        (changed(options={"nms": "host"}), r"options\.nms 'host': expected one of 'auto', 'graph'"),
        (changed(options={"workspace_mib": 0}), r"options\.workspace_mib 0: expected 1"),
        (changed(build_seconds="x"), "build_seconds 'x': expected a number"),
        (changed(colour=1), "colour: no such field"),
        (changed(spec=None), "spec: None: expected a table"),
        (changed(spec=[]), r"spec: \[\]: expected a table"),
        (lambda values: values.pop("spec"), "the file: missing spec"),
        (lambda values: values.pop("targets"), "the file: missing targets"),
        (lambda values: values["spec"].update(reg_max=-1), r"spec\.reg_max -1: expected 0\.\.255"),
        (lambda values: values["spec"].update(input_hw=[320.5, 320]), r"spec\.input_hw\[0\] 320\.5: expected a whole"),
        (lambda values: values["spec"].update(strides=[16, 8]), r"spec\.strides \(16, 8\): expected each larger"),
    ],
)
def test_nonsense_is_named(engine: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    sidecar_path(engine).write_bytes(SIDECAR.to_json())
    values = json.loads(sidecar_path(engine).read_text())
    change(values)
    sidecar_path(engine).write_text(json.dumps(values))
    with pytest.raises(ContractError, match=f"m.engine.json is not a gfl_edge sidecar: {message}") as caught:
        Sidecar.read(engine)
    assert "rebuild with: gfl-edge build" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON: Expecting value"),
        (b'{"flavor": "rtx", "flavor": "tensorrt"}', "is not valid JSON: the key 'flavor' comes twice"),
        (b"[" * 100_000, "is not valid JSON: nested too deeply"),
        (b'{"max_batch": ' + b"9" * 100_000 + b"}", "is not valid JSON: a whole number of 100000 digits"),
        (b'{"build_seconds": NaN}', "is not valid JSON: NaN is no number"),
        (b'{"version": "\xe4"}', "line 1: the byte 0xe4 is not UTF-8"),
        (b'{"version": "\\ud800"}', "is not a gfl_edge sidecar: the file: unexpected end of hex escape"),
        (b" " * (1 << 24) + b"{}", "cannot be read .it is larger than the 16777216 bytes"),
    ],
)
def test_what_is_no_json_of_ours(engine: Path, content: bytes, message: str) -> None:
    sidecar_path(engine).write_bytes(content)
    with pytest.raises(ContractError, match=message) as caught:
        Sidecar.read(engine)
    assert "rebuild with: gfl-edge build" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_damage(engine: Path, encoding: str) -> None:
    sidecar_path(engine).write_bytes(SIDECAR.to_json())
    sidecar_path(engine).write_text(sidecar_path(engine).read_text(), encoding=encoding)
    assert Sidecar.read(engine) == SIDECAR


def test_what_never_ends_is_not_read(engine: Path) -> None:
    sidecar_path(engine).symlink_to("/dev/zero")
    with pytest.raises(Exception, match=r"m\.engine\.json is missing"):
        Sidecar.read(engine)


def test_how_to_build_it_again() -> None:
    options = BuildOptions(nms="graph", tf32=False, workspace_mib=64)
    sidecar = dataclasses.replace(SIDECAR, options=options)
    command = f"gfl-edge build --model {TINY.file_stem}.onnx --max-batch 3 --flavor rtx --target current"
    assert sidecar.rebuild_command == f"{command} --nms graph --no-tf32 --workspace 64"
    assert SIDECAR.rebuild_command == command


def test_another_gpu_of_the_same_kind_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    sidecar = dataclasses.replace(SIDECAR, flavor="tensorrt", device="NVIDIA GeForce RTX 2080 Ti")
    sidecar.warn_of_device("m.engine", "NVIDIA GeForce RTX 2080 Ti")
    SIDECAR.warn_of_device("m.engine", "NVIDIA T4")
    assert not caplog.records
    sidecar.warn_of_device("m.engine", "NVIDIA T4")
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("m.engine was built on a NVIDIA GeForce RTX 2080 Ti and may be slower on this NVIDIA T4. ")
