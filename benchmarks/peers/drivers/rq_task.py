"""The function that rq's jobs name, in a module that its worker can import."""

from __future__ import annotations

from benchmarks.peers.driver import Saw

__all__ = ["listeners", "nothing"]

listeners: list[Saw] = []


def nothing(payload: str) -> None:
    """Report that it started."""
    for listener in listeners:
        listener(payload)
