"""
The ``rxdispatch`` command; needs the extra ``cli``.

Internal: users import from ``rxdispatch``.
"""
