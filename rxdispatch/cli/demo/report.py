"""``Report``: the result of a run of the demo."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, Literal

import attrs

from rxdispatch.cli.demo.ledger import FileCounts
from rxdispatch.cli.demo.tally import Tally
from rxdispatch.cli.demo.tree import Tree
from rxdispatch.cli.text import visible
from rxdispatch.results import DeadLetter

__all__ = ["Report", "State"]

State = Literal["complete", "interrupted", "incomplete"]

_LARGEST: Final = 5


@attrs.frozen
class Report:
    """
    Totals of a tree, over this run and earlier runs in the same data directory.

    Args:
        tree: The files.
        counts: The counts of each file by task id.
        dead: The dead letters of the tree.
        before: How many files were done or dead when this run began.
        tally: The outcomes of this run.
        workers: How many worker processes this run had.
        interrupted: Whether a signal stopped this run before its end.
    """

    tree: Tree
    counts: dict[str, FileCounts]
    dead: tuple[DeadLetter[Any], ...]
    before: int
    tally: Tally
    workers: int
    interrupted: bool

    @classmethod
    def of(
        cls,
        tree: Tree,
        counts: dict[str, FileCounts],
        dead: Iterable[DeadLetter[Any]],
        **rest: Any,
    ) -> Report:
        """Return the report on *tree*; a file with a dead letter is not counted."""
        letters = {letter.task.id: letter for letter in dead if letter.task.id in tree.files}
        alive = {i: c for i, c in counts.items() if i in tree.files and i not in letters}
        return cls(tree, alive, tuple(letters[i] for i in sorted(letters)), **rest)

    @property
    def remaining(self) -> int:
        """How many files are neither counted nor dead."""
        return len(self.tree.files) - len(self.counts) - len(self.dead)

    @property
    def state(self) -> State:
        """``incomplete`` when files are missing although the run was not interrupted."""
        if not self.remaining:
            return "complete"
        return "interrupted" if self.interrupted else "incomplete"

    @property
    def totals(self) -> FileCounts:
        """The sums over all counted files."""
        rows = self.counts.values()
        return FileCounts(
            sum(c.functions for c in rows), sum(c.classes for c in rows), sum(c.lines for c in rows)
        )

    @property
    def largest(self) -> list[tuple[str, FileCounts]]:
        """The files with the most lines."""
        return heapq.nsmallest(_LARGEST, self.counts.items(), key=lambda row: -row[1].lines)

    @property
    def reasons(self) -> dict[str, list[DeadLetter[Any]]]:
        """The dead letters, by the type of error if the handler failed, else by reason."""
        found: defaultdict[str, list[DeadLetter[Any]]] = defaultdict(list)
        for letter in self.dead:
            kind = letter.error.partition(":")[0] if letter.reason == "failed" else letter.reason
            found[kind].append(letter)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    def document(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        totals = self.totals
        return {
            "path": visible(str(self.tree.root)),
            "state": self.state,
            "files": len(self.tree.files),
            "counted": len(self.counts),
            **attrs.asdict(totals),
            "remaining": self.remaining,
            "largest": [{"id": visible(i), **attrs.asdict(c)} for i, c in self.largest],
            "dead": len(self.dead),
            "dead_by_reason": {reason: len(found) for reason, found in self.reasons.items()},
            "dead_letters": [
                {
                    "id": visible(letter.task.id),
                    "reason": letter.reason,
                    "error": visible(letter.error),
                    "attempts": letter.attempts,
                    "crashes": letter.crashes,
                }
                for letter in self.dead
            ],
            "unread_folders": [visible(folder) for folder in self.tree.unread],
            "run": {
                "workers": self.workers,
                "files_before": self.before,
                "files": self.tally.finished,
                "retries": self.tally.retries,
                "seconds": round(self.tally.seconds, 3),
                "files_per_second": round(self.tally.rate, 1),
            },
        }
