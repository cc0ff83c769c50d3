"""Divides what a call of a board needs into requests of a limited number and size in bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from rxdispatch.boards.engine import CHUNK, DeadRow, Engine
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.checks import utf8_size
from rxdispatch.claim import Settlement

__all__ = [
    "BYTES",
    "chunks",
    "dead_rows",
    "portions_of_entries",
    "portions_of_settlements",
    "records_of",
    "redrive_all",
]

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


async def records_of(engine: Engine, ids: Sequence[str]) -> AsyncIterator[tuple[str, bytes | None]]:
    """Yield each id with the record of its task; a reply may have only the first ones."""
    start = 0
    while start < len(ids):
        asked = ids[start : start + CHUNK]
        records = await engine.read(asked)
        for pair in zip(asked, records, strict=False):
            yield pair
        start += len(records)


async def dead_rows(engine: Engine) -> AsyncIterator[DeadRow]:
    """Yield the dead tasks, oldest first, a page at a time."""
    after = ""
    while True:
        page, further = await engine.dead(after)
        for row in page:
            yield row
        if further == after:
            return
        after = further


async def redrive_all(engine: Engine, ids: Sequence[str] | None) -> int:
    """Redrive dead tasks, all that are dead now if *ids* is None; return how many."""
    total = 0
    if ids is not None:
        for chunk in chunks(ids):
            total += (await engine.redrive(chunk, ""))[0]
        return total
    until = ""
    while True:
        count, until = await engine.redrive(None, until)
        total += count
        if count < CHUNK:
            return total
