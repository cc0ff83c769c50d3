"""Workers that wait at the inboxes of a board on a server; a test drives each by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from reactivex import Subject

from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import ClaimedTask, ClaimReply, Delivery
from rxdispatch.boards.redis.engine import RedisEngine
from rxdispatch.boards.redis.inbox import RedisInbox
from rxdispatch.claim import Claim, Settlement
from tests.boards.places import Bench

__all__ = ["Waiter", "caught_up", "parked_rooms", "wait", "wait_all"]

PATIENCE: Final = 30.0
"""How many seconds to wait for an answer of the server."""


class Waiter:
    """
    A worker with an inbox and without handlers: it claims, reads and confirms when a test says so.

    Args:
        board: A handle on a board on a server.
        kinds: The kinds that it takes; None for all.
        worker: Its label.
        lease: Seconds that its claims last.

    Attributes:
        claimed: The ids that its claims have brought.
        handed: The ids that were handed to it, by messages or in the replies to claims.
        claims: The last claim of each id.
        deliveries: What its messages have brought.
        told: How often it was told to claim.
        due_in: Of which due times it was told, in seconds.
        lost: The tokens of cancelled claims.
        letters: Messages that have come, and that it has not read.
        holding: Whether messages wait in :attr:`letters` until :meth:`read`.
    """

    def __init__(
        self, board: Board[Any], kinds: Sequence[str] | None, worker: str, lease: float
    ) -> None:
        engine = board._engine
        assert isinstance(engine, RedisEngine)
        self.board = board
        self.engine = engine
        self.worker = worker
        self.kinds = kinds
        self.inbox: RedisInbox = engine.inbox(kinds, worker, lease)
        self.name: bytes = self.inbox._name
        self.claimed: list[str] = []
        self.handed: list[str] = []
        self.claims: dict[str, Claim[Any]] = {}
        self.deliveries: list[list[str]] = []
        self.told = 0
        self.due_in: list[float] = []
        self.lost: list[int] = []
        self.letters: list[bytes] = []
        self.holding = False
        self.channel = engine._keys.inbox(self.name)
        self._lease = lease
        self._messages: Subject[bytes | None] = Subject()
        self._from_server = self.inbox._channel
        self.inbox._channel = self._messages
        self._listening = self.inbox.listen(self)
        self._subscription = self._from_server.subscribe(self._came)

    def __repr__(self) -> str:
        return f"Waiter({self.worker})"

    def _came(self, message: bytes | None) -> None:
        if self.holding and message not in {None, b"p"}:
            self.letters.append(message or b"")
        else:
            self.read(message)

    def read(self, message: bytes | None) -> None:
        """Read a message, of :attr:`letters` or an invented one."""
        self._messages.on_next(message)

    def read_all(self) -> None:
        """Read all letters, and hold no more."""
        self.holding = False
        letters, self.letters = self.letters, []
        for letter in letters:
            self.read(letter)

    def deaf(self) -> None:
        """Stop listening to the channel, as a worker that has died."""
        self._subscription.dispose()

    # -- what the inbox calls ----------------------------------------------------------------

    def woken(self) -> None:
        """Count it."""
        self.told += 1

    def due(self, seconds: float) -> None:
        """Note when a task is due."""
        self.due_in.append(seconds)

    def delivered(self, delivery: Delivery) -> None:
        """Hold what was handed over."""
        self.deliveries.append([task.id for task in delivery.found])
        self._take(delivery.found, self.handed)

    def cancelled(self, tokens: Sequence[int]) -> None:
        """Note which claims were cancelled."""
        self.lost += tokens

    @property
    def room(self) -> int | None:
        """For how many more tasks it is parked."""
        return self.inbox.room

    # -- what a worker does ------------------------------------------------------------------

    async def claim(self, limit: int, *, park: bool = True) -> ClaimReply:
        """Claim, and by default wait for more; hold what comes."""
        room = max(limit, 1) if park else 0
        reply = await self.inbox.claim(limit, None, room, self.inbox.read)
        self._take(reply.found, self.claimed)
        self._take(reply.handed, self.handed)
        return reply

    async def confirm(self, ids: Iterable[str] | None = None) -> list[bool]:
        """Confirm tasks, all by default."""
        held = [(i, self.claims[i].token) for i in (self.claims if ids is None else ids)]
        return await self.inbox.confirm(held, self._lease, lambda: None)

    async def done(self, ids: Iterable[str] | None = None) -> list[bool]:
        """Settle tasks as done, all by default."""
        some = list(self.claims if ids is None else ids)
        return await self.settle(self.claims[i].done() for i in some)

    async def settle(self, settlements: Iterable[Settlement]) -> list[bool]:
        """Settle some of its claims."""
        wanted = list(settlements)
        answers = await self.board.settle(wanted)
        for settlement in wanted:
            self.claims.pop(settlement.claim.task.id, None)
        return answers

    async def leave(self) -> None:
        """Stop reading, and leave."""
        self._listening.dispose()
        self._subscription.dispose()
        await self.inbox.leave()

    def _take(self, found: Sequence[ClaimedTask], ids: list[str]) -> None:
        ids += (task.id for task in found)
        for claim in self.board._reader.read(list(found), self.worker, float("inf")):
            self.claims[claim.task.id] = claim


async def wait(
    board: Board[Any],
    limit: int,
    kinds: Sequence[str] | None = None,
    *,
    worker: str = "w",
    lease: float = 30.0,
) -> Waiter:
    """Return a worker that listens to its inbox and has claimed up to *limit* tasks."""
    waiter = Waiter(board, kinds, worker, lease)
    await waiter.engine._channels.confirmed(waiter.channel)
    await waiter.claim(limit)
    waiter.told = 0
    return waiter


async def wait_all(board: Board[Any], limits: Iterable[int], **options: Any) -> list[Waiter]:
    """Return a worker for each of *limits*, which have claimed in this order."""
    return [await wait(board, limit, worker=f"w{n}", **options) for n, limit in enumerate(limits)]


async def caught_up(bench: Bench) -> None:
    """Wait until all inboxes of the bench have got what was published so far."""
    for hub in {bench.hub, bench.other_hub}:
        if hub._channels._wanted:
            await hub._channels.barrier(PATIENCE)


async def parked_rooms(bench: Bench) -> dict[bytes, int]:
    """Return the room of each parked inbox, in the order in which a board takes them."""
    members = await bench.hub.client.call("look", "ZRANGE", bench.key("parked"), 0, -1)
    return {m[18:]: 65535 - int.from_bytes(m[8:10], "big") for m in members}
