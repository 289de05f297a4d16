"""Reading the tensors of a checkpoint file without ever executing what is pickled beside them.

Files of mmdetection carry their training log, NumPy scalars and configuration as Python objects. Where PyTorch's own
safe reader refuses such a file, it is read again by an unpickler that can rebuild only tensors and dictionaries: every
other name becomes a :class:`Placeholder`, which does nothing.
"""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
from torch import Tensor

from gfl_edge.errors import CheckpointError

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]


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


def read_state_dict(path: str | Path) -> StateDict:
    """Only the tensors of a checkpoint file; see :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[StateDict, Mapping[str, Any] | None]:
    """Read the tensors of a checkpoint file, and the architecture that a checkpoint of our own names beside them.

    Accepts a plain state dict or one under ``state_dict``. Objects beside it are skipped, and named in the log.

    Raises:
        CheckpointError: missing, empty, truncated or foreign file, or one whose state dict is or holds objects that
            would have to execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file. Give the path of a .pth or .ckpt file with --weights")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes). Download or copy it again")
    content, architecture = _load(path), None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), (Mapping, Placeholder)):
        named = content.get("architecture")
        content, architecture = content["state_dict"], named if isinstance(named, Mapping) else None
    _refuse_objects(content, path)
    pairs = content.items() if isinstance(content, Mapping) else ()
    if not pairs or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in pairs):
        raise CheckpointError(f"{path} holds no state dict: expected key -> tensor, plain or under 'state_dict'")
    return dict(content), architecture


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


def _refuse_objects(content: Any, path: Path) -> None:
    values = content if isinstance(content, Mapping) else {"": content}
    refused = [f"{v.original} at {k!r}" if k else v.original for k, v in values.items() if isinstance(v, Placeholder)]
    if refused:
        raise CheckpointError(
            f"{path} contains the Python object {', '.join(refused)} where tensors were expected, which would run code "
            "when loaded; refused. Save only its tensors with: torch.save(model.state_dict(), PATH)"
        )


def _unreadable(path: Path) -> str:
    size = path.stat().st_size
    return f"{path} is truncated or not a PyTorch checkpoint ({size} bytes read). Download or copy it again"


def strip_prefixes(state: Mapping[str, Tensor]) -> StateDict:
    """Remove the prefixes of wrappers around a network.

    Lightning's ``model.``, DataParallel's ``module.``; averaged weights (``avg_model.``) where there are some, as
    nanodet does.
    """
    averaged = {k.removeprefix("avg_model."): v for k, v in state.items() if k.startswith("avg_model.")}
    if averaged:
        return averaged
    return {k.removeprefix("module.").removeprefix("model."): v for k, v in state.items()}
