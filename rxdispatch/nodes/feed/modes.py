"""``Modes``: where a feed's knowledge comes from, and when that changes."""

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

    One missed proof changes nothing, and one that succeeds does not either: back to NORMAL it
    goes after two in a row, so that a connection that comes and goes does not make it flap.

    Args:
        counters: Where switches are counted.
    """

    def __init__(self, counters: Counters) -> None:
        self.mode = Mode.NORMAL
        self._counters = counters
        self._relay: Relay[Mode] = Relay("modes")
        self._proofs = 0
        self.observable: Observable[Mode] = Stream(self._subscribe)

    def proven(self) -> bool:
        """Take note of a proof; returns True where that ends a trouble."""
        self._proofs += 1
        if self.mode is Mode.NORMAL or self._proofs < _STEADY:
            return False
        self.switch(Mode.NORMAL)
        return True

    def failed(self) -> None:
        """Take note of a proof that failed."""
        self._proofs = 0

    def switch(self, mode: Mode) -> None:
        """Be in *mode* from now on."""
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
