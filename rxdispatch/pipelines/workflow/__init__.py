"""Workflows: state machines whose history survives their process."""
