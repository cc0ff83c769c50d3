"""The operators of rxdispatch."""
