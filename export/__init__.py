"""From a PyTorch checkpoint to ONNX and TensorRT engines. A package of the checkout; never installed."""
