"""Divides items into requests of a limited number and a limited size in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from rxdispatch.boards.engine import CHUNK
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.checks import utf8_size
from rxdispatch.claim import Settlement

__all__ = ["BYTES", "chunks", "portions_of_entries", "portions_of_settlements"]

BYTES: Final = 4 * 1024 * 1024
"""After this many bytes, a request takes no more items."""

T = TypeVar("T")


def chunks(items: Sequence[T]) -> Iterator[list[T]]:
    """Divide small items, by their number alone."""
    walk = iter(items)
    while chunk := list(islice(walk, CHUNK)):
        yield chunk


def portions_of_entries(
    entries: Sequence[NewTask], most: int = BYTES
) -> Iterator[Sequence[NewTask]]:
    """Divide new tasks; after *most* bytes of ids and records, a request takes no more."""
    start = 0
    while start < len(entries):
        stop, size = start, 0
        while stop < len(entries) and stop - start < CHUNK and (size < most or stop == start):
            size += entries[stop].size
            stop += 1
        yield entries[start:stop]
        start = stop


def portions_of_settlements(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """Divide settlements; a request has at most BYTES of errors and tracebacks."""
    for chunk in chunks(settlements):
        some: list[Settlement] = []
        size = 0
        for settlement in chunk:
            if settlement.error:
                more = utf8_size(settlement.error) + utf8_size(settlement.traceback)
                if size + more > BYTES and some:
                    yield some
                    some, size = [], 0
                size += more
            some.append(settlement)
        yield some
