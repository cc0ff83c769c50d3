"""``KindCounts``: what a process counts of a board for each kind of task, for a few kinds only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, get_args

import attrs

from rxdispatch.log import get_logger
from rxdispatch.results import EventKind, KindState, TaskEvent

__all__ = ["OTHER", "KindCount", "KindCounts"]

log = get_logger(__name__)

OTHER: Final = "other"
"""The label of the kinds that have none of their own."""

_EVENTS: Final[tuple[EventKind, ...]] = get_args(EventKind)


@attrs.define
class KindCount:
    """
    The counts of one label.

    Attributes:
        settled: Claims that this process has settled.
        unfinished: Tasks that were unfinished at the last reading.
        events: Events by kind of event; empty if they are not counted.
    """

    settled: int = 0
    unfinished: int = 0
    events: dict[EventKind, int] = attrs.field(factory=dict[EventKind, int])


class KindCounts:
    """
    The counts of a board by kind of task.

    Prometheus keeps each value of a label as a series of its own, so the number of labels is
    limited: ``default`` and the first *limit* other kinds have labels of their own and keep them,
    and all further kinds share the label ``other``.

    INVARIANT. A scrape reads in another thread, so ``rows`` and the events of a row never grow once
    they are visible: a row is added by replacing the dict.

    Args:
        board: The name of the board, for the log.
        limit: How many kinds besides ``default`` have labels of their own.

    Attributes:
        rows: The counts by label.
    """

    def __init__(self, board: str, limit: int) -> None:
        self._board = board
        self._limit = limit
        self._counts_events = False
        self._full = False
        self.rows: Mapping[str, KindCount] = {}
        self._add("default")

    def expect_events(self) -> None:
        """Count events from now on, beginning with 0 of each kind."""
        self._counts_events = True
        for row in self.rows.values():
            row.events = dict.fromkeys(_EVENTS, 0)

    def add_event(self, event: TaskEvent) -> None:
        """Count an event."""
        self._row(event.task_kind).events[event.kind] += 1

    def add_settled(self, kinds: Iterable[str]) -> None:
        """Count settled claims, given the kinds of their tasks."""
        for kind, settled in Counter(kinds).items():
            self._row(kind).settled += settled

    def read(self, found: Mapping[str, KindState]) -> None:
        """Keep how many tasks are unfinished; a kind that is not in *found* has none."""
        amounts = Counter[str]()
        for kind, state in found.items():
            amounts[self._label(kind)] += state.unfinished
        for label, row in self.rows.items():
            row.unfinished = amounts[label]

    def _row(self, kind: str) -> KindCount:
        # The label first: it may replace the dict.
        label = self._label(kind)
        return self.rows[label]

    def _label(self, kind: str) -> str:
        """Return the label of a kind, which gets one of its own if there is room."""
        if kind in self.rows:
            return kind
        if kind != OTHER and len(self.rows.keys() - {OTHER}) <= self._limit:
            self._add(kind)
            return kind
        if not self._full and kind != OTHER:
            self._full = True
            log.warning("metrics_kinds_limited", board=self._board, limit=self._limit)
        if OTHER not in self.rows:
            self._add(OTHER)
        return OTHER

    def _add(self, label: str) -> None:
        events = dict.fromkeys(_EVENTS, 0) if self._counts_events else dict[EventKind, int]()
        self.rows = {**self.rows, label: KindCount(events=events)}
