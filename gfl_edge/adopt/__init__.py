"""Other people's ONNX files of GFL detectors: recognized, wrapped into the contract of gfl_edge, and proven equal.

May import ops, backends, evaluation, annotations, media, parsing, the spec, the errors and the small tools.
"""
