"""Scripts that use the project as a user would: the demo, and the annotated frames of the README.

May import everything; nothing imports it except tests. Never installed.
"""
