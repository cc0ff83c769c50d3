"""``Progress``: a progress bar if stderr is a terminal, else lines of progress."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from rxdispatch.cli.demo.tally import Tally
from rxdispatch.cli.text import visible
from rxdispatch.results import Counts

__all__ = ["Progress"]

_LINE_EVERY: Final = 2.0
"""Seconds between two lines if stderr is not a terminal."""


class Progress:
    """
    A progress bar or progress lines for a run of the demo.

    Args:
        console: The console of stderr, so that stdout holds only the result.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._next_line = 0.0
        self._bar: Bar | None = None

    def say(self, text: str) -> None:
        """Print one line of plain text, above the bar if there is one."""
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def begin(self, total: int, done: int) -> None:
        """Start with *done* of *total* files."""
        self._total = total
        self._next_line = time.monotonic() + _LINE_EVERY
        if self._console.is_terminal:
            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.add_task("files", total=total, completed=done, state="")
            self._bar.start()

    def show(self, counts: Counts, tally: Tally, *, last: bool = False) -> None:
        """Show the counts of the board and the results of this run."""
        left = counts.scheduled + counts.ready + counts.claimed
        done = max(0, self._total - left)
        state = (
            f"{tally.rate:,.0f}/s  claimed {counts.claimed}  retrying {counts.scheduled}"
            f"  dead {counts.dead}"
        )
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, state=state)
        elif last or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY
            self.say(f"{done:,}/{self._total:,} files  {state}")

    def end(self) -> None:
        """Stop the bar, and leave it on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
