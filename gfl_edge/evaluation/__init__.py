"""How good a detector is: AP on COCO annotations, and two models compared on the same images.

It may import the detector, ``media``, ``ops`` and the small tools of ``gfl_edge``.
"""
