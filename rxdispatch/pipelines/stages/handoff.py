"""``BoardHandoff``: hands items to the board of the next stage."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from reactivex import Observable, abc

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.errors import (
    BoardFullError,
    CodecError,
    ConfigError,
    StoreUnavailableError,
    TaskRejectedError,
)
from rxdispatch.log import get_logger
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.stage_error import StageError, stage_error
from rxdispatch.pipelines.stages.run_stage import Lost
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.task import NO_HEADERS, Task

__all__ = ["BoardHandoff", "FindBoard", "board_of"]

log = get_logger(__name__)

COUNT: Final = 256
SPAN: Final = 0.0002
"""The most items in one write, and the seconds that the first one waits for others."""

_PATIENCE: Final = Backoff(first=0.1, maximum=2.0)

Headers = Callable[[Envelope], Mapping[str, str] | None]
FindBoard = Callable[[str], Board[Any]]
"""Returns the board of a name, as ``hub.board`` does."""


def board_of(stage: Stage, boards: FindBoard | None) -> Board[Any]:
    """
    Return the board of *stage*, which has one.

    Raises:
        ConfigError: If it is a name, and *boards* is None.
    """
    board = stage.board
    if not isinstance(board, str):
        assert board is not None
        return board
    if boards is None:
        raise ConfigError("boards must be given if the board of a stage is a name", board)
    return boards(board)


class BoardHandoff:
    """
    Submits each item as a task to the board of the next stage.

    The task has the item's id: if a reply is lost and the item is handed off again, the board
    refuses the second task.

    Args:
        stage: The next stage.
        board: Its board.
        lost: Called with each item that cannot be stored.
        headers: Returns the headers of an item's task, or None if the item is no longer wanted.
        report_duplicates: Whether an item fails if the board holds another item of the same id.
            Must be False for claimed items: a worker that died may have handed off the same item,
            perhaps with another value. That cannot happen to items that were submitted here.
    """

    def __init__(
        self,
        stage: Stage,
        board: Board[Any],
        lost: Lost,
        headers: Headers = lambda _: NO_HEADERS,
        *,
        report_duplicates: bool = False,
    ) -> None:
        self._kind = stage.name
        self._board = board
        self._lost = lost
        self._headers = headers
        self._report = report_duplicates

    def __call__(self, source: Observable[Envelope]) -> Observable[Envelope]:
        """Return a stream that emits each item of *source* once it is on the board."""
        # Items that arrive during a write wait in the buffer, so that the next one is larger.
        queue: Callable[[Observable[Envelope]], Observable[Envelope]] = buffer_bounded(COUNT)
        written = source.pipe(queue, batch(COUNT, SPAN), map_async(self._write, max_concurrent=1))

        def subscribe(
            observer: abc.ObserverBase[Envelope], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def each(envelopes: list[Envelope]) -> None:
                for envelope in envelopes:
                    observer.on_next(envelope)

            return written.subscribe(
                each, observer.on_error, observer.on_completed, scheduler=scheduler
            )

        return Observable(subscribe)

    async def add(self, envelopes: list[Envelope]) -> list[Envelope]:
        """
        Submit *envelopes* to the board, and wait while it is unavailable or full.

        Returns:
            The envelopes that the board refuses because it holds another item of the same id. An
            envelope that is on the board already is not among them.

        Raises:
            CodecError: If one of them cannot be stored; then none is.
        """
        tasks = [
            # One attempt: a stage counts its own attempts, and the board counts crashes.
            Task(e.value, id=e.id, kind=self._kind, max_attempts=1, headers=headers)
            for e in envelopes
            if (headers := self._headers(e)) is not None
        ]
        turn = 0
        ours: Counter[str] = Counter()
        sure = self._report
        while tasks:
            try:
                answer = await self._board.submit(tasks)
            except (StoreUnavailableError, BoardFullError) as error:
                log.warning("stage_waits", board=self._board.name, error=str(error))
                ours.update(error.accepted)
                # The lost reply may have been a success. Then a duplicate can be our own item.
                sure = sure and not (
                    isinstance(error, StoreUnavailableError) and error.maybe_executed
                )
                turn += 1
                await asyncio.sleep(_PATIENCE.delay(turn))
            else:
                known = Counter(answer.duplicates) - ours
                return await self._others(_last_of(envelopes, known)) if sure and known else []
        return []

    async def _others(self, envelopes: list[Envelope]) -> list[Envelope]:
        """Return the *envelopes* that differ from what the board has under their ids."""
        try:
            there = await self._board.peek([envelope.id for envelope in envelopes])
        except (StoreUnavailableError, CodecError):
            return []  # there is no way to know
        return [
            envelope
            for envelope, payload in zip(envelopes, there, strict=True)
            # The board keeps no payload of a task that is done.
            if payload is not None and not _same(envelope.value, payload)
        ]

    def refusal(self, envelope: Envelope) -> StageError:
        """Return the failure of an item whose id belongs to another item on the board."""
        cause = TaskRejectedError(f"board {self._board.name!r} has another item of the same id")
        return stage_error(cause, envelope.id, self._kind, envelope.value)

    async def _write(self, envelopes: list[Envelope]) -> list[Envelope]:
        try:
            refused = await self.add(envelopes)
        except Exception as error:
            if len(envelopes) > 1:
                # One bad item makes the board refuse all; it has stored none of them.
                return [e for each in envelopes for e in await self._write([each])]
            (only,) = envelopes
            self._lost(only, stage_error(error, only.id, self._kind, only.value))
            return []
        if not refused:
            return envelopes
        for envelope in refused:
            self._lost(envelope, self.refusal(envelope))
        return [envelope for envelope in envelopes if envelope not in refused]


def _same(value: Any, payload: Any) -> bool:
    """Whether *payload* is *value* as a board stores it."""
    try:
        return bool(value == payload) or bool(msgspec.to_builtins(value) == payload)
    except Exception:
        return False  # they cannot be compared


def _last_of(envelopes: list[Envelope], known: Counter[str]) -> list[Envelope]:
    """Return the last *known* envelopes of each id: of two in one write, the first wins."""
    found: list[Envelope] = []
    for envelope in reversed(envelopes):
        if known[envelope.id] > 0:
            known[envelope.id] -= 1
            found.append(envelope)
    return found[::-1]
