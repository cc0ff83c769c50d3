"""``InFlight``: one item at work in a bounded map; ``KeyQueues`` keep the order of each key."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from contextvars import Context
from typing import Any, Final

__all__ = ["NO_KEY", "InFlight", "KeyQueues"]

NO_KEY: Final[Any] = object()


class InFlight:
    """
    An item from its arrival until its outcome has been emitted.

    Attributes:
        context: What it runs in and is emitted in; None for the current context.
        deadline: When its time is up, on the loop's clock.
        decided: Whether its outcome is known.
        emitted: Whether its outcome has left the operator.
        expired: Whether its time was up and its work was cut short.
        finished: Whether its work is over.
        started: When its work began, on the loop's clock; set only for an adaptive limit.
        value: What is emitted for it; ``SKIPPED`` for nothing.
    """

    __slots__ = (
        "context",
        "deadline",
        "decided",
        "emitted",
        "expired",
        "finished",
        "item",
        "key",
        "started",
        "value",
    )

    deadline: float
    started: float
    value: Any

    def __init__(self, item: Any, context: Context | None) -> None:
        self.item = item
        self.context = context
        self.key: Hashable = NO_KEY
        self.expired = self.decided = self.finished = self.emitted = False


class KeyQueues:
    """A queue for each key in use: one item owns the key, the others wait for it."""

    __slots__ = ("_queues", "waiting")

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[InFlight] | None] = {}
        self.waiting = 0

    def acquire(self, key: Hashable, entry: InFlight) -> bool:
        """Make *entry* the owner of *key*; False if it has another owner, for which it waits."""
        if key not in self._queues:
            # Most keys never have two items at once: no deque until one waits.
            self._queues[key] = None
            entry.key = key
            return True
        entry.key = key
        queue = self._queues[key]
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(entry)
        self.waiting += 1
        return False

    def release(self, key: Hashable) -> InFlight | None:
        """Give up *key*, and return the item that owns it from now on, if any."""
        queue = self._queues[key]
        if not queue:
            del self._queues[key]
            return None
        self.waiting -= 1
        return queue.popleft()

    def __len__(self) -> int:
        return len(self._queues)

    def clear(self) -> None:
        """Forget all keys."""
        self._queues.clear()
        self.waiting = 0
