"""A copy of a model file that recommends other scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from gfl_edge.engine.sidecar import ENGINE_SUFFIX, Sidecar, sidecar_path
from gfl_edge.errors import InputError
from gfl_edge.files import check_output, write_together
from gfl_edge.spec import ModelSpec, load_contract, set_spec


def check_copy(model: Path, output: Path) -> None:
    """Raise InputError or OutputError where ``output`` could not become a copy of ``model``."""
    if output.suffix != model.suffix:
        raise InputError(f"{output}: a copy of {model.name} is called *{model.suffix}, too")
    check_output(output)


def copy_with_spec(model: Path, output: Path, change: Callable[[ModelSpec], ModelSpec]) -> None:
    """Write ``model`` again with another description; nothing that it computes changes.

    Args:
        model: an ONNX file or an engine, whose description is that in its sidecar.
        output: of the same suffix; an engine's sidecar is written beside it. It may be ``model`` itself.
        change: gives the new description for the present one; thresholds that are part of the graph must stay.

    Raises:
        InputError: see :func:`check_copy`.
        ModelFileError: ``model`` cannot be read.
        ContractError: it carries no description.
        OutputError: it cannot be written.
    """
    check_copy(model, output)
    if model.suffix == ENGINE_SUFFIX:
        sidecar = Sidecar.read(model)
        changed = dataclasses.replace(sidecar, spec=change(sidecar.spec))
        write_together({output: sidecar.check_file(model), sidecar_path(output): changed.to_json()})
        return
    onnx, spec = load_contract(model)
    set_spec(onnx, change(spec))
    write_together({output: onnx.SerializeToString()})
