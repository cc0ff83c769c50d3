"""``Board``: the methods that all boards share; an engine does the atomic steps."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from reactivex import Observable

from rxdispatch.boards.checks import check_claim, id_list, task_iterable, worker_label
from rxdispatch.boards.claiming.board_inbox import BoardInbox
from rxdispatch.boards.claiming.claim_reader import ClaimReader
from rxdispatch.boards.claiming.claim_writer import ClaimWriter
from rxdispatch.boards.engine import CHUNK, ClaimReply, Engine
from rxdispatch.boards.group_commit import GroupCommit
from rxdispatch.boards.joining import hints_until, wait_until_joined
from rxdispatch.boards.portions import (
    BYTES,
    chunks,
    dead_rows,
    portions_of_entries,
    records_of,
    redrive_all,
)
from rxdispatch.boards.task_codec import TaskCodec, check_id
from rxdispatch.boards.watched_hints import WatchedHints
from rxdispatch.checks import check_kind, integer, kind_tuple
from rxdispatch.claim import Claim, Settlement
from rxdispatch.errors import BoardFullError, ConfigError, RxDispatchError, StoreUnavailableError
from rxdispatch.every import every
from rxdispatch.home import Home
from rxdispatch.intakes import Intakes
from rxdispatch.log import get_logger
from rxdispatch.operators.tasks._claim import claim as claim_operator
from rxdispatch.results import (
    BoardStats,
    Counts,
    DeadLetter,
    KindState,
    SubmitResult,
    TaskEvent,
    TaskState,
)
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

__all__ = ["Board"]

P = TypeVar("P")

log = get_logger(__name__)


class Board(Generic[P]):
    """
    A shared list of tasks, claimed by status mark instead of by lock.

    The subclasses differ only in the engine that keeps the tasks. The architecture page of the
    documentation has the rules that they share. Get a board from ``hub.board(name)``, or make a
    ``MemoryBoard``.
    """

    def __init__(self, name: str, engine: Engine, payload: type[P] | None) -> None:
        self._name = name
        self._engine = engine
        self._codec: TaskCodec[P] = TaskCodec(payload)
        self._intakes = Intakes(name, self.settle, self._inbox)
        self._reader = ClaimReader(self, engine, self._codec, self._intakes)
        self._group = GroupCommit(engine.submit, self._intakes.spawn, most=CHUNK, most_bytes=BYTES)
        self._writer = ClaimWriter(self, engine)
        self._home = Home(f"board {name!r}", moves=True)
        self._events = self._home.guard(engine.events)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @property
    def name(self) -> str:
        """The board's name."""
        return self._name

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot; what happens to tasks in all processes, at most once, only while subscribed."""
        return self._events

    @property
    def stats(self) -> BoardStats:
        """What this handle has counted since it was made."""
        return self._writer.stats

    def stats_every(self, period: float | timedelta) -> Observable[BoardStats]:
        """
        Emit :attr:`stats` at once and every *period* seconds; costs nothing without a subscriber.

        Raises:
            ConfigError: If *period* is not a number of seconds above 0.
        """
        return every(period, lambda: self.stats)

    # -- adding ------------------------------------------------------------------------------

    async def submit(self, tasks: Task[P] | Iterable[Task[P]]) -> SubmitResult:
        """
        Add one task or many.

        All tasks are checked first, then written in atomic chunks of at most 1,000. Calls that
        come during a write share the next chunk.

        Returns:
            The ids that were added, and the ids that were known (unfinished or dead).

        Raises:
            ConfigError: If an item is not a Task, or an id cannot be stored.
            CodecError: If a payload cannot be stored.
            BoardFullError: If the board has no room; ``accepted`` has the ids that were written.
            StoreUnavailableError: If the server does not answer; ``accepted`` has the ids that
                are known to be written.
        """
        self._home.check()
        entries = self._codec.encode_all(task_iterable(tasks))
        accepted: list[str] = []
        duplicates: list[str] = []
        for chunk in portions_of_entries(entries, self._group.most_bytes):
            try:
                added = await self._group.add(chunk)
            except RxDispatchError as error:
                # The tasks of earlier chunks stay on the board, so the caller must learn their ids.
                if isinstance(error, (BoardFullError, StoreUnavailableError)):
                    error.accepted = tuple(accepted)
                raise
            for entry, new in zip(chunk, added, strict=True):
                (accepted if new else duplicates).append(entry.id)
        return SubmitResult(tuple(accepted), tuple(duplicates))

    # -- claiming ----------------------------------------------------------------------------

    def claims(
        self,
        *,
        prefetch: int = 1024,
        lease: float | timedelta = 30.0,
        worker: str | None = None,
        until: Literal["never", "idle", "joined"] = "never",
        kinds: Iterable[str] | None = None,
    ) -> Observable[Claim[P]]:
        """
        The tasks of this board as a cold observable of claims.

        Nothing is claimed before you subscribe, or ``rxd.run()`` does. If a stream of claims is
        never subscribed to, the board logs ``claims_never_subscribed``.

        Args:
            prefetch: The most claims that may be unsettled at a time.
            lease: Seconds that a claim lasts; it is renewed until it is settled.
            worker: A label for this worker; host and process id by default.
            until: When to complete: ``never``, ``idle`` (nothing is ready) or ``joined``
                (nothing is scheduled or ready, and no worker holds a claim); with *kinds*, of
                these kinds.
            kinds: Claim only tasks of these kinds; None for all. Tasks of other kinds wait for
                other workers.

        Raises:
            ConfigError: If an argument breaks its rule.
        """
        only = kind_tuple(kinds)
        worker_label(worker)
        source = hints_until(until, partial(self.join, kinds=only))
        claiming = claim_operator(self, prefetch=prefetch, lease=lease, worker=worker, kinds=only)
        caller = sys._getframe(1)
        made_at = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        return WatchedHints(source, self._name, made_at).pipe(claiming)

    async def claim(
        self,
        limit: int,
        *,
        ids: Sequence[str] | None = None,
        kinds: Iterable[str] | None = None,
        worker: str | None = None,
        lease: float | timedelta = 30.0,
    ) -> list[Claim[P]]:
        """
        Sweep lapsed leases, then claim up to *limit* ready tasks, best first.

        Args:
            limit: How many tasks at most; 0 only sweeps.
            ids: Claim only tasks with these ids.
            kinds: Claim only tasks of these kinds; None for all. Not together with *ids*.
            worker: A label for this worker; host and process id by default.
            lease: Seconds until other workers may claim the tasks; extend it with :meth:`renew`.

        Raises:
            ConfigError: If an argument breaks its rule.
            StoreUnavailableError: If the server does not answer.
        """
        only = kind_tuple(kinds)
        if ids is not None and only is not None:
            raise ConfigError("kinds must be None when ids are given", kinds)
        integer("limit", limit, 0)
        self._home.check()
        span = seconds("lease", lease, zero=False)
        wanted = None if ids is None else id_list(ids)
        label = worker_label(worker)

        async def step(most: int, some: Sequence[str] | None) -> ClaimReply:
            return await self._engine.claim(most, some, only, label, span)

        return (await self._reader.claim(limit, wanted, step, label, span)).claims

    def _inbox(
        self, kinds: Sequence[str] | None, worker: str | None, lease: float
    ) -> BoardInbox[P]:
        """Return a new inbox of *worker*, which takes tasks of *kinds*, or of all."""
        self._home.check()
        label = worker_label(worker)
        inbox = self._engine.inbox(kinds, label, lease)
        return BoardInbox(inbox, self._reader, self._writer, self._intakes, label, lease)

    # -- holding and ending ------------------------------------------------------------------

    async def renew(
        self, claims: Sequence[Claim[Any]], lease: float | timedelta
    ) -> list[Claim[Any]]:
        """
        Extend the leases of *claims* to *lease* seconds from now.

        Returns:
            The claims whose token no longer holds; they are ``lost`` from now on.

        Raises:
            ConfigError: If *lease* is not a positive number of seconds, or an item is not a claim
                of this board.
            StoreUnavailableError: If the server does not answer.
        """
        self._home.check()
        lease = seconds("lease", lease, zero=False)
        if not isinstance(claims, Sequence):
            raise ConfigError("claims must be a list of claims", claims)
        for claim in claims:
            check_claim(claim, self._name)
        return await self._writer.renew(claims, lease)

    async def settle(self, settlements: Settlement | Iterable[Settlement]) -> list[bool]:
        """
        End claims.

        Args:
            settlements: The results of ``claim.done()``, ``retry()``, ``dead()`` or ``release()``.

        Returns:
            For each, whether its token still held; a repeated call gets the same answer.

        Raises:
            ConfigError: If an item is not a Settlement of a claim of this board.
            StoreUnavailableError: If the server does not answer; repeat the call later.
        """
        self._home.check()
        if isinstance(settlements, Settlement):
            settlements = (settlements,)
        elif not isinstance(settlements, Iterable):
            raise ConfigError("settlements must be an iterable of Settlement objects", settlements)
        return await self._writer.settle(settlements)

    # -- looking and steering ----------------------------------------------------------------

    async def counts(self) -> Counts:
        """How many tasks have each mark, all at one moment; ``done`` is a running total."""
        self._home.check()
        return await self._engine.counts()

    async def kinds(self) -> dict[str, KindState]:
        """
        The kinds that have unfinished tasks, those with the most tasks first.

        A server reads all of them in one step, in about half a millisecond for each thousand. In
        shared memory, the call looks at each task; tasks whose kind is unreadable count as
        ``default``.
        """
        self._home.check()
        found = await self._engine.kinds()
        return dict(sorted(found.items(), key=lambda item: (-item[1].unfinished, item[0])))

    async def lag(self) -> float:
        """
        How many seconds ago the oldest READY task took its place; 0 when nothing is ready.

        The time counts from when the task was submitted, its delay was over, its retry was ready,
        or it was redriven. It goes on if a worker gives the task back or dies. On a server and in
        a ``MemoryBoard`` the answer is exact to a second, or to about a tenth of itself.
        """
        self._home.check()
        return await self._engine.lag()

    async def get(self, task_id: str) -> TaskState | None:
        """
        Return the state of one task; None if it was never submitted, or is done and forgotten.

        The payload is not read, so it need not fit the type of this handle.

        Raises:
            ConfigError: If *task_id* is not an id.
            StoreUnavailableError: If the server does not answer.
        """
        self._home.check()
        check_id(task_id)
        known = await self._engine.get(task_id)
        return None if known is None else known.task_state(task_id)

    async def peek(self, ids: str | Iterable[str]) -> list[P | None]:
        """
        Return the payloads of tasks without claiming them; None for a task that is not kept.

        Raises:
            ConfigError: If an item is not an id.
            CodecError: If a payload does not fit the type of this handle.
            StoreUnavailableError: If the server does not answer.
        """
        self._home.check()
        ids = id_list(ids)
        found: list[P | None] = []
        async for task_id, record in records_of(self._engine, ids):
            task = None if record is None else self._codec.decode(task_id, record)
            found.append(None if task is None else task.payload)
        return found

    async def cancel(self, ids: str | Iterable[str]) -> list[bool]:
        """
        Make tasks dead with the reason ``cancelled``; claims on them are lost.

        A worker that claims with :meth:`claims` is told, and cancels the running handler at once.
        Other workers notice at the next renewal. The board refuses a settlement of that claim.

        Returns:
            For each id, whether there was something to cancel.
        """
        self._home.check()
        answers: list[bool] = []
        for chunk in chunks(id_list(ids)):
            answers.extend(await self._engine.cancel(chunk))
        return answers

    async def pause(self, *, kind: str | None = None) -> None:
        """
        Stop all workers, in every process, from claiming until :meth:`resume`.

        Args:
            kind: Stop claims of tasks of this kind only. The board and each of its kinds are
                paused and resumed apart.

        Raises:
            ConfigError: If *kind* is no kind.
            StoreUnavailableError: If the server does not answer.
        """
        await self._pause(True, kind)

    async def resume(self, *, kind: str | None = None) -> None:
        """Let workers claim again: lifts the pause of all, or of *kind*, not the other ones."""
        await self._pause(False, kind)

    async def _pause(self, paused: bool, kind: str | None) -> None:
        self._home.check()
        if kind is not None:
            check_kind(kind)
        await self._engine.pause(paused, kind)

    async def join(self, *, kinds: Iterable[str] | None = None) -> None:
        """
        Wait until nothing is scheduled, ready or claimed; an outage only delays the end.

        Args:
            kinds: Wait for tasks of these kinds only; None for all.

        Raises:
            ConfigError: If *kinds* are no kinds.
        """
        self._home.check()
        await wait_until_joined(self._engine, self._name, kind_tuple(kinds))

    async def dead_letters(self) -> AsyncIterator[DeadLetter[Any]]:
        """Iterate over the dead tasks, oldest first, a page at a time."""
        self._home.check()
        async for row in dead_rows(self._engine):
            yield row.letter(self._codec)

    async def redrive(self, ids: str | Iterable[str] | None = None) -> int:
        """
        Make dead tasks ready again, with attempts and crashes at 0 and without a ttl.

        Args:
            ids: The tasks to redrive; None for all that are dead now.

        Returns:
            How many are ready again.
        """
        self._home.check()
        return await redrive_all(self._engine, None if ids is None else id_list(ids))
