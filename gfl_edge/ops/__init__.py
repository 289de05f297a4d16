"""Work on arrays and graphs: boxes, decode, pre- and post-processing, ONNX graphs.

May import the spec, the errors and the small tools of gfl_edge, and no other room.
"""
