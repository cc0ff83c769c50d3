"""Producers in several threads lose no place and no item."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd

ITEMS = 3000

Make = Callable[[], "rxd.Ingress[int]"]


@pytest.fixture(autouse=True)
def quick_switches() -> Generator[None]:
    """Make threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hammer(make: Make, subscribe: bool = True) -> tuple[list[int], list[BaseException], int, Any]:
    """Offer from three threads while the loop emits; return the items, the errors, the refusals."""
    errors: list[BaseException] = []
    got: list[int] = []
    refused = 0
    lock = threading.Lock()

    def produce(ingress: rxd.Ingress[int], first: int) -> None:
        nonlocal refused
        for n in range(first, first + ITEMS):
            try:
                taken = ingress.offer_threadsafe(n)
            except BaseException as error:
                errors.append(error)
            else:
                with lock:
                    refused += not taken

    async def main() -> rxd.Ingress[int]:
        ingress = make()
        if subscribe:
            ingress.subscribe(got.append)
        threads = [threading.Thread(target=produce, args=(ingress, n * ITEMS)) for n in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await asyncio.sleep(0)
        if not subscribe:
            ingress.subscribe(got.append)
        await ingress.wait_empty()
        # Every place must be free again.
        assert ingress._free == ingress._size
        return ingress

    with capture_logs():
        ingress = asyncio.run(main())
    return got, errors, refused, ingress


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("kind", [rxd.Ingress[int], rxd.BroadcastIngress[int]])
def test_drop_oldest_never_fails_its_producers(
    size: int, kind: Callable[..., rxd.Ingress[int]]
) -> None:
    """Each item is emitted or counted as dropped; none is doubled or out of order."""
    got, errors, refused, ingress = hammer(lambda: kind(size, overflow="drop_oldest"))
    assert [] == errors
    assert 0 == refused
    assert 3 * ITEMS == len(got) + ingress.dropped
    for first in range(3):
        mine = [n for n in got if n // ITEMS == first]
        assert sorted(set(mine)) == mine


@pytest.mark.parametrize(
    "make",
    [
        lambda: rxd.Ingress[int](2),
        lambda: rxd.PriorityIngress[int](2, key=lambda n: n),
        lambda: rxd.DelayedIngress[int](2),
    ],
    ids=["plain", "priority", "delayed"],
)
def test_what_is_taken_comes_out(make: Make) -> None:
    """With ``"wait"`` each item is refused or emitted."""
    got, errors, refused, _ = hammer(make)
    assert [] == errors
    assert 3 * ITEMS == len(got) + refused
    assert len(got) == len(set(got))


def test_a_place_is_never_free_and_taken_at_once() -> None:
    """While an item leaves, its place is never counted as taken but empty."""
    seen: list[tuple[int, int]] = []

    class Looking(rxd.Ingress[int]):
        def _free_place(self) -> None:
            super()._free_place()
            # The lock is held: another thread would see this state next.
            assert self._lock.locked()
            seen.append((self._free, len(self._queue)))

    async def main() -> None:
        ingress = Looking(2, overflow="drop_oldest")
        ingress.subscribe(lambda _: None)
        await asyncio.sleep(0)
        for n in range(5):
            ingress.offer(n)

    asyncio.run(main())
    assert [(2, 0)] * 5 == seen
