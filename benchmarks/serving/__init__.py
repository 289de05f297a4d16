"""A detector behind a server: how much the server takes.

Imports gfl_edge and train. What runs beside the server, in its environment, imports gfl_edge only.
"""
