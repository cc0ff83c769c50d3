"""Suites that measure boards and tasks, one question a file."""
