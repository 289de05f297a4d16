"""How good a detector is: AP on COCO annotations, and two models compared on the same images.

It may import the detector, ``annotations``, ``filters``, ``media``, ``ops``, the pages of ``report`` and the small
tools of ``gfl_edge``.
"""
