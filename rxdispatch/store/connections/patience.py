"""``Patience``: a timeout that counts from the last byte received or sent."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from array import array
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, cast

from redis.asyncio.connection import AbstractConnection

__all__ = ["Patience", "count_bytes"]

_LARGE: Final = 1 << 16
"""The size in bytes from which the sending of a request is observed."""


class _Received:
    """Replaces the ``feed_data`` of a stream reader, and also counts the bytes."""

    __slots__ = ("_feed", "count")

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._feed = reader.feed_data
        self.count = 0

    def __call__(self, data: bytes) -> None:
        self.count += len(data)
        self._feed(data)


def count_bytes(connection: AbstractConnection) -> None:
    """Start to count the bytes that an open connection receives, for :class:`Patience`."""
    reader = connection._reader
    if reader is not None:
        cast("Any", reader).feed_data = _Received(reader)


class Patience:
    """
    A context manager that ends its block when a connection moves no byte for *attempt* seconds.

    The bytes are those of the incoming reply and of a large outgoing request. When the time is
    over, the block raises TimeoutError, without a reference to the cancelled frames.

    Postponing asyncio's own timeout would take a call for each piece that arrives. This class
    compares counts of bytes only when *attempt* seconds have passed.

    Args:
        connection: An open connection, prepared by :func:`count_bytes`.
        attempt: The timeout in seconds.
        deadline: The time on the loop's clock at which the block ends if no byte has moved.
        cap: The time at which the block ends even if bytes move.
        size: The size of the request in bytes.
        on_written: Called when the request is written; may be called again for another attempt.

    Attributes:
        moved_at: The last time at which a byte was known to have moved; None before the first.
    """

    __slots__ = (
        "_attempt",
        "_cancelling",
        "_cap",
        "_connection",
        "_deadline",
        "_expired",
        "_large",
        "_left",
        "_loop",
        "_on_written",
        "_received",
        "_task",
        "_timer",
        "moved_at",
    )

    def __init__(
        self,
        connection: AbstractConnection,
        *,
        attempt: float,
        deadline: float,
        cap: float,
        size: int,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._deadline = deadline
        self._cap = cap
        self._on_written = on_written
        self._large = size >= _LARGE
        self._expired = False
        self.moved_at: float | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = loop = asyncio.get_running_loop()
        self._received = _received(self._connection)
        self._left: int | None = None
        self._timer = loop.call_at(min(self._deadline, loop.time() + self._attempt), self._look)
        return self

    def written(self) -> None:
        """Observe the request from now on: the operating system has accepted what it can hold."""
        if self._large:
            self._left = _left(self._connection)
        if self._on_written is not None:
            self._on_written()

    def _look(self) -> None:
        now = self._loop.time()
        if now < self._cap and self._moved():
            self.moved_at = now
            self._timer = self._loop.call_at(min(self._cap, now + self._attempt), self._look)
        else:
            self._expired = True
            self._task.cancel()

    def _moved(self) -> bool:
        received = _received(self._connection)
        moved, self._received = received != self._received, received
        if self._large:
            left = _left(self._connection)
            moved = moved or (self._left is not None and left < self._left)
            self._left = left
        return moved

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        # An object that refers to this one must not keep the task's result alive, such as claims.
        task = self._task
        del self._task
        if self._expired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from None


def _received(connection: AbstractConnection) -> int:
    feed = getattr(connection._reader, "feed_data", None)
    return feed.count if isinstance(feed, _Received) else 0


def _left(connection: AbstractConnection) -> int:
    """Return how many bytes have not reached the other side yet; 0 if unknown."""
    writer = connection._writer
    if writer is None:
        return 0
    own = writer.get_extra_info("socket")
    waiting = writer.transport.get_write_buffer_size()
    return waiting + (0 if own is None else _queued(own))


def _queued(own: socket.socket) -> int:
    """Return how many bytes the operating system still has to send; 0 if unknown."""
    if own.fileno() < 0:
        return 0
    queued = array("i", [0])
    try:
        fcntl.ioctl(own.fileno(), termios.TIOCOUTQ, queued, True)
    except OSError:
        return 0
    return queued[0]
