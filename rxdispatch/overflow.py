"""``Overflow``: what happens to an item that does not fit; ``Drops``: counts and logs drops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final, Literal, TypeVar, get_args

from rxdispatch.callables import plain_function
from rxdispatch.checks import integer
from rxdispatch.errors import BufferOverflowError, ConfigError
from rxdispatch.log import get_logger

__all__ = [
    "POLICIES",
    "Drops",
    "Overflow",
    "OverflowPolicy",
    "checked_overflow",
    "checked_size",
    "make_room",
    "reason_of",
]

T = TypeVar("T")

log = get_logger(__name__)

OverflowPolicy = Literal["wait", "drop_oldest", "drop_newest", "error"]
Overflow = OverflowPolicy | Callable[[T], object]

BURST = 1.0
"""Seconds of drops that are logged as one event."""

POLICIES: Final[tuple[str, ...]] = get_args(OverflowPolicy)
"""The names of the policies. A new one gets its name above and its branch in :func:`make_room`."""


def checked_size(size: int) -> int:
    """
    Return *size*.

    Raises:
        ConfigError: If it is not an int >= 1.
    """
    integer("size", size)
    return size


def checked_overflow(overflow: Overflow[T]) -> Overflow[T]:
    """
    Return *overflow*.

    Raises:
        ConfigError: If it is neither a policy nor a plain function.
    """
    if overflow.__class__ is str and overflow in POLICIES:
        return overflow
    if not callable(overflow):
        raise ConfigError(f"overflow must be one of {', '.join(POLICIES)} or callable", overflow)
    # The coroutine of a coroutine function would never be awaited, and the item lost silently.
    return plain_function("overflow", overflow)


def make_room(overflow: Overflow[T], item: T, size: int, drops: Drops) -> bool:
    """
    Apply *overflow* to *item*, which does not fit into a queue of *size* items.

    Returns:
        Whether the queue must drop its oldest item and take *item* in. If not, *item* is dropped,
        or the caller waits.

    Raises:
        BufferOverflowError: If the policy is ``"error"``.
        BaseException: Whatever a callable raises.
    """
    if callable(overflow):
        overflow(item)
        return False
    # Type checkers complain here if a policy has no branch.
    match overflow:
        case "wait":
            return False
        case "drop_oldest":
            drops.count()
            return True
        case "drop_newest":
            drops.count()
            return False
        case "error":
            raise BufferOverflowError(size)


def reason_of(overflow: Overflow[T]) -> str:
    """Return the name of the policy *overflow* for the log."""
    return overflow if isinstance(overflow, str) else "overflow"


class Drops:
    """
    A counter of the items that one operator or source drops; it logs them as ``items_dropped``.

    A burst is one event with the number of items, logged a second after the first drop, or at the
    end of the stream. :meth:`count` may be called in any thread, one at a time.

    Args:
        where: The operator or source.
        reason: Why the items are dropped.
        expected: Whether dropping is the purpose of the operator: then the event is information,
            not a warning.

    Example:
        >>> from structlog.testing import capture_logs
        >>> drops = Drops("buffer_bounded", "drop_oldest")
        >>> with capture_logs() as logs:
        ...     for _ in range(3):
        ...         drops.count()
        ...     drops.report()
        >>> logs[0]["event"], logs[0]["items"], drops.total
        ('items_dropped', 3, 3)
    """

    __slots__ = ("_expected", "_logged", "_reason", "_timer", "_where", "total")

    def __init__(self, where: str, reason: str, *, expected: bool = False) -> None:
        self._where = where
        self._reason = reason
        self._expected = expected
        # How many of the total are logged; only the loop writes it, so that no count is lost.
        self._logged = 0
        self._timer: asyncio.TimerHandle | None = None
        #: How many items have been dropped so far.
        self.total = 0

    def count(self) -> None:
        """Count one dropped item."""
        self.total += 1

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Arrange that the counted items are logged within a second; call it on the loop."""
        if self._timer is None and self.total > self._logged:
            # In an empty context: the timer would keep the context of an item, and the log would
            # show its variables.
            self._timer = loop.call_later(BURST, self.report, context=Context())

    def report(self) -> None:
        """Log the items that are not logged yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        items = self.total - self._logged
        self._logged += items
        if items:
            self._tell(log.info if self._expected else log.warning, self._reason, items)

    def lost(self, items: int) -> None:
        """Log *items* that are dropped because an error ended the stream."""
        self.report()
        if items:
            self.total += items
            self._logged += items
            self._tell(log.warning, "error", items)

    def _tell(self, tell: Callable[..., object], reason: str, items: int) -> None:
        tell("items_dropped", operator=self._where, reason=reason, items=items, total=self.total)
