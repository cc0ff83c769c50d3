"""Choosing a node by criteria, and reserving slots on it."""
