"""``RedisInbox``: where one worker waits for tasks of a board on a server."""

from __future__ import annotations

import asyncio
import os
import struct
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import Any, Final

from reactivex import Observable, abc

from rxdispatch.boards.engine import ClaimedTask, ClaimReply, Delivery, InboxListener
from rxdispatch.boards.redis.layout import body_of, kind_bytes, read_tries
from rxdispatch.boards.task_codec import id_bytes, id_text
from rxdispatch.clock import lease_clock_of
from rxdispatch.log import get_logger
from rxdispatch.throttled_warning import ThrottledWarning

__all__ = ["RedisInbox"]

_unreadable: Final = ThrottledWarning(get_logger(__name__), "inbox_message_unreadable")

_ALL: Final = bytes(8)
"""The class of all kinds."""

# A delivery has the number of the one before, its own, which is its first token, the time, the room
# that is left, and how many tasks it has; a task has the lengths of its id, record and tries, and
# these three. A message about a due time has the microseconds until then. One about claims that
# were cancelled has their tokens.
_DELIVERY: Final = struct.Struct(">dddHH")
_TASK: Final = struct.Struct(">HIB")
_NUMBER: Final = struct.Struct(">d")

_Args = tuple[bytes | str | int, ...]
_Claim = Callable[[int, _Args], Awaitable[tuple[ClaimReply, list[Any]]]]
_Renew = Callable[[Sequence[tuple[str, int]], float, Callable[[], None]], Awaitable[list[bool]]]


