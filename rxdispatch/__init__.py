"""The public names of rxdispatch."""
