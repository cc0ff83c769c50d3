"""``Gate``: the valve of an operator, linked to the valve below it; and ``Bypass``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from reactivex.abc import DisposableBase
from reactivex.disposable import Disposable

from rxdispatch.listeners import call_each
from rxdispatch.protocols import Valve

__all__ = ["Bypass", "Gate", "bound_by"]


class Gate:
    """
    The valve of one subscription of an operator that holds a bounded number of items.

    The operator subscribes to its source with ``LoopScheduler(loop, valve=gate)`` and calls
    :meth:`opened` whenever an item leaves it. The room of the valve below counts too, so demand
    flows up the whole chain. The operator disposes the gate however its stream ends.

    Args:
        own: A function that returns how many more items the operator itself can take; None when
            nothing limits the operator, and the gate only reports the end of its stream.
        below: The valve of the operator's own subscriber, if any.
        fail: A function that ends the operator's stream with an error at once and cancels its work;
            a drain that runs out of time calls it.
        holds: Whether the operator also takes items while there is no room below, so that only its
            own room counts.

    Example:
        >>> gate = Gate(lambda: 3, None)
        >>> gate.room()
        3
        >>> gate.dispose()
        >>> gate.closed
        True
    """

    __slots__ = (
        "_below",
        "_bound",
        "_closers",
        "_fail",
        "_link",
        "_listeners",
        "_own",
        "_unbounded",
        "closed",
        "watched",
    )

    def __init__(
        self,
        own: Callable[[], int] | None,
        below: Valve | None,
        *,
        fail: Callable[[Exception], None] | None = None,
        holds: bool = False,
    ) -> None:
        bound = None if holds else below
        self._own = own or _unbounded
        self._unbounded = own is None and bound is None
        self._below = below
        self._bound = bound_by(bound)
        self._fail = fail
        self._listeners: list[Callable[[], None]] = []
        self._closers: list[Callable[[], None]] = []
        #: True once the stream of the operator has ended.
        self.closed = False
        #: True once a source has asked to be called when there is room: such a source can wait.
        self.watched = False
        self._link = None if bound is None else bound.listen(self.opened)

    def room(self) -> int:
        """How many more items may come now; 0 while the valve below has no room."""
        bound = self._bound
        if bound is not None and bound.room() <= 0:
            return 0
        return self._own()

    def listen(self, on_room: Callable[[], None]) -> DisposableBase:
        """Call *on_room* whenever there may be room again, until the result is disposed."""
        self.watched = True
        return _listed(self._listeners, on_room)

    def opened(self) -> None:
        """Tell the listeners, such as the source, that there may be room again."""
        listeners = self._listeners
        if len(listeners) == 1:
            listeners[0]()
        elif listeners:
            # A listener that was called earlier may have disposed this one.
            call_each(on_room for on_room in tuple(listeners) if on_room in listeners)

    @property
    def lowest(self) -> Gate:
        """The last gate of the chain below this one: its stream ends after all others."""
        *_, lowest = self.chain()
        return lowest

    def chain(self) -> Iterator[Gate]:
        """Yield this gate and all gates below it."""
        gate: Valve | None = self
        while isinstance(gate, Gate):
            yield gate
            gate = gate._below

    def when_closed(self, on_closed: Callable[[], None]) -> DisposableBase:
        """Call *on_closed* once the operator's stream has ended, unless the result is disposed."""
        if self.closed:
            on_closed()
            return Disposable()
        return _listed(self._closers, on_closed)

    def fail(self, error: Exception) -> bool:
        """End the operator's stream with *error*; False if it has ended or cannot be ended."""
        if self.closed or self._fail is None:
            return False
        self._fail(error)
        return True

    def dispose(self) -> None:
        """Open for good: an operator that takes no more items must not hold up its source."""
        if self.closed:
            return
        self.closed = True
        if self._link is not None:
            self._link.dispose()
        self._below = self._bound = self._link = self._fail = None
        self._own = _unbounded
        closers, self._closers = self._closers, []
        # A source may emit now that there is room, and raise what its subscriber raises.
        call_each((self.opened, *closers))


class Bypass(Gate):
    """
    The gate of an operator that holds no items and resubscribes to its source.

    Demand passes through: the room is that of the valve below. The gate is part of the chain so
    that a ``KillSwitch`` finds the operator while it waits to subscribe again; at that time
    nothing else connects it to the operators above.

    Args:
        below: The valve of the operator's own subscriber, if any.
        fail: A function that ends the operator's stream with an error at once.
        stop: A function that completes the operator's stream if it waits to subscribe again, and
            keeps it from subscribing again later.
    """

    __slots__ = ("stop",)

    def __init__(
        self, below: Valve | None, *, fail: Callable[[Exception], None], stop: Callable[[], None]
    ) -> None:
        super().__init__(None, None, fail=fail)
        self.stop = stop
        self._below = below
        self._bound = bound_by(below)
        self._unbounded = self._bound is None

    def room(self) -> int:
        """How many more items the valve below has room for."""
        return sys.maxsize if self._bound is None else self._bound.room()

    def listen(self, on_room: Callable[[], None]) -> DisposableBase:
        """Call *on_room* whenever the valve below may have room again."""
        return super().listen(on_room) if self._bound is None else self._bound.listen(on_room)


def bound_by(valve: Valve | None) -> Valve | None:
    """Return the valve that decides the room of *valve*; None if *valve* never closes."""
    if isinstance(valve, Bypass):
        return valve._bound
    return None if isinstance(valve, Gate) and valve._unbounded else valve


def _listed(calls: list[Callable[[], None]], call: Callable[[], None]) -> DisposableBase:
    calls.append(call)

    def forget() -> None:
        if call in calls:
            calls.remove(call)

    return Disposable(forget)


def _unbounded() -> int:
    return sys.maxsize