class RedisInbox:
    """
    The inbox of one worker: a Pub/Sub channel.

    INVARIANT. The worker has read every delivery up to the number ``_read``. ``_beyond`` has those
    that it has read after a gap, by number, with the number before each.

    Args:
        channel: The messages of the inbox; None means that some may have been missed.
        name: The name of the inbox.
        claim: A function that claims up to a number of tasks, with the arguments about the inbox.
        renew: A function that renews, and calls its last argument when the request is written.
        kinds: The kinds that the worker takes; None for all.
    """

    def __init__(
        self,
        channel: Observable[bytes | None],
        name: bytes,
        claim: _Claim,
        renew: _Renew,
        kinds: Sequence[str] | None,
    ) -> None:
        self._channel = channel
        self._name = name
        self._raw_claim = claim
        self._renew = renew
        names = sorted(map(kind_bytes, kinds or ()))
        packed = b"".join(len(kind).to_bytes(2, "big") + kind for kind in names)
        self._class = sha1(packed, usedforsecurity=False).digest()[:8] if names else _ALL
        self._which: tuple[bytes, ...] = (b"kinds", *names) if names else (b"any",)
        self._read = 0
        self._beyond: dict[int, int] = {}
        self._confirmed = False
        self._can_confirm = False  # whether the server has the script that confirms
        self._mode = b""
        self._ever_parked = False
        self._room = 0
        self._since: tuple[float, float] | None = None  # a time here, and the board's time then
        self._listener: InboxListener | None = None
        self._one_claim = asyncio.Lock()
        self._clock = lease_clock_of(asyncio.get_running_loop())

    @staticmethod
    def new_name(suffix: bytes) -> bytes:
        """Return a name that no other inbox has."""
        return urlsafe_b64encode(os.urandom(9)) + suffix

    def listen(self, listener: InboxListener) -> abc.DisposableBase:
        """Call *listener* until the returned disposable is disposed."""
        self._listener = listener
        return self._channel.subscribe(self._received)

    @property
    def room(self) -> int | None:
        """For how many more tasks the worker is parked; None before the channel is confirmed."""
        return self._room if self._confirmed else None

    @property
    def read(self) -> int:
        """The number up to which the worker has read every delivery."""
        return self._read

    async def claim(
        self, limit: int, ids: Sequence[str] | None, park: int, read: int
    ) -> ClaimReply:
        """
        Sweep, and claim up to *limit* tasks, of *ids* if given.

        If there are fewer, wait for at most *park* more. *read* is what :attr:`read` was when
        *limit* was counted: what was handed over later counts against it, even if the worker has
        read it meanwhile.
        """
        which = self._which if ids is None else (b"only", *map(id_bytes, ids))
        async with self._one_claim:
            parks = park > 0 and self._confirmed
            if parks and not self._can_confirm:
                # If the script had to be sent twice, a handler could start, and block, in between.
                self._can_confirm = True  # until the next subscription, which may come meanwhile
                try:
                    await self._renew((), 0.0, _nothing)
                except BaseException:
                    self._can_confirm = False
                    raise
            self._ever_parked = self._ever_parked or parks
            before, sent = self._read, self._clock()
            reply, rest = await self._raw_claim(
                limit, self._args(self._mode if parks else b"n", read, park, which)
            )
            upto, room, parked, later, mode, _, now = rest
            if parks and self._confirmed:
                self._mode = mode
            self._since = sent, now / 1e6
            handed = [
                task
                for first, *delivery in later
                if first > self._read and first not in self._beyond
                for task in _tasks_of(*delivery)
            ]
            if self._read <= max(upto, before):
                self._room = room  # otherwise a delivery that was read meanwhile is newer
            if upto < before:
                # Another server, which has not seen what this one was told: numbers begin again.
                self._read, self._beyond = upto, {}
            else:
                self._advance(upto)
            return reply._replace(handed=handed, parked=parked, read=int(upto))

    async def confirm(
        self, held: Sequence[tuple[str, int]], lease: float, on_written: Callable[[], None]
    ) -> list[bool]:
        """Renew (id, token) pairs; call *on_written* as soon as the request is on its way."""
        return await self._renew(held, lease, on_written)

    async def leave(self) -> None:
        """Wait no more: what was handed over and not read goes back."""
        async with self._one_claim:
            if self._ever_parked:
                beyond = (b"%d" % number for number in self._beyond)
                await self._raw_claim(0, self._args(b"l", self._read, 0, (b"seen", *beyond)))

    def _args(self, mode: bytes, read: int, park: int, which: Sequence[bytes]) -> _Args:
        return self._name, self._class, read, park, mode, *which

    # -- messages ----------------------------------------------------------------------------

    def _received(self, message: bytes | None) -> None:
        listener = self._listener
        if listener is None:
            return
        if message is None:
            # Subscribed, perhaps again, and to another server: only now may the worker park.
            self._confirmed, self._can_confirm, self._mode = True, False, b""
            self._since = None
            listener.woken()
            return
        try:
            match message[:1]:
                case b"w":
                    self._room = 0
                    listener.woken()
                case b"t":
                    listener.due(_NUMBER.unpack_from(message, 1)[0] / 1e6)
                case b"c":
                    tokens = [int(token) for (token,) in _NUMBER.iter_unpack(message[1:])]
                    listener.cancelled(tokens)
                case b"d":
                    self._delivered(message, listener)
                case _:
                    pass  # a message that only asks whether anybody listens
        except (struct.error, ValueError) as error:
            # Any client may publish on the channel; an unreadable message must not end the stream.
            _unreadable.tell(str(error))

    def _delivered(self, message: bytes, listener: InboxListener) -> None:
        before, first, now, room, count = _DELIVERY.unpack_from(message, 1)
        number = int(first)
        if number <= self._read or number in self._beyond:
            return  # old, as a claim has returned it
        found: list[ClaimedTask] = []
        at = 1 + _DELIVERY.size
        for token in range(number, number + count):
            size, length, past = _TASK.unpack_from(message, at)
            at += _TASK.size
            task_id = message[at : at + size]
            record = message[at + size : at + size + length]
            at += size + length + past
            tries = read_tries(message[at - past : at])
            found.append(ClaimedTask(id_text(task_id), token, body_of(record), *tries))
        self._beyond[number], self._room = int(before), room
        self._advance(self._read)
        handed_at = float("-inf")
        if self._since is not None:
            here, there = self._since
            handed_at = here + now / 1e6 - there
        listener.delivered(Delivery(found, handed_at))
        if self._beyond:
            # A delivery is missing; a claim returns it.
            listener.woken()

    def _advance(self, upto: int) -> None:
        """Note that everything up to *upto* was read, and what follows on it without a gap."""
        self._read = max(self._read, upto)
        for number in sorted(self._beyond):
            if self._beyond[number] <= self._read:
                self._read = max(self._read, number)
                del self._beyond[number]


def _nothing() -> None:
    pass


def _tasks_of(
    tokens: list[bytes | int],
    ids: list[bytes],
    records: list[bytes | None],
    past: list[bytes | None],
) -> list[ClaimedTask]:
    return [
        ClaimedTask(id_text(raw), int(token), body_of(record), *read_tries(tries))
        for token, raw, record, tries in zip(tokens, ids, records, past, strict=False)
        if record is not None
    ]
