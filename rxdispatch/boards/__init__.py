"""Boards: shared lists of tasks, claimed by status mark."""
