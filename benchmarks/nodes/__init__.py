"""Suites that measure the node registry and the feed, one question a file."""
