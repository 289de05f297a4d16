"""What runs a model: OpenVINO, ONNX Runtime, TensorRT and TensorRT-RTX, all by one protocol.

May import ops, engine, cuda, the spec, the errors and the small tools.
"""
