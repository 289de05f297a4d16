"""From a PyTorch checkpoint to ONNX and TensorRT engines. A package of the checkout; never installed.

May import gfl_edge, calib and train, and PyTorch and ONNX of the extra export.
"""
