"""``Pipeline``: stages in a row, each with its own queue and workers."""
