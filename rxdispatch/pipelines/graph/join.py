"""``join_ports``: joins streams into one, and asks each for items at the pace of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context, copy_context

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.operators._subscription import Downstream, Upstream
from rxdispatch.pipelines.graph.model import Gap, Join
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.protocols import Valve

__all__ = ["join_ports"]


def join_ports(
    streams: Sequence[Observable[Envelope]],
    join: Join,
    unpaired: Callable[[Envelope], None],
) -> Observable[Envelope]:
    """
    Join *streams*, one for each port.

    RxPY's own ``merge``, ``zip`` and ``combine_latest`` forward or hold every item that arrives.
    Here each port holds one item, and asks its stream for the next when that item has gone; all
    others wait in the bounded queue upstream. ``merge`` takes turns among the ports, so that a busy
    port does not starve the others.

    Args:
        streams: The stream of each port.
        join: ``"merge"`` passes on each item; ``"zip"`` a tuple of one item of each port;
            ``"latest"`` a tuple of the latest of each, whenever one arrives, once all have one.
        unpaired: Called with an item that no tuple can contain any more, because another port has
            ended or has a gap.

    A zip treats a gap as an item, and emits a gap in place of the tuple. The result completes when
    all streams have, and fails with the first that fails.
    """

    def subscribe(
        observer: abc.ObserverBase[Envelope], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return _JOINS[join](observer, scheduler, unpaired, len(streams)).connect(streams)

    return Observable(subscribe)


class _Port:
    """One port: the item it holds, and the stream that it asks for the next."""

    def __init__(self, below: Valve | None, fail: Callable[[Exception], None]) -> None:
        self.held: tuple[Envelope, Context] | None = None
        self.ended = False
        self.upstream: Upstream[Envelope] = Upstream(
            "join", 1, self._room, below, fail=fail, holds=True
        )

    def _room(self) -> int:
        return 0 if self.held is not None else 1

    def ask(self) -> None:
        """Ask the stream for an item, unless it has ended."""
        if not self.ended:
            self.upstream.gate.opened()

    def take(self) -> tuple[Envelope, Context]:
        entry = self.held
        assert entry is not None
        self.held = None
        return entry


class _Merge(Downstream[Envelope]):
    """One subscription of ``merge``; the other joins differ in which items go next."""

    def __init__(
        self,
        observer: abc.ObserverBase[Envelope],
        scheduler: abc.SchedulerBase | None,
        unpaired: Callable[[Envelope], None],
        width: int,
    ) -> None:
        super().__init__(observer, scheduler, on_room=self._pump)
        self._unpaired = unpaired
        self._width = width
        self._turn = 0
        self._pumping = False
        self.ports = [_Port(self.valve, self.fail) for _ in range(width)]
        self.upstreams = tuple(port.upstream for port in self.ports)

    def connect(self, streams: Sequence[Observable[Envelope]]) -> abc.DisposableBase:
        """Subscribe each port to its stream; the disposable ends everything."""
        for port, stream in zip(self.ports, streams, strict=True):
            port.upstream.connect(stream, self._entrance(port), self.fail, self._exit(port))
        return Disposable(self.dispose)

    # ------------------------------------------------ the next items

    def next(self) -> tuple[Envelope, Context] | None:
        """Return the next envelope to emit, or None if there is none yet."""
        for step in range(self._width):
            port = self.ports[(self._turn + step) % self._width]
            if port.held is not None:
                self._turn = (self._turn + step + 1) % self._width
                return port.take()
        return None

    # ------------------------------------------------ from the ports to the observer

    def _entrance(self, port: _Port) -> Callable[[Envelope], None]:
        def on_next(envelope: Envelope) -> None:
            if not self.closed:
                port.held = (envelope, copy_context())
                self._pump()

        return on_next

    def _exit(self, port: _Port) -> Callable[[], None]:
        def on_completed() -> None:
            port.ended = True
            self._pump()

        return on_completed

    def _pump(self) -> None:
        """Emit what can go while there is room below, and ask for more."""
        # Emitting and asking can bring in new items, which must not overtake the current one.
        if self._pumping or self.closed:
            return
        self._pumping = True
        try:
            while not self.closed and (self.below is None or self.below.room() > 0):
                entry = self.next()
                if entry is None:
                    break
                envelope, context = entry
                # Asked before the emission, the ports fill up while the consumer is busy.
                self._ask()
                context.run(self.observer.on_next, envelope)
        finally:
            self._pumping = False
        if not self.closed and all(port.ended and port.held is None for port in self.ports):
            self.complete()

    def _ask(self) -> None:
        for port in self.ports:
            if port.held is None:
                port.ask()


class _Zip(_Merge):
    """One subscription of ``zip``."""

    def next(self) -> tuple[Envelope, Context] | None:
        if any(port.ended and port.held is None for port in self.ports):
            # No tuple can follow: report the items that still come, so that all streams can end.
            for port in self.ports:
                while port.held is not None:
                    envelope, context = port.take()
                    if envelope.value is not Gap:
                        context.run(self._unpaired, envelope)
                    port.ask()
            return None
        if any(port.held is None for port in self.ports):
            return None
        entries = [port.take() for port in self.ports]
        envelopes = [envelope for envelope, _ in entries]
        gone = {envelope.id for envelope in envelopes if envelope.value is Gap}
        if not gone:
            return _tuple(envelopes), entries[0][1]
        for envelope, context in entries:
            # An item that failed on another path has been reported there.
            if envelope.id not in gone:
                context.run(self._unpaired, envelope)
        return Envelope(_name(envelopes), Gap), entries[0][1]


class _Latest(_Merge):
    """One subscription of ``latest``."""

    def __init__(
        self,
        observer: abc.ObserverBase[Envelope],
        scheduler: abc.SchedulerBase | None,
        unpaired: Callable[[Envelope], None],
        width: int,
    ) -> None:
        super().__init__(observer, scheduler, unpaired, width)
        self._latest: dict[_Port, Envelope] = {}

    def next(self) -> tuple[Envelope, Context] | None:
        for step in range(self._width):
            port = self.ports[(self._turn + step) % self._width]
            while port.held is not None:
                envelope, context = port.take()
                fresh = envelope.value is not Gap
                if fresh:
                    self._latest[port] = envelope
                if fresh and len(self._latest) == self._width:
                    self._turn = (self._turn + step + 1) % self._width
                    return _tuple([self._latest[one] for one in self.ports]), context
                # No tuple yet. Until all ports have an item, a later one may replace this one.
                port.ask()
        return None


_JOINS: dict[str, type[_Merge]] = {"merge": _Merge, "zip": _Zip, "latest": _Latest}


def _tuple(envelopes: list[Envelope]) -> Envelope:
    return Envelope(_name(envelopes), tuple(envelope.value for envelope in envelopes))


def _name(envelopes: list[Envelope]) -> str:
    # The results of one item on several paths share its id: together they are that item again.
    return "+".join(dict.fromkeys(envelope.id for envelope in envelopes))
