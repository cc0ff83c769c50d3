"""
Parts that pipelines, graphs and actors share.

Internal: users import from ``rxdispatch``.
"""
