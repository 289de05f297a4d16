"""From a PyTorch checkpoint to ONNX files and TensorRT engines; :func:`export.engine.build` is the whole road.

May import train, calib and gfl_edge. A package of the checkout; never installed.
"""
