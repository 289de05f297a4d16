"""Making INT8 models from float ones, by measurement. A package of the checkout; never installed.

May import gfl_edge, and NVIDIA Model Optimizer and ONNX of the extra calib; nothing of train and export.
"""
