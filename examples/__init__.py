"""Scripts that use the project as a user would: the demo, the annotated frames of the README, counting and tiles.

May import everything; nothing imports it except tests. Never installed.
"""
