"""How large the values in a network get: the magnitudes in each of its modules, measured on images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from gfl_edge.media.opening import open_source
from gfl_edge.ops.preprocess import single_input
from gfl_edge.spec import ModelSpec

MAX_IMAGES = 32  # of a user's own


@dataclass
class Magnitudes:
    """Largest magnitudes in one module over all of its calls; infinite where a value was not finite.

    Attributes:
        weights: of its own parameters.
        computed: of what its own operations read and give, those of its children left out.
        entering: of its arguments.
        leaving: of what it returns, by position.
    """

    weights: float = 0.0
    computed: float = 0.0
    entering: float = 0.0
    leaving: dict[int, float] = field(default_factory=dict)

    @property
    def magnitude(self) -> float:
        """The largest that the module itself has to hold."""
        return max(self.weights, self.computed)


def read_images(source: Path, spec: ModelSpec) -> Iterator[NDArray[np.uint8]]:
    """The first ``MAX_IMAGES`` of a folder, each as the model's input, uint8 ``[1, H, W, 3]``.

    Raises:
        SourceError: no images there.
    """
    with open_source(source) as frames:
        for frame in itertools.islice(frames, MAX_IMAGES):
            yield single_input(frame.image, spec)


def measure(network: nn.Module, body: nn.Module, batches: Iterable[NDArray[np.uint8]]) -> dict[str, Magnitudes]:
    """Run ``network`` in float32 and note the largest magnitudes in every module of ``body``, which is a part of it.

    Only maxima are kept, never an activation.

    Args:
        network: takes uint8 ``[N, H, W, 3]``.
        body: with its batch norms folded, as FP16 is to compute it.
        batches: images.

    Returns:
        By the module's name in ``body``, whose own is "".
    """
    recorder = _Recorder()
    ranges = {}
    for name, module in body.named_modules():
        ranges[name] = Magnitudes(weights=max(map(_magnitude, module.parameters(recurse=False)), default=0.0))
        recorder.attach(module, ranges[name])
    try:
        with torch.no_grad(), recorder:
            for images in batches:
                network(torch.from_numpy(images))
    finally:
        recorder.detach()
    return ranges


class _Recorder(TorchFunctionMode):
    """Sees every operation, and by hooks whose it is: sums and concatenations are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[Magnitudes | None] = []  # innermost last; None while a hook of ours measures
        self._handles: list[RemovableHandle] = []
        self._known: MutableMapping[Tensor, tuple[int, float]] = (
            WeakTensorKeyDictionary()
        )  # tensor -> its version and magnitude

    def attach(self, module: nn.Module, found: Magnitudes) -> None:
        """Note down in ``found`` what happens in ``module``."""

        def enter(_: nn.Module, arguments: Any) -> None:
            self._running.append(None)
            found.entering = max(found.entering, self._largest(arguments))
            self._running[-1] = found

        def leave(_: nn.Module, __: Any, results: Any) -> None:
            self._running[-1] = None
            for position, value in enumerate(_tensors(results)):
                found.leaving[position] = max(found.leaving.get(position, 0.0), self._largest(value))
            self._running.pop()

        self._handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def detach(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = self._running[-1] if self._running else None
        if found is None:
            return func(*args, **(kwargs or {}))
        read = self._largest(args)  # now: an operation in place may change it
        result = func(*args, **(kwargs or {}))
        if next(_tensors(result), None) is not None:  # x.shape and the like read no values
            found.computed = max(found.computed, read, self._largest(result))
        return result

    def _largest(self, values: Any) -> float:
        """The largest magnitude in nested activations; looks at each but once, unless it was changed in place."""
        largest = 0.0
        for tensor in _tensors(values):
            version, magnitude = self._known.get(tensor, (-1, 0.0))
            if version != tensor._version:
                magnitude = _magnitude(tensor)
                self._known[tensor] = (tensor._version, magnitude)
            largest = max(largest, magnitude)
        return largest


def _tensors(values: Any) -> Iterator[Tensor]:
    """The activations in nested arguments or results: float tensors that are no parameters."""
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif is_activation(values) and not isinstance(values, nn.Parameter):
        yield values


def is_activation(value: Any) -> bool:
    """Whether ``value`` is a tensor of numbers that have a precision."""
    return isinstance(value, Tensor) and value.is_floating_point()


def _magnitude(tensor: Tensor) -> float:
    """The largest magnitude in ``tensor``, infinite where a value is not finite, 0 of nothing."""
    # NumPy, as PyTorch's aminmax() takes many times longer where channels come last, as after most convolutions
    values = tensor.detach().numpy()
    ends = (float(values.min()), float(values.max())) if values.size else (0.0,)
    return max(abs(end) if math.isfinite(end) else math.inf for end in ends)
