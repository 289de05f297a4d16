"""From what files say to dataclasses: the limits of fields, JSON in bounded memory, errors that name the field.

May import gfl_edge.annotations.text, errors and optional.
"""
