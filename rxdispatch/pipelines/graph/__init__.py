"""``Graph``: stages connected by named ports."""
