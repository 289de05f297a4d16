"""Other people's checkpoints: read without executing anything, recognised by their keys, every key accounted for."""

from train.weights.imagenet import load_backbone
from train.weights.loading import describe_architecture, infer_config, load_detector
from train.weights.reading import read_state_dict, strip_prefixes

__all__ = [
    "describe_architecture",
    "infer_config",
    "load_backbone",
    "load_detector",
    "read_state_dict",
    "strip_prefixes",
]
