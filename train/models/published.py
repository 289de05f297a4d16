"""The published models whose architecture has many fields, one TOML file each in ``train/configs/models``.

A file has a table ``[published]`` (:class:`Published`) and, as a configuration's ``[model]``, a table ``[gfl]`` with
fields of :class:`train.models.gfl.GFLConfig`, or ``[nanodet]`` of :class:`train.models.nanodet.NanoDetConfig`; those
left out have their defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gfl_edge.errors import InputError
from gfl_edge.parsing.validation import build
from train.models.build import Architecture, Network, build_network
from train.models.gfl import GFLConfig
from train.models.nanodet import NanoDetConfig
from train.settings import read_toml

MODELS_FOLDER = Path(__file__).resolve().parent.parent / "configs" / "models"


@dataclass(frozen=True)
class Published:
    """Where a model comes from; its weights are in :data:`gfl_edge.zoo.catalogue.CATALOGUE` under the file's name.

    Attributes:
        name: of its configuration in the project that published it.
        project: that project, as owner/name on GitHub.
    """

    name: str
    project: str


@dataclass(frozen=True)
class ModelFile:
    """What one file of ``train/configs/models`` says."""

    published: Published
    gfl: GFLConfig | None = None
    nanodet: NanoDetConfig | None = None

    def __post_init__(self) -> None:
        if (self.gfl is None) == (self.nanodet is None):
            raise ValueError("gfl, nanodet: expected one of them, which says the architecture")

    @property
    def architecture(self) -> Architecture:
        """The network's own configuration."""
        found = self.gfl or self.nanodet
        assert found is not None  # see __post_init__
        return found


def model_files() -> dict[str, Path]:
    """The files there are, by name without suffix."""
    return {path.stem: path for path in sorted(MODELS_FOLDER.glob("*.toml"))}


def read_model_file(path: str | Path) -> ModelFile:
    """Read the description of a model.

    Args:
        path: a file, or the name of one in ``train/configs/models``, such as "gfl-r50-1x".

    Raises:
        InputError: no such file, no TOML, unknown or missing keys, values of another type or that do not fit together.
    """
    path = model_files().get(str(path), Path(path))
    if not path.is_file():
        raise InputError(f"{path}: no such model. Give a .toml file or one of {', '.join(model_files())}")
    return build(ModelFile, read_toml(path), str(path))


def build_model(path: str | Path) -> Network:
    """The detector that :func:`read_model_file` describes, with random weights, in training mode."""
    return build_network(read_model_file(path).architecture)
