"""The machine below ``map_async`` and ``map_blocking``: a bounded number of items at work."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ItemTimeoutError
from rxdispatch.listeners import LEAVING
from rxdispatch.log import get_logger
from rxdispatch.operators.flow._in_flight import NO_KEY, InFlight, KeyQueues
from rxdispatch.operators.flow._map_options import MapOptions
from rxdispatch.operators.flow._policy import replacement, report_late
from rxdispatch.protocols import Limit
from rxdispatch.valve import Gate, bound_by

__all__ = ["BoundedMap"]

log = get_logger(__name__)


class BoundedMap:
    """
    One subscription of a bounded map.

    Every item is *pending* from its arrival until its outcome has passed. It waits in
    ``held`` until a slot is free and there is room below, then perhaps in the lane of its
    key until the item before it has landed. It keeps its slot until it has landed and, in
    ordered mode, passed. Room is the number of free slots that nobody waits for; it is read
    anew each time, so the number of slots may change under way.

    What differs between coroutines and threads is how work is started and cut short:
    :meth:`start`, :meth:`failed`, :meth:`cut`, :meth:`cancel` and :meth:`shut`. A future
    that was started calls :meth:`landed` with itself, on the loop and in a later turn: so
    nothing is emitted while an item is taken in, and no failure makes the code recurse.
    """

    #: Whether every item needs a context of its own from the start.
    carries_context = False

    def __init__(self, options: MapOptions, observer: abc.ObserverBase[Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.fn = options.fn
        self.closed = False
        self.running: dict[Any, InFlight] = {}
        self._observer = observer
        self._ordered = options.ordered
        self._key = options.key
        self._timeout = options.timeout
        self._own_context = options.ordered or self.carries_context
        # What the source does about new room has nothing to do with the item that made it.
        self._home = copy_context()
        self._adaptive = options.adaptive
        self._slots = options.limit if options.adaptive is None else options.adaptive.limit
        self._free = self._slots
        self._pending = 0
        self._held: deque[InFlight] = deque()
        self._order: deque[InFlight] = deque()
        self._key_queues = KeyQueues()
        # Those that have their lane but must wait for a slot again.
        self._key_owners: deque[InFlight] = deque()
        self._flushing = self._exhausted = self._warned = False
        self._skipped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._source = SingleAssignmentDisposable()

    def connect(
        self, source: Observable[Any], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        """Subscribe to *source*; the disposable ends everything."""
        valve = valve_of(scheduler)
        below = self._below = bound_by(valve)
        # Before the gate listens: what is held goes first, the source is asked after.
        self._link = None if below is None else below.listen(self._pump)
        self._gate = Gate(self._room, valve, fail=self.on_error)
        self._source.disposable = source.subscribe(
            self.on_next,
            self.on_error,
            self.on_completed,
            scheduler=LoopScheduler(self.loop, valve=self._gate),
        )
        return Disposable(self.dispose)

    # ------------------------------------------------ what the kinds of work do in their own way

    def start(self, item: Any) -> Any:
        """Start the work on *item* and return its future."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> Any:
        """Return a future for work that failed before it started."""
        raise NotImplementedError

    def cut(self, future: Any) -> bool:
        """Cut work short; False when its slot stays taken, so that it is to be reported now."""
        raise NotImplementedError

    def cancel(self, future: Any) -> None:
        """Cancel work whose outcome nobody waits for."""
        raise NotImplementedError

    def shut(self) -> None:
        """Give up what belongs to the subscription."""

    # ------------------------------------------------ what comes in

    def on_next(self, item: Any) -> None:
        """Start on *item*, or keep it until there is a slot for it."""
        if self.closed:
            return
        self._pending += 1
        below = self._below
        if self._free > 0 and not self._held and (below is None or below.room() > 0):
            self._admit(InFlight(item, copy_context() if self._own_context else None))
            return
        self._held.append(InFlight(item, copy_context()))
        if not self._warned and not self._gate.watched:
            self._warned = True
            log.warning("no_demand", operator=self.options.name, limit=self.options.limit)

    def on_completed(self) -> None:
        """Complete as soon as nothing is pending."""
        self._exhausted = True
        if not self._pending:
            self._complete()

    def on_error(self, error: BaseException) -> None:
        """End at once with *error*, cancelling what runs."""
        if self.closed:
            return
        self._shut()
        try:
            self._observer.on_error(error)  # type: ignore[arg-type]
        finally:
            self._gate.dispose()

    def dispose(self) -> None:
        """End without a word, cancelling what runs."""
        self._shut()
        self._gate.dispose()

    # ------------------------------------------------ admission

    def _room(self) -> int:
        # In ordered mode those in the lanes have their slots already.
        waiting = 0 if self._ordered else self._key_queues.waiting + len(self._key_owners)
        return self._free - len(self._held) - waiting

    def _pump(self) -> None:
        """Admit what is held, as far as there are slots and room below."""
        owners, held, below = self._key_owners, self._held, self._below
        while owners and self._free > 0:
            self._take_slot()
            self._launch(owners.popleft())
        while held and self._free > 0 and (below is None or below.room() > 0):
            self._admit(held.popleft())

    def _admit(self, entry: InFlight) -> None:
        if self._ordered:
            self._order.append(entry)
            self._free -= 1
        if self._key is not None:
            if entry.context is None:
                # Whatever happens to this item, it may be for another one to start it.
                entry.context = copy_context()
            try:
                free = self._key_queues.acquire(self._key(entry.item), entry)
            except BaseException as error:
                self._take_slot()
                self._track(entry, self.failed(error))
                return
            if not free:
                return
        self._take_slot()
        self._launch(entry)

    def _take_slot(self) -> None:
        if not self._ordered:
            self._free -= 1

    def _launch(self, entry: InFlight) -> None:
        context, start, item = entry.context, self.start, entry.item
        self._track(entry, start(item) if context is None else context.run(start, item))

    def _track(self, entry: InFlight, future: Any) -> None:
        self.running[future] = entry
        if self._adaptive is not None:
            entry.started = self.loop.time()
        if self._timeout is not None:
            entry.deadline = self.loop.time() + self._timeout
            if self._timer is None:
                self._set_timer(entry.deadline)

    # ------------------------------------------------ outcomes

    def finished(self, future: Any) -> None:
        """Record that the work of *future* is over."""
        entry = self.running.pop(future)
        if self.closed:
            report_late(self.options.name, future)
            return
        if self._adaptive is not None:
            self._adapt(self._adaptive, entry, future)
            if self.closed:
                return
        entry.finished = True
        if not entry.decided:
            try:
                entry.value = future.result()
            except BaseException as error:
                self._resolve_error(entry, error)
                if self.closed:
                    return
            entry.decided = True
        elif entry.emitted:
            # Its time ran out long ago; only the slot was still taken.
            self._free += 1
        if entry.key is not NO_KEY:
            # Before the emission, which may lead to new items: the slot goes to the next of
            # the lane and to nobody else.
            try:
                owner = self._key_queues.release(entry.key)
            except BaseException as error:
                # A key of the user whose hash or equality has changed, or raises.
                self.on_error(error)
                return
            if owner is not None:
                if self._ordered or self._free + (not entry.emitted) > 0:
                    self._take_slot()
                    self._launch(owner)
                else:
                    # The limit has become lower since.
                    self._key_owners.append(owner)
        self._release(entry)

    def _adapt(self, limit: Limit, entry: InFlight, future: Any) -> None:
        """Let *limit* learn from an item whose work is over, and follow it."""
        error = None if future.cancelled() else future.exception()
        dropped = entry.expired or isinstance(error, TimeoutError)
        try:
            if dropped or not (error or future.cancelled()):
                took = self.loop.time() - entry.started
                limit.ended(took, in_flight=len(self.running) + 1, dropped=dropped)
            # What is at work already goes on, whatever becomes of the limit.
            slots = max(1, limit.limit)
        except BaseException as error:
            self.on_error(error)
            return
        self._free += slots - self._slots
        self._slots = slots

    def _release(self, entry: InFlight | None) -> None:
        """Emit what may go now that the outcome of *entry* is known, and use what gets free."""
        try:
            if self._ordered:
                self._flush()
            elif entry is not None and not entry.emitted:
                self._emit(entry)
        finally:
            self._go_on()

    def _resolve_error(self, entry: InFlight, error: BaseException) -> None:
        """Find the outcome of an item whose work failed; it may be the end of the stream."""
        if entry.expired:
            timed_out = ItemTimeoutError(self.options.timeout or 0.0, entry.item)
            timed_out.__cause__ = error
            error = timed_out
        policy = self.options.on_error
        # KeyboardInterrupt and SystemExit are nobody's to skip.
        if policy == "stop" or isinstance(error, LEAVING):
            self.on_error(error)
        elif policy == "skip":
            self._skipped += 1
            entry.skipped = True
            log.warning(
                "item_skipped",
                operator=self.options.name,
                skipped=self._skipped,
                failure=error,
            )
        else:
            try:
                entry.value = replacement(policy, entry.item, error)
            except BaseException as worse:
                self.on_error(worse)

    def _flush(self) -> None:
        """Emit, in ordered mode, all whose turn it is."""
        # An emission that leads to another one must not overtake itself.
        if self._flushing:
            return
        self._flushing = True
        order = self._order
        try:
            while order and order[0].decided and not self.closed:
                self._emit(order.popleft())
        except BaseException:
            # The subscriber raised; those behind are due all the same, perhaps the last ones.
            self.loop.call_soon(self._release, None, context=self._home.copy())
            raise
        finally:
            self._flushing = False

    def _emit(self, entry: InFlight) -> None:
        entry.emitted = True
        if entry.finished:
            self._free += 1
        try:
            if entry.skipped:
                pass
            elif entry.context is None:
                self._observer.on_next(entry.value)
            else:
                entry.context.run(self._observer.on_next, entry.value)
        finally:
            self._pending -= 1

    def _go_on(self) -> None:
        """Use the slot or the room that an item has left."""
        if self.closed:
            return
        if self._held or self._key_owners:
            self._pump()
        if self._exhausted:
            if not self._pending:
                self._complete()
        elif self._free > 0:
            self._home.run(self._gate.opened)

    def _complete(self) -> None:
        if self.closed:
            return
        self._shut()
        try:
            self._observer.on_completed()
        finally:
            self._gate.dispose()

    # ------------------------------------------------ time limits

    def _set_timer(self, when: float) -> None:
        self._timer = self.loop.call_at(when, self._expire, when, context=self._home.copy())

    def _expire(self, when: float) -> None:
        """Cut short what has been at work too long; one timer serves all items."""
        self._timer = None
        now = max(self.loop.time(), when)
        late: list[tuple[Any, InFlight]] = []
        # They took off in the order of their deadlines.
        for future, entry in self.running.items():
            if entry.deadline > now:
                self._set_timer(entry.deadline)
                break
            if not entry.expired and not future.done():
                late.append((future, entry))
        for future, entry in late:
            entry.expired = True
            if not self.cut(future):
                # Each in its own turn, so that a subscriber that raises harms no other item.
                self.loop.call_soon(self._time_out, entry)

    def _time_out(self, entry: InFlight) -> None:
        """Report an item whose work goes on all the same."""
        if self.closed or entry.decided:
            return
        self._resolve_error(entry, TimeoutError("the function is still running"))
        if not self.closed:
            entry.decided = True
            self._release(entry)

    # ------------------------------------------------ the end

    def _shut(self) -> None:
        """Stop everything, but let nobody upstream hear of it yet."""
        if self.closed:
            return
        self.closed = True
        self._source.dispose()
        if self._link is not None:
            self._link.dispose()
        if self._timer is not None:
            self._timer.cancel()
        self._held.clear()
        self._order.clear()
        self._key_owners.clear()
        self._key_queues.clear()
        for future in tuple(self.running):
            self.cancel(future)
        self.shut()
