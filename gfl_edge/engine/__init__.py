"""What an engine file is: how it is built, its sidecar, its contract, the flavors of TensorRT and the plugin.

May import ops, cuda, the spec, the errors and the small tools.
"""
