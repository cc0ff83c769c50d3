"""``LiveLine``: a status line, updated in place on a terminal and printed again elsewhere."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rxdispatch.cli.text import visible

__all__ = ["LiveLine"]

_LINE_EVERY: Final = 3.0
"""Seconds between two lines if stderr is not a terminal."""


class LiveLine:
    """
    A status line, updated in place on a terminal and printed every few seconds elsewhere.

    Args:
        console: The console of stderr, so that stdout holds only the result.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_line = 0.0
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def show(self, text: str) -> None:
        """Replace the status line."""
        if not self._console.is_terminal:
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + _LINE_EVERY
                self.say(text)
            return
        line = Text(visible(text), no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(line, console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._live.update(line, refresh=True)

    def end(self) -> None:
        """Stop updating the status line, and leave it on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
