"""``RedisEngine``: the atomic steps of a board as scripts on a Redis or Valkey server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.boards.engine import (
    ClaimedTask,
    ClaimReply,
    DeadRow,
    Options,
    Signal,
    StoredState,
    Unfinished,
)
from rxdispatch.boards.event_format import read_events
from rxdispatch.boards.redis.confirmations import Confirmations
from rxdispatch.boards.redis.inbox import RedisInbox
from rxdispatch.boards.redis.keys import BoardKeys
from rxdispatch.boards.redis.layout import (
    LENGTHS,
    TRIES,
    body_of,
    kind_bytes,
    kind_text,
    read_grave,
    read_kinds,
    read_tries,
    record_of,
    runs_of_kinds,
)
from rxdispatch.boards.redis.script_calls import ScriptCalls
from rxdispatch.boards.redis.session import Request
from rxdispatch.boards.task_codec import NewTask, id_bytes, id_text, pack_cause, unpack_cause
from rxdispatch.claim import Settlement
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.results import Counts, KindState, TaskEvent
from rxdispatch.store.client import Client
from rxdispatch.store.fence import Fence
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.store.scripts import load_script
from rxdispatch.task import Status

__all__ = ["RedisEngine"]

log = get_logger(__name__)

_KINDS: Final = {"retry": b"r", "dead": b"x", "released": b"l"}
_PAGE: Final = 256
_UNSURE: Final = 64
READ_BYTES: Final = 1024 * 1024
"""After this many bytes, a reply to ``read`` ends."""

(
    _READ,
    _SUBMIT,
    _CLAIM,
    _RENEW,
    _SETTLE,
    _CANCEL,
    _REDRIVE,
    _TICK,
    _PAUSE,
    _COUNTS,
    _BY_KIND,
    _LAG,
    _GET,
    _DEAD,
) = (
    load_script("rxdispatch.boards.redis", name)
    for name in (
        "read",
        "submit",
        "claim",
        "renew",
        "settle",
        "cancel",
        "redrive",
        "tick",
        "pause",
        "counts",
        "kinds",
        "lag",
        "get",
        "dead",
    )
)

_Value = bytes | str | int


class RedisEngine:
    """
    The engine of one handle on a board on a server. It has a session, and numbers its requests.

    If the reply to a request is lost, the client sends the same request again. The server keeps the
    reply to each request that must not be executed twice, until a later request uses its slot of
    the session, and returns the kept reply. If the client gives up on a claim, the next claim gives
    back what the lost one claimed. If it gives up on a settlement, a repeated settlement gets the
    answer of the lost one.

    Args:
        client: The client of the server.
        channels: The Pub/Sub channels of the server.
        namespace: The namespace, with which all names of keys begin.
        board: The board's name.
        options: The options that this handle gives.
    """

    def __init__(
        self, client: Client, channels: Channels, namespace: str, board: str, options: Options
    ) -> None:
        self._board = board
        self._keys = BoardKeys.of(namespace, board, client.target.db)
        self._calls = ScriptCalls(client, self._keys, board, options)
        self._session = self._calls.session
        self._abandoned: list[Request] = []
        self._channels = channels
        self._undelivered = 0
        self._confirmations = Confirmations(self._renew)
        self._signals: Observable[Signal] = channels.channel(self._keys.joined).pipe(
            rx.map(_signal)
        )
        self._events: Observable[TaskEvent] = channels.channel(self._keys.events).pipe(
            rx.filter(lambda message: message is not None), rx.flat_map(read_events)
        )

    @property
    def fence(self) -> Fence:
        """What this handle knows about the server that answers it."""
        return self._calls.fence

    @property
    def instant(self) -> bool:
        """False: a claim waits for the server."""
        return False

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: none may be unfinished, or messages may have been missed."""
        return self._signals

    @property
    def undelivered(self) -> int:
        """How many tasks this handle has seen to lapse before their workers confirmed them."""
        return self._undelivered

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks, in all processes."""
        return self._events

    # -- the steps ---------------------------------------------------------------------------

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        """Add tasks; returns False where the id is known."""
        args: list[_Value] = [len(entries)]
        for entry in entries:
            options: bytes | str = b""
            if entry.priority or entry.delay or entry.ttl:
                ttl = max(1, _micro(entry.ttl)) if entry.ttl else 0
                options = f"{entry.priority} {_micro(entry.delay)} {ttl}"
            args += (id_bytes(entry.id), record_of(entry), options)
        return _bits(await self._calls.run_once("submit", _SUBMIT, args))

    async def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimReply:
        """Sweep, then claim up to *limit* tasks of *ids*, or of *kinds*, or of all."""
        which: tuple[bytes, ...] = (b"any",)
        if ids is not None:
            which = (b"only", *map(id_bytes, ids))
        elif kinds is not None:
            which = (b"kinds", *map(kind_bytes, kinds))
        return (await self._claim(limit, worker, lease, (b"", b"", 0, 0, b"n", *which)))[0]

    def inbox(self, kinds: Sequence[str] | None, worker: str, lease: float) -> RedisInbox:
        """Return a new inbox of *worker*, which claims tasks of *kinds*, or of all."""
        name = RedisInbox.new_name(self._keys.suffix)

        async def claim(limit: int, args: Sequence[_Value]) -> tuple[ClaimReply, list[Any]]:
            return await self._claim(limit, worker, lease, args)

        channel = self._channels.channel(self._keys.inbox(name))
        return RedisInbox(channel, name, claim, self._confirmations.add, kinds)

    async def _claim(
        self, limit: int, worker: str, lease: float, waiting: Sequence[_Value]
    ) -> tuple[ClaimReply, list[Any]]:
        given_up, self._abandoned = self._abandoned, []
        args: list[_Value] = [limit, _micro(lease), worker.encode("utf-8", "replace")]
        args.append(len(given_up))
        for lost in given_up:
            args += (lost.slot, lost.number)
        args += waiting
        request = self._session.begin()
        try:
            base, due, found, records, history, vanished, *rest = await self._calls.once(
                "claim", _CLAIM, args, request
            )
        except BaseException as error:
            # The reply is lost, so the next claim gives back what this one may have claimed.
            if _maybe_executed(error):
                given_up.append(request)
            else:
                self._session.end(request)
            self._abandoned = given_up + self._abandoned
            while len(self._abandoned) > _UNSURE:
                self._session.end(self._abandoned.pop(0))
            raise
        for done in (request, *given_up):
            self._session.end(done)
        claimed: list[ClaimedTask] = []
        for token, raw, record in zip(itertools.count(base), found, records, strict=False):
            # In the reply to a repeated claim, tasks that were taken away meanwhile are missing.
            if raw is None or record is None:
                continue
            body = body_of(record) if not record or record[0] <= LENGTHS else record
            if history:
                past = read_tries(history[token - base])
                claimed.append(ClaimedTask(id_text(raw), token, body, *past))
            else:
                claimed.append(ClaimedTask(id_text(raw), token, body))
        if vanished:
            # The server has evicted their records, or another client has deleted them.
            first = id_text(vanished[0])
            log.error("tasks_vanished", board=self._board, count=len(vanished), first=first)
        self._undelivered += rest[5]
        return ClaimReply(claimed, None if due < 0 else due / 1e6), rest

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend leases; returns False where the token no longer holds."""
        return await self._renew(held, lease, None)

    async def _renew(
        self,
        held: Sequence[tuple[str, int]],
        lease: float,
        on_written: Callable[[], None] | None,
    ) -> list[bool]:
        args: list[_Value] = [_micro(lease), len(held)]
        args += [id_bytes(task_id) for task_id, _ in held]
        args += [token for _, token in held]
        return _bits(await self._calls.run("renew", _RENEW, args, on_written))

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; returns False where the token no longer holds."""
        known = await self._session.recall(settlements)
        fresh = [s for s in settlements if s.claim.token not in known] if known else settlements
        done = [s.claim for s in fresh if s.verdict == "done"]
        runs = runs_of_kinds(done)
        order = done
        args: list[_Value] = [len(done), len(runs) // 2, *runs]
        args += [id_bytes(claim.task.id) for claim in done]
        args += [claim.token for claim in done]
        if len(done) < len(fresh):
            rest = [s for s in fresh if s.verdict != "done"]
            order = [*done, *(s.claim for s in rest)]
            for s in rest:
                args += (
                    _KINDS[s.verdict],
                    id_bytes(s.claim.task.id),
                    s.claim.token,
                    _micro(s.delay),
                    s.reason.encode("utf-8", "replace"),
                    pack_cause(s.error, s.traceback),
                )
        if order:
            request = self._session.begin()
            doubtful = False
            try:
                bits = _bits(await self._calls.once("settle", _SETTLE, args, request))
            except BaseException as error:
                doubtful = _maybe_executed(error)
                if doubtful:
                    self._session.doubt(request, order, fresh)
                raise
            finally:
                if not doubtful:
                    self._session.end(request)
            if len(done) == len(settlements) and not runs:
                return bits
            known.update(zip((claim.token for claim in order), bits, strict=True))
        return [known[s.claim.token] for s in settlements]

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Make tasks dead as cancelled; returns False where there is nothing to cancel."""
        return _bits(await self._calls.run_once("cancel", _CANCEL, list(map(id_bytes, ids))))

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready; returns how many, and *until* for the next call."""
        args: list[_Value] = ["all", until]
        if ids is not None:
            args = ["some", *map(id_bytes, ids)]
        count, until_bytes = await self._calls.run_once("redrive", _REDRIVE, args)
        return count, until_bytes.decode()

    async def pause(self, paused: bool, kind: str | None) -> None:
        """Pause or resume all claims, or those of *kind*."""
        which = [] if kind is None else [kind_bytes(kind)]
        await self._calls.run("pause" if paused else "resume", _PAUSE, [int(paused), *which])

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        return Counts(*await self._calls.run("counts", _COUNTS, []))

    async def kinds(self) -> dict[str, KindState]:
        """The kinds that have unfinished tasks."""
        default, paused_kinds, counted = await self._calls.run("kinds", _BY_KIND, [])
        amounts = dict(zip(counted[::2], map(int, counted[1::2]), strict=True))
        amounts[b"default"] = default
        paused = read_kinds(paused_kinds)
        return {
            kind.decode("utf-8", "replace"): KindState(amount, kind in paused)
            for kind, amount in amounts.items()
            if amount > 0
        }

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 if there is none."""
        return max(0, int(await self._calls.run("lag", _LAG, []))) / 1e6

    async def get(self, task_id: str) -> StoredState | None:
        """The stored state of one task; None if its id is not known."""
        reply = await self._calls.run("get", _GET, [id_bytes(task_id)])
        if reply is None:
            return None
        mark, record, past, worker, grave = reply
        status = Status(mark.decode())
        if grave:
            _, cause, attempts, crashes = read_grave(grave)
        else:
            attempts, crashes = read_tries(past)
            cause = past[TRIES.size :]
        label = worker.decode("utf-8", "replace") if status is Status.CLAIMED else None
        return StoredState(
            status, body_of(record), attempts, crashes, label, unpack_cause(cause)[0]
        )

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks; the reply ends after about 1 MiB."""
        args: list[_Value] = [READ_BYTES, *map(id_bytes, ids)]
        return [body_of(record) or None for record in await self._calls.run("read", _READ, args)]

    async def dead(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, oldest first, and *after* for the next page."""
        args: list[_Value] = [after or "-inf", _PAGE]
        ids, records, graves, times = await self._calls.run("dead letters", _DEAD, args)
        page: list[DeadRow] = []
        for raw, record, grave, at in zip(ids, records, graves, times, strict=True):
            if record is not None and grave is not None:
                reason, cause, attempts, crashes = read_grave(grave)
                error, traceback = unpack_cause(cause)
                when, kind = int(at) / 1e6, kind_text(record)
                facts = reason, error, attempts, crashes, when, traceback, kind
                page.append(DeadRow(id_text(raw), body_of(record), *facts))
        return page, times[-1].decode() if times else after

    async def tick(self, kinds: Sequence[str] | None) -> Unfinished:
        """Sweep, and count what is unfinished, of *kinds* or of all."""
        which = list(map(kind_bytes, kinds or ()))
        scheduled, ready, claimed, due, undelivered = await self._calls.run("join", _TICK, which)
        self._undelivered += undelivered
        return Unfinished(scheduled, ready, claimed, None if due < 0 else due / 1e6)


def _maybe_executed(error: BaseException) -> bool:
    """Whether a call that failed with *error* may have been executed."""
    if isinstance(error, StoreUnavailableError):
        return error.maybe_executed
    return isinstance(error, asyncio.CancelledError)


def _signal(message: bytes | None) -> Signal:
    return "reconnected" if message is None else "joined"


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)


def _bits(reply: bytes) -> list[bool]:
    return [bit == 49 for bit in reply]  # "1"
