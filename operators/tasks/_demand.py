"""What operators around boards say when a source does not heed their valve."""

from __future__ import annotations

from rxdispatch.log import get_logger
from rxdispatch.valve import Gate

__all__ = ["Overfull"]

log = get_logger(__name__)


class Overfull:
    """
    Warns once a subscription that items pile up, because the source cannot wait.

    Args:
        operator: The operator's name.
        gate: Its valve.
    """

    __slots__ = ("_gate", "_operator", "_told")

    def __init__(self, operator: str, gate: Gate) -> None:
        self._operator = operator
        self._gate = gate
        self._told = False

    def look(self, room: int) -> None:
        """Warn if *room* is negative and nobody ever asked the valve."""
        if room < 0 and not self._told and not self._gate.watched:
            self._told = True
            log.warning("no_demand", operator=self._operator, rule="its source must heed the valve")
