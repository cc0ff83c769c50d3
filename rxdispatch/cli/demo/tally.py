"""``Tally``: the running counts of one run of the demo."""

from __future__ import annotations

import time
from typing import Any

import attrs

from rxdispatch.claim import Outcome

__all__ = ["Tally"]


@attrs.define
class Tally:
    """
    Running counts of settled outcomes.

    Attributes:
        finished: Files done or dead.
        retries: Failed attempts whose task is tried again.
        seconds: Seconds from the start of the pipeline to the last finished file.
    """

    finished: int = 0
    retries: int = 0
    seconds: float = 0.0
    _start: float = attrs.field(factory=time.monotonic)

    def count(self, outcome: Outcome[Any, Any]) -> None:
        """Count *outcome*."""
        if outcome.status in ("done", "dead"):
            self.finished += 1
            self.seconds = time.monotonic() - self._start
        elif outcome.status == "retry":
            self.retries += 1

    @property
    def rate(self) -> float:
        """Finished files per second."""
        return self.finished / self.seconds if self.seconds > 0 else 0.0
