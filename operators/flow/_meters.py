"""The meters of this process by name, and ``measurements`` to read all of them."""

from __future__ import annotations

import threading
from typing import Final

from rxdispatch.log import get_logger
from rxdispatch.operators.flow._meter import Measurement, Meter

__all__ = ["KEPT", "Meters", "measurements", "meter_of"]

log = get_logger(__name__)

KEPT: Final = 1000
"""How many meters are kept; more only while their streams run."""

_LOOKED_AT: Final = 8


class Meters:
    """
    Meters by name, the most recently used at the end.

    Names may be made at run time, one for each user or connection. So when there are more than
    *kept*, the least recently used meters without a running stream are forgotten; their names
    start again from 0. Each call of :meth:`get` looks at only a few meters.

    Args:
        kept: How many to keep.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._meters: dict[str, Meter] = {}
        self._lock = threading.Lock()
        self._told = False

    def get(self, name: str) -> Meter:
        """
        Return the meter of *name*, and count it as used.

        Raises:
            ConfigError: If *name* is not a string or empty.
        """
        with self._lock:
            meter = self._meters.pop(name, None) if name.__class__ is str else None
            if meter is None:
                meter = Meter(name)
            self._meters[name] = meter
            forgotten = self._forget()
        if forgotten and not self._told:
            self._told = True
            log.warning("meters_forgotten", kept=self._kept)
        return meter

    def _forget(self) -> int:
        forgotten = 0
        for _ in range(_LOOKED_AT):
            if len(self._meters) <= self._kept:
                break
            name = next(iter(self._meters))
            meter = self._meters.pop(name)
            if meter._in_use:
                self._meters[name] = meter
            else:
                forgotten += 1
        return forgotten

    def read(self) -> dict[str, Measurement]:
        """Return the numbers of all meters, sorted by name."""
        with self._lock:
            meters = sorted(self._meters.items())
        return {name: meter.read() for name, meter in meters}


_all = Meters()


def meter_of(name: str) -> Meter:
    """
    Return the meter of *name*.

    Raises:
        ConfigError: If *name* is not a string or empty.
    """
    return _all.get(name)


def measurements() -> dict[str, Measurement]:
    """
    Return the numbers of all meters of this process, by name.

    A name appears when its ``measure`` operator is made, and stays when its streams have ended.
    If there are more than 1,000 names, the least recently used ones without a running stream are
    forgotten; the first time, that is logged as ``meters_forgotten``.

    Example:
        >>> import rxdispatch as rxd
        >>> from rxdispatch import operators as ops
        >>> _ = ops.measure("parse")
        >>> rxd.measurements()["parse"].entered
        0
    """
    return _all.read()
