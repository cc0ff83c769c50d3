"""``Tally``: what happens in one run of the demo, as it happens."""

from __future__ import annotations

import time
from typing import Any

import attrs

from rxdispatch.claim import Outcome

__all__ = ["Tally"]


@attrs.define
class Tally:
    """
    Counts outcomes that are settled.

    Attributes:
        finished: Files done or dead.
        retries: Failed tries that were followed by another.
        seconds: From the start of the pipeline to the last file that was finished.
    """

    finished: int = 0
    retries: int = 0
    seconds: float = 0.0
    _start: float = attrs.field(factory=time.monotonic)

    def note(self, outcome: Outcome[Any, Any]) -> None:
        """Count *outcome*."""
        if outcome.status in ("done", "dead"):
            self.finished += 1
            self.seconds = time.monotonic() - self._start
        elif outcome.status == "retry":
            self.retries += 1

    @property
    def rate(self) -> float:
        """Files finished a second."""
        return self.finished / self.seconds if self.seconds > 0 else 0.0
