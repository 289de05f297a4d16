"""Detector networks in PyTorch, written for readers and for export."""

from train.models.detector import Detector
from train.models.gfl import GFL, GFLConfig
from train.models.nanodet import NanoDet, NanoDetConfig

__all__ = ["GFL", "Detector", "GFLConfig", "NanoDet", "NanoDetConfig"]
