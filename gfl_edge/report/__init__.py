"""What a report holds, and its pages: Markdown, HTML, charts and the comparison with an earlier one.

It presents and reads reports without measuring: of ``gfl_edge`` it may import only the small tools, never ``bench``.
"""
