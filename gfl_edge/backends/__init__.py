"""What runs a model file: OpenVINO, ONNX Runtime, TensorRT, TensorRT-RTX."""
