"""Detector networks in PyTorch, written for readers and for export."""

from train.models.nanodet import NanoDet, NanoDetConfig

__all__ = ["NanoDet", "NanoDetConfig"]
