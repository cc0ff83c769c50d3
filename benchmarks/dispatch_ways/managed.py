"""Dispatch by lists in the process of a ``multiprocessing.Manager``."""

from __future__ import annotations

import signal
from multiprocessing.managers import SyncManager
from typing import Any

from benchmarks.dispatch_ways.dispatch_way import CONTEXT, DispatchWay
from benchmarks.dispatch_ways.orphans import end_with_parent
from benchmarks.dispatch_ways.runs import Runs, decode, encode, payload
from benchmarks.dispatch_ways.timed_turn import TimedTurn

__all__ = ["ManagedMarks", "ManagedPop"]


class Managed(DispatchWay):
    """A list behind a proxy."""

    _manager: SyncManager | None = None

    def prepare(self) -> None:
        """Start the manager."""
        self._manager = SyncManager(ctx=CONTEXT)
        self._manager.start(end_with_parent, (signal.SIGKILL,))
        self._list: Any = self._manager.list()

    def servers(self) -> list[int]:
        """Return the manager's process."""
        process: Any = vars(self._manager)["_process"]
        return [process.pid]

    def close(self) -> None:
        """End the manager."""
        if self._manager is not None:
            self._manager.shutdown()


class ManagedPop(Managed):
    """Payloads in a list; workers take from its end, and the manager does each call atomically."""

    def fill(self) -> None:
        """Put payloads there in one call, in reverse order, because workers take from the end."""
        self._list.extend([encode(payload(number)) for number in reversed(range(self.count))])

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take from the end."""
        len(self._list)
        pop, did = self._list.pop, runs.did
        with turn:
            while True:
                try:
                    taken = pop()
                except IndexError:
                    return
                did(decode(taken))


class ManagedMarks(Managed):
    """Marks and payloads in a list; a worker reads and writes a mark under a lock."""

    def prepare(self) -> None:
        """Make the list and a lock."""
        super().prepare()
        self._lock: Any = CONTEXT.Lock()

    def fill(self) -> None:
        """Put tasks there in one call."""
        self._list.extend([(0, encode(payload(number))) for number in range(self.count)])

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take the tasks that no worker has marked."""
        tasks, lock, did, me = self._list, self._lock, runs.did, turn.me
        len(tasks)
        with turn:
            for number in range(self.count):
                with lock:
                    mark, taken = tasks[number]
                    if mark == 0:
                        tasks[number] = (me, taken)
                if mark == 0:
                    did(decode(taken))
