"""A board inside one process, in dictionaries."""
