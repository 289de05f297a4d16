"""Models that have a name: the bundled detector, and the catalogue of published weights with their download.

It may import ``spec`` and the small tools of ``gfl_edge``.
"""
