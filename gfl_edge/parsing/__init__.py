"""From what files say to dataclasses: the limits of fields, JSON in bounded memory, errors that name the field.

May import the texts and class names of gfl_edge.annotations, errors and optional.
"""
