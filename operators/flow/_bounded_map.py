"""``BoundedMap``: works on a bounded number of items at once; base of the two maps."""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from typing import Any

from reactivex import abc

from rxdispatch.errors import ItemTimeoutError
from rxdispatch.log import get_logger
from rxdispatch.operators._on_error import SKIPPED, ErrorRule
from rxdispatch.operators._subscription import Subscription
from rxdispatch.operators.flow._in_flight import NO_KEY, InFlight, KeyQueues
from rxdispatch.operators.flow._map_options import MapOptions
from rxdispatch.protocols import Limit

__all__ = ["BoundedMap"]

log = get_logger(__name__)


class BoundedMap(Subscription[Any, Any]):
    """
    One subscription of a bounded map.

    Every item is *pending* from its arrival until its outcome has been emitted. It waits in
    ``_held`` until a slot is free and there is room below, then perhaps in the queue of its key
    until the item before it has finished. It keeps its slot until it has finished and, in ordered
    mode, been emitted. Room is the number of free slots that no item waits for. It is computed
    on each call, so the number of slots may change while the stream runs.

    Coroutines and threads differ in how work is started and cut short: :meth:`start`,
    :meth:`failed`, :meth:`cut`, :meth:`cancel` and :meth:`shut`. A future that was started calls
    :meth:`finished` with itself, on the loop and in a later turn. So nothing is emitted while an
    item is taken in, and failures do not recurse.
    """

    #: Whether every item needs a context of its own from the start.
    carries_context = False

    def __init__(
        self,
        options: MapOptions,
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__(options.name, options.limit, observer, scheduler, on_room=self._pump)
        self.options = options
        self.fn = options.fn
        self.running: dict[Any, InFlight] = {}
        self._ordered = options.ordered
        self._key = options.key
        self._timeout = options.timeout
        self._own_context = options.ordered or self.carries_context
        self._adaptive = options.adaptive
        self._slots = options.limit if options.adaptive is None else options.adaptive.limit
        self._free = self._slots
        self._pending = 0
        self._held: deque[InFlight] = deque()
        self._order: deque[InFlight] = deque()
        self._keys = KeyQueues()
        # Items that own their key but wait for a slot again.
        self._key_owners: deque[InFlight] = deque()
        self._flushing = self._exhausted = False
        self._rule = ErrorRule(options.on_error, options.name)

    # ------------------------------------------------ what subclasses do in their own way

    def start(self, item: Any) -> Any:
        """Start the work on *item* and return its future."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> Any:
        """Return a future for work that failed before it started."""
        raise NotImplementedError

    def cut(self, future: Any) -> bool:
        """Cut work short; False if the work goes on, so that its item must be reported now."""
        raise NotImplementedError

    def cancel(self, future: Any) -> None:
        """Cancel work whose outcome is not needed any more."""
        raise NotImplementedError

    def shut(self) -> None:
        """Release what belongs to the subscription, such as threads."""

    # ------------------------------------------------ what comes in

    def on_next(self, item: Any) -> None:
        """Start work on *item*, or keep it until there is a slot for it."""
        if self.closed:
            return
        self._pending += 1
        below = self.below
        if self._free > 0 and not self._held and (below is None or below.room() > 0):
            self._admit(InFlight(item, copy_context() if self._own_context else None))
            return
        self._held.append(InFlight(item, copy_context()))
        if not self.upstream.demand_checked:
            self.upstream.check_demand()

    def on_completed(self) -> None:
        """Complete as soon as nothing is pending."""
        self._exhausted = True
        if not self._pending:
            self.complete()

    # ------------------------------------------------ admission

    def room(self) -> int:
        """How many slots are free that no item waits for."""
        # In ordered mode items that wait for their key have their slots already.
        waiting = 0 if self._ordered else self._keys.waiting + len(self._key_owners)
        return self._free - len(self._held) - waiting

    def _pump(self) -> None:
        """Admit held items while there are slots and room below."""
        owners, held, below = self._key_owners, self._held, self.below
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
                # The item that owns the key may start this one later, in another context.
                entry.context = copy_context()
            try:
                free = self._keys.acquire(self._key(entry.item), entry)
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
            if self.timer is None:
                self._set_timer(entry.deadline)

    # ------------------------------------------------ outcomes

    def finished(self, future: Any) -> None:
        """Record that the work of *future* is over."""
        entry = self.running.pop(future)
        if self.closed:
            self._report_late(future)
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
            # It was reported when its time ran out; only its slot was still taken.
            self._free += 1
        if entry.key is not NO_KEY:
            # Before the emission, which may lead to new items: the slot goes to the next item
            # in the key's queue, and to no other.
            try:
                owner = self._keys.release(entry.key)
            except BaseException as error:
                # The hash or equality of a user's key has changed, or raises.
                self.fail(error)
                return
            if owner is not None:
                if self._ordered or self._free + (not entry.emitted) > 0:
                    self._take_slot()
                    self._launch(owner)
                else:
                    # The limit is lower by now.
                    self._key_owners.append(owner)
        self._release(entry)

    def _report_late(self, future: Any) -> None:
        """Log the error of work that ended after the stream; reading it keeps asyncio silent."""
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Exception):
            log.warning("error_after_end", operator=self.options.name, failure=error)

    def _adapt(self, limit: Limit, entry: InFlight, future: Any) -> None:
        """Report a finished item to the adaptive *limit*, then apply its new value."""
        error = None if future.cancelled() else future.exception()
        dropped = entry.expired or isinstance(error, TimeoutError)
        try:
            if dropped or not (error or future.cancelled()):
                took = self.loop.time() - entry.started
                limit.ended(took, in_flight=len(self.running) + 1, dropped=dropped)
            # Items at work go on, however low the limit becomes.
            slots = max(1, limit.limit)
        except BaseException as error:
            self.fail(error)
            return
        self._free += slots - self._slots
        self._slots = slots

    def _release(self, entry: InFlight | None) -> None:
        """Emit what may go now that the outcome of *entry* is known, and use the free slots."""
        try:
            if self._ordered:
                self._flush()
            elif entry is not None and not entry.emitted:
                self._emit(entry)
        finally:
            self._go_on()

    def _resolve_error(self, entry: InFlight, error: BaseException) -> None:
        """Find the outcome of an item whose work failed, which may end the stream."""
        if entry.expired:
            timed_out = ItemTimeoutError(self.options.timeout or 0.0, entry.item)
            timed_out.__cause__ = error
            error = timed_out
        entry.value, final = self._rule.resolve(entry.item, error)
        if final is not None:
            self.fail(final)

    def _flush(self) -> None:
        """Emit, in ordered mode, all items whose turn has come."""
        # An emission may call this again; the inner call must not emit before the outer one ends.
        if self._flushing:
            return
        self._flushing = True
        order = self._order
        try:
            while order and order[0].decided and not self.closed:
                self._emit(order.popleft())
        except BaseException:
            # The subscriber raised; the items behind this one are still due, and so may the end be.
            self.loop.call_soon(self._release, None, context=self.home.copy())
            raise
        finally:
            self._flushing = False

    def _emit(self, entry: InFlight) -> None:
        entry.emitted = True
        if entry.finished:
            self._free += 1
        try:
            if entry.value is SKIPPED:
                pass
            elif entry.context is None:
                self.observer.on_next(entry.value)
            else:
                entry.context.run(self.observer.on_next, entry.value)
        finally:
            self._pending -= 1

    def _go_on(self) -> None:
        """Use the slot or the room that an item has left behind."""
        if self.closed:
            return
        if self._held or self._key_owners:
            self._pump()
        if self._exhausted:
            if not self._pending:
                self.complete()
        elif self._free > 0:
            self.home.run(self.gate.opened)

    # ------------------------------------------------ time limits

    def _set_timer(self, when: float) -> None:
        self.timer = self.loop.call_at(when, self._expire, when, context=self.home.copy())

    def _expire(self, when: float) -> None:
        """Cut short items that have been at work too long; one timer serves all items."""
        self.timer = None
        now = max(self.loop.time(), when)
        late: list[tuple[Any, InFlight]] = []
        # Items are in the order in which they started, so also in the order of their deadlines.
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
        """Report an item whose work goes on although its time is over."""
        if self.closed or entry.decided:
            return
        self._resolve_error(entry, TimeoutError("the function is still running"))
        if not self.closed:
            entry.decided = True
            self._release(entry)

    # ------------------------------------------------ the end

    def clear(self) -> None:
        """Drop items that wait and cancel those at work."""
        self._held.clear()
        self._order.clear()
        self._key_owners.clear()
        self._keys.clear()
        for future in tuple(self.running):
            self.cancel(future)
        self.shut()
