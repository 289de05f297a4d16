"""Reading the tensors of a checkpoint file without ever executing what is pickled beside them.

Files of mmdetection carry their training log, NumPy scalars and configuration as Python objects. Where PyTorch's own
safe reader refuses such a file, it is read again by an unpickler that can rebuild only tensors and dictionaries: every
other name becomes a :class:`Placeholder`, which does nothing.
"""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
from torch import Tensor

from gfl_edge import optional
from gfl_edge.errors import CheckpointError

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

SAFETENSORS = ".safetensors"


class Placeholder:
    """Stands where a checkpoint has an object of a class or function that is not ours to run.

    It takes every call and assignment that unpickling makes and ignores it.
    """

    original = ""  # module.name of what it stands for

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def ignore(self, *args: Any) -> None:
        """Do nothing; also the methods below, which unpickling calls to fill an object."""

    __setstate__ = __setitem__ = append = extend = add = ignore


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_ignored: Any) -> Tensor:
    """A tensor without the gradient flag and the hooks that were pickled with it."""
    return torch._utils._rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-untyped-call]


def _rebuild_parameter(data: Tensor, *_ignored: Any) -> Tensor:
    return data


# All that a pickled state dict needs; torch's reader resolves the storage types itself
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch", "Size"): torch.Size,
}


def _inert_pickle(skipped: set[str]) -> ModuleType:
    """What ``torch.load`` takes for the pickle module; names that became placeholders are added to ``skipped``."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in ALLOWED:
                return ALLOWED[module, name]
            original = f"{module}.{name}"
            skipped.add(original)
            return type("Placeholder", (Placeholder,), {"original": original})

    def load(file: IO[bytes], **options: Any) -> Any:
        return Unpickler(file, **options).load()

    module = ModuleType("inert_pickle")
    vars(module).update(Unpickler=Unpickler, load=load)
    return module


def read_content(path: str | Path) -> Any:
    """What a checkpoint file holds: tensors, plain values, and a :class:`Placeholder` for every other object.

    Reads files of ``torch.save``, also of those before version 1.6, and of safetensors.

    Raises:
        CheckpointError: missing, empty, truncated or foreign file.
        MissingDependencyError: a file of safetensors without that package.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file. Give the path of a .pth or .ckpt file with --weights")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes). Download or copy it again")
    return _load_safetensors(path) if path.suffix == SAFETENSORS else _load(path)


def _load_safetensors(path: Path) -> Any:
    safetensors = optional.load("safetensors.torch")
    try:
        return safetensors.load_file(str(path))
    except Exception as error:  # its own class, and those of Python
        raise CheckpointError(f"{path} is truncated or no file of safetensors. Download or copy it again") from error


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # an object that is no tensor, or no pickle at all
        return _load_only_tensors(path)
    except Exception as error:  # a damaged file can fail in any way
        raise CheckpointError(_unreadable(path)) from error


def _load_only_tensors(path: Path) -> Any:
    skipped: set[str] = set()
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_inert_pickle(skipped))
    except Exception as error:  # as above
        raise CheckpointError(_unreadable(path)) from error
    if skipped:
        logger.warning("%s: skipped objects that are no tensors: %s", path, ", ".join(sorted(skipped)))
    return content


def _unreadable(path: Path) -> str:
    size = path.stat().st_size
    return f"{path} is truncated or not a PyTorch checkpoint ({size} bytes read). Download or copy it again"
