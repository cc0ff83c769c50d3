"""``Modes``: where a feed gets its data from, and when that changes."""

from __future__ import annotations

from typing import Final

from reactivex import Observable, abc

from rxdispatch.log import get_logger
from rxdispatch.node import Mode
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.observable import Stream
from rxdispatch.relay import Relay

__all__ = ["Modes"]

log = get_logger(__name__)

_STEADY: Final = 2


class Modes:
    """
    The mode of one feed.

    One failed pulse changes nothing, and the way back to NORMAL takes two successful pulses in a
    row, so an unsteady connection does not make the mode flap.

    Args:
        counters: Counts the changes of the mode.
    """

    def __init__(self, counters: Counters) -> None:
        self.mode = Mode.NORMAL
        self._counters = counters
        self._relay: Relay[Mode] = Relay("modes")
        self._proofs = 0
        self.observable: Observable[Mode] = Stream(self._subscribe)

    def proven(self) -> bool:
        """Count a successful pulse; return True if it brings the mode back to NORMAL."""
        self._proofs += 1
        if self.mode is Mode.NORMAL or self._proofs < _STEADY:
            return False
        self.switch(Mode.NORMAL)
        return True

    def failed(self) -> None:
        """Count successful pulses in a row from 0 again: a pulse failed, or got no PONG."""
        self._proofs = 0

    def switch(self, mode: Mode) -> None:
        """Set the mode."""
        if mode is not self.mode:
            before, self.mode = self.mode, mode
            self._counters.mode_switches += 1
            say = log.info if mode is Mode.NORMAL else log.warning
            say("feed_mode", mode=mode.value, before=before.value)
            self._relay.emit(mode)

    def complete(self) -> None:
        """End the stream for every subscriber."""
        self._relay.complete()

    def _subscribe(
        self, observer: abc.ObserverBase[Mode], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        observer.on_next(self.mode)
        return self._relay.observable.subscribe(observer, scheduler=scheduler)
