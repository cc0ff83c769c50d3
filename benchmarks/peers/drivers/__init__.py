"""A module for each task system, run as a process: how it submits, works and is loaded."""
