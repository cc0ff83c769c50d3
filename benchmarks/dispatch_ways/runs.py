"""The tasks that are dispatched, and how often each was done."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Final

import msgspec
from atomicshm import AtomicView

__all__ = ["PAYLOAD_SIZE", "Payload", "Runs", "decode", "encode", "payload"]

Payload = dict[str, str]

decode: Final = msgspec.msgpack.Decoder(Payload).decode
encode: Final[Callable[[Payload], bytes]] = msgspec.msgpack.Encoder().encode


def payload(number: int) -> Payload:
    """Return the payload of a task: its number in 20 bytes of text."""
    return {"path": f"{number:020}"}


#: Bytes of a payload as MessagePack.
PAYLOAD_SIZE: Final = len(encode(payload(0)))


class Runs:
    """A counter for each task, in memory that forked processes share."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._memory = mmap.mmap(-1, 8 * count)
        self._view = AtomicView(self._memory)
        self._add = self._view.fetch_add_u64

    def clear(self) -> None:
        """Reset all counters."""
        self._memory[:] = bytes(len(self._memory))

    def did(self, done: Payload) -> None:
        """Count a run of the task with that payload."""
        self._add(8 * int(done["path"]), 1)

    def twice_and_missing(self) -> tuple[int, int]:
        """Return how many tasks were done more than once, and how many never."""
        runs = [self._view.load_u64(8 * number) for number in range(self._count)]
        return sum(n > 1 for n in runs), runs.count(0)
