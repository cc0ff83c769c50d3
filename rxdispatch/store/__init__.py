"""Connections to the server, and the server that comes along."""
