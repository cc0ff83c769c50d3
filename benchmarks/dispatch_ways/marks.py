"""Dispatch by status marks in shared memory; every worker reads all marks."""

from __future__ import annotations

import mmap
from typing import Any

from atomicshm import AtomicView

from benchmarks.dispatch_ways.dispatch_way import CONTEXT, DispatchWay
from benchmarks.dispatch_ways.runs import PAYLOAD_SIZE, Runs, decode, encode, payload
from benchmarks.dispatch_ways.timed_turn import TimedTurn

__all__ = ["Confirmed", "Locked", "Swapped"]

# The mark, then the payload; a whole number of words.
SLOT = 8 + (PAYLOAD_SIZE + 7) // 8 * 8


class SharedMarks(DispatchWay):
    """Slots, each with a mark and a payload; 0 is the mark of a free task."""

    def prepare(self) -> None:
        """Map the memory."""
        self._memory = mmap.mmap(-1, SLOT * self.count)
        self._view = AtomicView(self._memory)
        self._slots = range(0, SLOT * self.count, SLOT)

    def fill(self) -> None:
        """Write the payloads."""
        for number, at in enumerate(self._slots):
            self._memory[at + 8 : at + 8 + PAYLOAD_SIZE] = encode(payload(number))


class Swapped(SharedMarks):
    """The mark changes by compare-and-swap, as on a ``SharedMemoryBoard``."""

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take free tasks."""
        swap, memory, did = self._view.cas_u64, self._memory, runs.did
        me = turn.me
        with turn:
            for at in self._slots:
                if swap(at, 0, me) == 0:
                    did(decode(memory[at + 8 : at + 8 + PAYLOAD_SIZE]))


class Confirmed(SharedMarks):
    """
    The worker reads the mark, writes its own, reads it again, and goes on if it is still its own.

    Args:
        times: How often the mark is read again: ``status_retry_count``.
    """

    def __init__(self, times: int) -> None:
        self._times = times

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take tasks that seem free."""
        load, store = self._view.load_u64, self._view.store_u64
        memory, did, me, again = self._memory, runs.did, turn.me, range(self._times)
        with turn:
            for at in self._slots:
                if load(at) == 0:
                    store(at, me)
                    for _ in again:
                        if load(at) != me:
                            break
                    else:
                        did(decode(memory[at + 8 : at + 8 + PAYLOAD_SIZE]))


class Locked(SharedMarks):
    """The mark is read and written under a ``multiprocessing.Lock``."""

    def prepare(self) -> None:
        """Map the memory and make a lock."""
        super().prepare()
        self._lock: Any = CONTEXT.Lock()

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take free tasks, and do each after releasing the lock."""
        load, store, lock = self._view.load_u64, self._view.store_u64, self._lock
        memory, did, me = self._memory, runs.did, turn.me
        with turn:
            for at in self._slots:
                with lock:
                    mine = load(at) == 0
                    if mine:
                        store(at, me)
                if mine:
                    did(decode(memory[at + 8 : at + 8 + PAYLOAD_SIZE]))
