"""``WatchedBoard``: a board with its recent readings, from which ``top`` computes rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import attrs

from rxdispatch.boards.base import Board
from rxdispatch.cli.top.view import BoardRow, KindRow
from rxdispatch.results import KindState

__all__ = ["WatchedBoard"]

_WINDOW: Final = 5.0
"""Seconds over which a rate is computed."""


@attrs.frozen
class _Reading:
    """What a rate is computed from: the time, running totals, and the kinds."""

    at: float
    added: int
    done: int
    kinds: Mapping[str, KindState]


class WatchedBoard:
    """
    A board with its recent readings.

    Args:
        board: The board.
        kinds: How many kinds a row has; with 0, they are not read.
    """

    def __init__(self, board: Board[Any], kinds: int) -> None:
        self._board = board
        self._kinds = kinds
        self._past: deque[_Reading] = deque()

    async def read(self, now: float) -> BoardRow:
        """
        Read the board.

        Args:
            now: Seconds on a monotonic clock.

        Raises:
            StoreUnavailableError: If the server does not answer.
        """
        counts = await self._board.counts()
        lag = await self._board.lag()
        kinds = await self._board.kinds() if self._kinds else dict[str, KindState]()
        # The counts contain every task ever added, except discarded dead letters.
        added = counts.scheduled + counts.ready + counts.claimed + counts.done + counts.dead
        past = self._past
        past.append(_Reading(now, added, counts.done, kinds))
        while len(past) > 2 and past[1].at <= now - _WINDOW:
            past.popleft()
        then = past[0]
        passed = now - then.at
        rate_in = rate_out = None
        if passed > 0:
            rate_in = round(max(0, added - then.added) / passed, 1)
            rate_out = round(max(0, counts.done - then.done) / passed, 1)
        rows = [_kind_row(kind, state, then, passed) for kind, state in kinds.items()]
        others = rows[self._kinds :]
        return BoardRow(
            self._board.name,
            counts,
            rate_in,
            rate_out,
            round(lag, 3),
            tuple(rows[: self._kinds]),
            len(others),
            sum(row.unfinished for row in others),
        )


def _kind_row(kind: str, state: KindState, then: _Reading, passed: float) -> KindRow:
    before = then.kinds.get(kind)
    change = state.unfinished - (0 if before is None else before.unfinished)
    # Adding 0 makes -0.0 positive.
    rate = round(change / passed, 1) + 0.0 if passed > 0 else None
    return KindRow(kind, state.unfinished, rate, state.paused)
