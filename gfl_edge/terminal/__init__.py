"""What text and streams of a terminal need, whatever they hold and whoever reads them.

May import the errors and the files of gfl_edge, and no other room.
"""
