"""
Measures what each operator of RxPY does to demand, and checks the table in the docs.

``python -m tests.operators.flow.test_valve_table`` writes the table.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.testing import run_virtual
from rxdispatch.valve import Gate
from tests.operators.flow.forms import FORMS, OTHERS, Form

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "demand.md"
BEGIN, END = "% table: begin\n", "% table: end\n"

ITEMS = 200
TAKES = 5


class Item(float):
    """A float that takes weak references."""


@attrs.frozen
class Finding:
    """
    How an operator treated demand.

    Args:
        seen: Whether the source saw the valve.
        taken: How many items the operator took while its subscriber took five.
        held: The most of them that it held at once.
    """

    seen: bool
    taken: int
    held: int

    @property
    def verdict(self) -> str:
        """Return the word for the table."""
        if not self.seen:
            return "cuts"
        # An operator needs a few items for its work, such as the previous one; that is no queue.
        return "holds" if self.held > 3 else "crosses"


class Numbers:
    """A source that emits while there is room, and knows which of its items are still held."""

    def __init__(self) -> None:
        self.alive: list[weakref.ref[Item]] = []
        self.seen: bool | None = None

    def stream(self) -> Observable[Any]:
        """Return the source as a stream."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            valve = valve_of(scheduler)
            self.seen = valve is not None
            busy = ended = False

            def emit() -> None:
                nonlocal busy
                if busy:
                    return
                busy = True
                while not ended and len(self.alive) < ITEMS:
                    if valve is not None and valve.room() <= 0:
                        break
                    item = Item(len(self.alive))
                    self.alive.append(weakref.ref(item))
                    observer.on_next(item)
                    del item
                busy = False

            def end() -> None:
                nonlocal ended
                ended = True

            link = Disposable() if valve is None else valve.listen(emit)
            # Start in the next turn, when all subscribers of the stream are in place.
            timer = asyncio.get_running_loop().call_soon(emit)

            def dispose() -> None:
                timer.cancel()
                link.dispose()
                end()

            return Disposable(dispose)

        return Observable(subscribe)

    def held(self) -> int:
        """Count the items to which anything still refers."""
        held = self._count()
        if held > 3:
            # Perhaps only a cycle refers to the items.
            gc.collect()
            held = self._count()
        return held

    def _count(self) -> int:
        return sum(reference() is not None for reference in self.alive)


def _ignore(_: Exception) -> None:
    """Ignore an error."""


@cache
def finding(form: Form) -> Finding:
    """Subscribe to the form, take five items, and return how it treated demand."""

    async def main() -> Finding:
        numbers = Numbers()
        left = TAKES

        def on_next(_: Any) -> None:
            nonlocal left
            left -= 1

        gate = Gate(lambda: left, None)
        loop = asyncio.get_running_loop()
        subscription = form.build(numbers.stream()).subscribe(
            on_next, _ignore, scheduler=LoopScheduler(loop, valve=gate)
        )
        held = 0
        for _ in range(6):
            for _ in range(4):
                await asyncio.sleep(0)
            held = max(held, numbers.held())
            await asyncio.sleep(0.5)
        subscription.dispose()
        assert numbers.seen is not None, "the source was never subscribed to"
        return Finding(numbers.seen, len(numbers.alive), held)

    # The garbage collector need not go through the existing objects again and again.
    gc.freeze()
    try:
        return run_virtual(main())
    finally:
        gc.unfreeze()


def rows() -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| operator | demand | took for 5 | held |"
    yield "|---|---|---|---|"
    entries = [(form, finding(form)) for form in (*FORMS, *OTHERS)]
    for form, found in sorted(entries, key=lambda entry: (entry[0].name, entry[0].source)):
        name = f"`{form.name}`" + (f", its {form.source}" if form.source else "")
        taken, held = _number(found.taken), _number(found.held)
        yield f"| {name} | {found.verdict} | {taken} | {held} |"


def _number(items: int) -> str:
    # How many of them are gone when they are counted depends on the turns of the loop.
    return "all" if items > 0.9 * ITEMS else str(items)


def table() -> str:
    """Return the table."""
    return "\n".join(rows()) + "\n"


def test_no_operator_is_missing() -> None:
    """Each operator that RxPY exports is in the table."""
    assert {form.name for form in FORMS} == set(rx.__all__)


def test_the_table_in_the_docs_is_true() -> None:
    """Every run measures the table, as a release of RxPY may change it."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    written, _, _ = rest.partition(END)
    assert before
    assert table().strip() == written.strip(), "run python -m tests.operators.flow.test_valve_table"


def test_only_one_operator_cuts_demand_unless_it_ends_the_stream() -> None:
    """The operator is ``subscribe_on``; a future takes everything in any case."""
    cuts = {form.name for form in FORMS if not finding(form).seen}
    assert {"subscribe_on", "to_future"} == cuts


@pytest.mark.parametrize(
    "form",
    [form for form in FORMS if not form.timed and form.name != "to_future"],
    ids=lambda form: form.name,
)
def test_a_subject_loses_nothing_by_the_scheduler(form: Form) -> None:
    """Items that RxPY emits by default also come with a valve below, from the first one."""

    async def main(valve: bool) -> list[str]:
        got: list[str] = []
        source: Subject[Any] = Subject()
        loop = asyncio.get_running_loop()
        scheduler = LoopScheduler(loop, valve=Gate(lambda: 1, None)) if valve else None

        def on_next(item: Any) -> None:
            got.append(str(item).split(" object at ")[0])

        def on_error(error: Exception) -> None:
            got.append(repr(error))

        subscription = form.build(source).subscribe(
            on_next, on_error, lambda: got.append("|"), scheduler=scheduler
        )
        # Emit at once: a source that is subscribed to one turn later would miss the item.
        for n in range(3):
            source.on_next(Item(n))
        source.on_completed()
        await asyncio.sleep(1)
        subscription.dispose()
        return got

    assert run_virtual(main(False)) == run_virtual(main(True))


def test_the_operators_of_a_chain_change_nothing_for_each_other() -> None:
    """Demand passes through a long chain of operators."""
    names = (
        "map",
        "filter",
        "start_with",
        "retry",
        "flat_map",
        "merge",
        "share",
        "distinct",
        "take",
    )
    chosen = [form for form in FORMS if form.name in names]

    def build(source: Any) -> Any:
        for form in chosen:
            source = form.build(source)
        return source

    assert len(names) == len(chosen)
    found = finding(Form("chain", build))
    assert (True, TAKES - 1) == (found.seen, found.taken)


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
