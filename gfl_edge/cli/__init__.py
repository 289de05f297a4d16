"""The commands of ``gfl-edge``, one module each: ``add(parser)`` adds its options and ``run(args)`` does it.

Here is what prints; it may import all of gfl_edge.
"""
