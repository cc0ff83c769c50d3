"""Actors: one mailbox, one handler, one message at a time."""
