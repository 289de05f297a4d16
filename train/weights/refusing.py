"""Sentences about what stands in a checkpoint where a tensor of floats is expected."""

from __future__ import annotations

from collections.abc import Mapping

from train.weights.foreign import SAVE_WEIGHTS
from train.weights.naming import listed, short
from train.weights.rebuilding import TENSOR_KINDS

PLAIN = "the plain "  # followed by its type

# How torch and others rebuild tensors that are none of numbers in memory
KINDS = {
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values (device meta)",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
    "torch._utils._rebuild_xla_tensor": "a tensor of another device",
}
NUMPY = "numpy."


def refusal(origin: str, refused: Mapping[str, str]) -> str:
    """The error for a file whose weights are, or hold, something else.

    Args:
        origin: the file.
        refused: by key, empty for all of it: what stands there, a class or function, or one of the kinds above.
    """
    kinds = {key: kind for key, original in refused.items() if (kind := _kind_of_tensor(original))}
    arrays = {key: "a NumPy array" for key, original in refused.items() if original.startswith(NUMPY)}
    plain = {key: what for key, what in refused.items() if what.startswith((PLAIN, "a ", "None")) and key not in kinds}
    others = {key: original for key, original in refused.items() if key not in kinds | arrays | plain}
    if others:
        return (
            f"{origin} contains the Python object {_placed(others)} where tensors were expected, which would run code "
            f"when loaded; refused. {SAVE_WEIGHTS}"
        )
    if kinds:
        return f"{origin} holds {_placed(kinds)}. Expected plain tensors of floats, from before the conversion"
    if arrays:
        return (
            f"{origin} holds {_placed(arrays)} where tensors were expected. Where it was made, convert them: "
            "torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, PATH)"
        )
    return f"{origin} holds {_placed(plain)} where tensors were expected. {SAVE_WEIGHTS}"


def _kind_of_tensor(original: str) -> str | None:
    return KINDS.get(original) or (original if original.startswith(TENSOR_KINDS) else None)


def _placed(named: Mapping[str, str]) -> str:
    places = {key: f" at '{short(key)}'" if key else "" for key in named}
    return listed([f"{short(what)}{places[key]}" for key, what in named.items()])
