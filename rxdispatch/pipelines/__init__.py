"""
Ways to arrange work, as thin layers over the operators, the streams and the boards.

Internal: users import from ``rxdispatch``.
"""
