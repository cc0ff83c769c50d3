"""Running graphs: forks and joins, bounds, failures, and the end."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.testing import Probe, VirtualTimeLoop


@pytest.fixture(autouse=True)
def loop_factory() -> type[VirtualTimeLoop]:
    """Run every test in virtual time."""
    return VirtualTimeLoop


async def same(*items: Any) -> Any:
    """Return the argument."""
    return items[0] if len(items) == 1 else items


def takes(seconds: float) -> Any:
    """Return a function that takes *seconds* for an item."""

    async def work(*items: Any) -> Any:
        await asyncio.sleep(seconds)
        return items[0] if len(items) == 1 else items

    return work


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def line(*functions: Any, **options: Any) -> rxd.Graph:
    """Return a graph of nodes a, b, c, ..., each connected to the next."""
    g = rxd.Graph()
    names = "abcdefgh"[: len(functions)]
    for name, fn in zip(names, functions, strict=True):
        g.add_node(name, fn, **options)
    for source, target in pairwise(names):
        g.connect(source, target)
    return g


def diamond(join: Any, left: Any = same, right: Any = same, **options: Any) -> rxd.Graph:
    """Return a graph of one node, two branches, and a node that joins them."""
    g = rxd.Graph()
    g.add_node("top", same)
    g.add_node("left", left, **options)
    g.add_node("right", right, **options)
    g.add_node("join", same, inputs=("l", "r"), join=join)
    g.connect("top", "left")
    g.connect("top", "right")
    g.connect("left", "join", to_port="l")
    g.connect("right", "join", to_port="r")
    return g


async def ran(g: rxd.Graph, items: Any, entry: str, last: str) -> tuple[list[Any], list[Any]]:
    """Submit all items, each with itself as its id; return results and failures."""
    got: list[Any] = []
    failed: list[Any] = []
    async with g.run() as r:
        r.results(last).subscribe(got.append)
        r.failures.subscribe(failed.append)
        for item in items:
            await r.submit(entry, item, id=str(item))
    return got, failed


# ------------------------------------------------ values


async def test_a_line() -> None:
    """Items pass one node after the other."""

    async def double(n: int) -> int:
        return 2 * n

    g = line(double, double, double)
    assert ([8 * n for n in range(100)], []) == await ran(g, range(100), "a", "c")


async def test_plain_functions_run_in_threads() -> None:
    """Plain functions do not run in the thread of the loop."""
    threads: set[int] = set()

    def note(n: int) -> int:
        threads.add(threading.get_ident())
        return n

    got, _ = await ran(line(note, note), range(20), "a", "b")
    assert list(range(20)) == got
    assert threading.get_ident() not in threads


async def test_a_graph_runs_any_number_of_times() -> None:
    """A graph may have several runs at the same time; later additions change none of them."""
    g = line(takes(1.0), same)
    one = asyncio.create_task(ran(g, range(5), "a", "b"))
    two = asyncio.create_task(ran(g, range(7), "a", "b"))
    await asyncio.sleep(0)
    g.add_node("c", same)
    g.connect("b", "c")
    assert list(range(5)) == (await one)[0]
    assert list(range(7)) == (await two)[0]
    assert list(range(3)) == (await ran(g, range(3), "a", "c"))[0]


async def test_a_fork_gives_all_to_each_branch() -> None:
    """Each branch gets all items, and merge takes the items of both."""
    got, _ = await ran(diamond("merge"), range(50), "top", "join")
    assert sorted([*range(50), *range(50)]) == sorted(got)


async def test_several_edges_may_lead_to_one_port() -> None:
    """The edges of one port are merged."""
    g = line(same, same)
    g.add_node("c", same)
    g.connect("a", "c")
    g.connect("b", "c")
    got, _ = await ran(g, range(30), "a", "c")
    assert sorted([*range(30), *range(30)]) == sorted(got)


async def test_outputs_by_name() -> None:
    """A port that the dict lacks emits nothing."""

    async def split(n: int) -> dict[str, int]:
        return {} if n == 5 else {"even" if n % 2 == 0 else "odd": n}

    g = rxd.Graph()
    g.add_node("split", split, outputs=("odd", "even"))
    g.add_node("odd", same)
    g.connect("split", "odd", from_port="odd")
    odd: list[int] = []
    even: list[int] = []
    async with g.run() as r:
        r.results("odd").subscribe(odd.append)
        r.results("split", "even").subscribe(even.append)
        for n in range(10):
            await r.submit("split", n)
    assert [1, 3, 7, 9] == odd
    assert [0, 2, 4, 6, 8] == even


@pytest.mark.parametrize("wrong", [5, {"x": 1}])
async def test_results_must_fit_the_outputs(wrong: Any) -> None:
    """If they do not, the item fails; a replacement must fit too."""

    async def work(n: int) -> Any:
        if n == 2:
            raise ValueError(n)
        return wrong if n == 1 else {"p": n}

    g = rxd.Graph()
    g.add_node("a", work, outputs=("p", "q"), on_error=lambda _, e: wrong)
    failed: list[rxd.TaskExecutionError] = []
    got: list[int] = []
    async with g.run() as r:
        r.failures.subscribe(failed.append)
        r.results("a", "p").subscribe(got.append)
        for n in range(4):
            await r.submit("a", n, id=str(n))
    assert [0, 3] == got
    assert ["1", "2"] == [failure.task_id for failure in failed]
    assert all(isinstance(failure.__cause__, rxd.ConfigError) for failure in failed)


# ------------------------------------------------ joins


async def test_zip_pairs_in_order() -> None:
    """The pairs are right even if one branch is slow, concurrent, and ordered."""
    delays = iter(range(100, 0, -1))

    async def later(n: int) -> int:
        await asyncio.sleep(next(delays))
        return -n

    g = diamond("zip", right=later, max_concurrent=8, ordered=True)
    got, failed = await ran(g, range(60), "top", "join")
    assert [(n, -n) for n in range(60)] == got
    assert [] == failed


@pytest.mark.parametrize("on_error", ["stop", "skip"])
async def test_a_failed_item_keeps_its_place(on_error: Any) -> None:
    """The item is dropped from the other branch too, and all others are paired correctly."""

    async def picky(n: int) -> int:
        if n % 40 < 30:
            raise ValueError(n)
        return n

    g = diamond("zip", right=picky, max_concurrent=4, ordered=True, on_error=on_error)
    with capture_logs():
        got, failed = await ran(g, range(200), "top", "join")
    assert [(n, n) for n in range(200) if n % 40 >= 30] == got
    told = [n for n in range(200) if n % 40 < 30] if on_error == "stop" else []
    assert [("right", str(n)) for n in told] == [(f.stage, f.task_id) for f in failed]


async def test_zip_reports_items_without_a_partner() -> None:
    """Items at the end of the longer side, and those whose partner failed, are failures."""

    async def picky(n: int) -> int:
        if n == 1:
            raise ValueError(n)
        return n

    g = rxd.Graph()
    g.add_node("long", same)
    g.add_node("short", picky)
    g.add_node("join", same, inputs=("l", "s"), join="zip")
    g.connect("long", "join", to_port="l")
    g.connect("short", "join", to_port="s")
    got: list[Any] = []
    failed: list[Any] = []
    async with g.run() as r:
        r.results("join").subscribe(got.append)
        r.failures.subscribe(failed.append)
        for n in range(10):
            await r.submit("long", n, id=f"l{n}")
        for n in range(3):
            await r.submit("short", n, id=f"s{n}")
    assert [(0, 0), (2, 2)] == got
    alone = [f for f in failed if f.stage == "join"]
    assert ["l1", *(f"l{n}" for n in range(3, 10))] == [f.task_id for f in alone]
    assert all(isinstance(f.__cause__, rxd.TaskRejectedError) for f in alone)
    assert ["s1"] == [f.task_id for f in failed if f.stage == "short"]


async def test_ids_are_kept() -> None:
    """One item on two ways keeps its id; a tuple of different items has their joined ids."""
    g = diamond("zip")

    async def fail(*_: Any) -> None:
        raise ValueError

    g.add_node("other", same)
    g.add_node("fail", fail, inputs=("x", "y"), join="zip")
    g.connect("join", "fail", to_port="x")
    g.connect("other", "fail", to_port="y")
    failed: list[rxd.TaskExecutionError] = []
    async with g.run() as r:
        r.failures.subscribe(failed.append)
        await r.submit("top", 1, id="one")
        await r.submit("other", 2, id="two")
    assert ["one+two"] == [failure.task_id for failure in failed]


async def test_latest() -> None:
    """The join emits a tuple for each item, once all inputs have one."""
    g = rxd.Graph()
    g.add_node("fast", same)
    g.add_node("slow", same)
    g.add_node("join", same, inputs=("f", "s"), join="latest")
    g.connect("fast", "join", to_port="f")
    g.connect("slow", "join", to_port="s")
    got: list[Any] = []
    async with g.run() as r:
        r.results("join").subscribe(got.append)
        for node, item in [("fast", 1), ("fast", 2), ("slow", "a"), ("fast", 3), ("slow", "b")]:
            await r.submit(node, item)
            await asyncio.sleep(1)
    assert [(2, "a"), (3, "a"), (3, "b")] == got


async def test_latest_of_a_side_that_ends_without_an_item() -> None:
    """The other side runs to its end."""
    g = diamond("latest", right=takes(0.0))
    g.add_node("none", same)
    g.add_node("never", same, inputs=("x", "y"), join="latest")
    g.connect("join", "never", to_port="x")
    g.connect("none", "never", to_port="y")
    got, failed = await ran(g, range(100), "top", "join")
    assert (99, 99) == got[-1]
    assert [] == failed


async def test_merge_takes_turns() -> None:
    """A busy input does not starve another one."""
    g = rxd.Graph()
    g.add_node("busy", same)
    g.add_node("rare", same)
    g.add_node("join", takes(1.0))
    g.connect("busy", "join")
    g.connect("rare", "join")
    got: list[Any] = []
    async with g.run() as r:
        r.results("join").subscribe(got.append)
        for n in range(20):
            await r.submit("busy", n)
        await r.submit("rare", "here")
    assert got.index("here") <= 5


# ------------------------------------------------ bounds


async def test_a_slow_branch_bounds_what_is_held() -> None:
    """The edge of the slow branch fills, the fork pauses, and submit waits."""
    begun = {"top": 0, "fast": 0, "slow": 0}

    def counted(name: str, seconds: float) -> Any:
        async def work(n: int) -> int:
            begun[name] += 1
            await asyncio.sleep(seconds)
            return n

        return work

    g = rxd.Graph()
    g.add_node("top", counted("top", 0.001), max_concurrent=2, queue_size=3)
    g.add_node("fast", counted("fast", 0.001), max_concurrent=2, queue_size=4)
    g.add_node("slow", counted("slow", 10.0), max_concurrent=1, queue_size=5)
    g.connect("top", "fast")
    g.connect("top", "slow")
    submitted = 0
    async with g.run() as r:
        for n in range(60):
            await r.submit("top", n)
            submitted += 1
            # The queue of the slow node, two in progress at top, one in the fork, one in progress.
            assert begun["top"] - begun["slow"] <= 5 + 2 + 1 + 1
            # Some may have left the queue but not begun.
            assert submitted - begun["top"] <= 3 + 2
    assert {"top": 60, "fast": 60, "slow": 60} == begun


async def test_other_branches_go_on() -> None:
    """Only the entry of the slow branch is held up; nodes behind another entry go on."""
    g = rxd.Graph()
    g.add_node("a", same, queue_size=2)
    g.add_node("stuck", takes(1000.0), queue_size=2)
    g.add_node("b", same, queue_size=2)
    g.add_node("free", takes(1.0), queue_size=2)
    g.connect("a", "stuck")
    g.connect("b", "free")
    g.connect("b", "stuck", overflow="drop_newest")
    times: list[float] = []
    with capture_logs():
        async with g.run() as r:
            r.results("free").subscribe(lambda _: times.append(now()))
            feeding = asyncio.create_task(_submit(r, "a", 10))
            await _submit(r, "b", 50)
            assert not feeding.done()
            await feeding
    assert [float(n) for n in range(1, 51)] == times


async def _submit(r: Any, node: str, items: int) -> None:
    for n in range(items):
        await r.submit(node, n)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "error", "callable", "raises"])
async def test_an_edge_that_does_not_wait(policy: str) -> None:
    """The fork keeps the pace of the other edges, and the policy handles items that do not fit."""
    spilt: list[int] = []

    def raises(n: int) -> None:
        raise ValueError(n)

    overflow: Any = {"callable": spilt.append, "raises": raises}.get(policy, policy)
    g = rxd.Graph()
    g.add_node("top", same)
    g.add_node("fast", same)
    g.add_node("slow", takes(10.0), queue_size=2)
    g.connect("top", "fast")
    g.connect("top", "slow", overflow=overflow)
    fast: list[int] = []
    slow: list[int] = []
    failed: list[Any] = []
    with capture_logs():
        async with g.run() as r:
            r.results("fast").subscribe(fast.append)
            r.results("slow").subscribe(slow.append)
            r.failures.subscribe(failed.append)
            for n in range(20):
                await r.submit("top", n)
            await asyncio.sleep(5)
            assert list(range(20)) == fast
    assert ([0, 18, 19] if policy == "drop_oldest" else [0, 1, 2]) == slow
    assert (list(range(3, 20)) if policy == "callable" else []) == spilt
    if policy in ("error", "raises"):
        cause = rxd.BufferOverflowError if policy == "error" else ValueError
        assert list(range(3, 20)) == [failure.item for failure in failed]
        assert {cause} == {type(failure.__cause__) for failure in failed}
        assert {"slow"} == {failure.stage for failure in failed}
    else:
        assert [] == failed


async def test_a_slow_reader_holds_up_the_node() -> None:
    """The node then holds up submit, and nothing is lost."""
    g = line(same, same, queue_size=2)
    async with g.run() as r:
        probe = Probe(room=0).watch(r.results("b"))
        feeding = asyncio.create_task(_submit(r, "a", 500))
        await asyncio.sleep(10)
        assert not feeding.done()
        probe.open()
        await feeding
    assert list(range(500)) == probe.items
    assert 0 == probe.unasked
    assert probe.completed


# ------------------------------------------------ failures


async def test_a_failure_is_emitted_and_harms_no_other_item() -> None:
    """The failure has the node, the id, the item and the cause; other items are not affected."""

    async def picky(n: int) -> int:
        if n % 3 == 0:
            raise ValueError(n)
        return n

    got, failed = await ran(line(same, picky, same), range(10), "a", "c")
    assert [1, 2, 4, 5, 7, 8] == got
    assert [("b", "0"), ("b", "3"), ("b", "6"), ("b", "9")] == [
        (failure.stage, failure.task_id) for failure in failed
    ]
    assert all(isinstance(failure, rxd.TaskExecutionError) for failure in failed)
    assert [0, 3, 6, 9] == [failure.__cause__.args[0] for failure in failed]


async def test_failures_without_a_subscriber() -> None:
    """Failures without a subscriber are logged."""

    async def fail(_: int) -> None:
        raise ValueError

    with capture_logs() as logs:
        async with line(fail).run() as r:
            await r.submit("a", 1, id="x")
    assert [("item_failed", "a", "x")] == [(e["event"], e["stage"], e["item"]) for e in logs]


async def test_options_of_a_node() -> None:
    """Timeouts, attempts and replacements work as for stages."""
    tries = 0

    async def flaky(n: int) -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError
        return n

    g = rxd.Graph()
    g.add_node("retry", flaky, backoff=rxd.Backoff(first=1.0, attempts=3))
    g.add_node("slow", takes(100.0), timeout=2.0, on_error=lambda item, error: (item, error))
    g.connect("retry", "slow")
    ((item, error),), failed = await ran(g, [7], "retry", "slow")
    assert 7 == item
    assert isinstance(error, rxd.ItemTimeoutError)
    assert [] == failed
    assert 3 == tries


# ------------------------------------------------ the end


async def test_leaving_normally_finishes_all() -> None:
    """The nodes finish in their order, however long it takes."""
    done: list[Any] = []

    def work(name: str) -> Any:
        async def fn(n: int) -> int:
            await asyncio.sleep(3.0)
            done.append((name, n))
            return n

        return fn

    async with line(work("a"), work("b"), work("c")).run() as r:
        for n in range(10):
            await r.submit("a", n)
    assert {(name, n) for name in "abc" for n in range(10)} == set(done)
    assert (10 + 2) * 3.0 == now()


@pytest.mark.parametrize("when", [0.0, 0.5, 1.0, 1.5, 2.5])
async def test_leaving_by_an_exception_cancels(when: float) -> None:
    """Leaving waits for coroutines that end slowly."""
    running = 0

    async def work(n: int) -> int:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(1.0)
        finally:
            try:
                await asyncio.sleep(0.25)
            finally:
                running -= 1
        return n

    ended: list[Exception] = []
    run = line(work, work, work, max_concurrent=2).run()
    with pytest.raises(LookupError):  # noqa: PT012
        async with run as r:
            r.results("c").subscribe(on_error=ended.append)
            for n in range(10):
                await r.submit("a", n)
            await asyncio.sleep(when)
            raise LookupError
    assert 0 == running
    assert [LookupError] == [type(error) for error in ended]
    with pytest.raises(rxd.TaskRejectedError, match="closed"):
        await run.submit("a", 1)


async def test_cancelled_while_draining() -> None:
    """The running items are cancelled."""

    async def main() -> None:
        async with line(takes(100.0)).run() as r:
            await r.submit("a", 1)

    task = asyncio.create_task(main())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 1.0 == now()


async def test_drain_with_a_timeout() -> None:
    """``drain`` returns False if something had to be cancelled, else True."""
    async with line(takes(10.0), same).run() as r:
        await r.submit("a", 1)
        assert not await r.drain(1.0)
        assert not await r.drain()
    async with line(takes(10.0), same).run() as r:
        await r.submit("a", 1)
        assert await r.drain(20.0)
        with pytest.raises(rxd.TaskRejectedError):
            await r.submit("a", 2)


async def test_submit_waits_and_may_be_cancelled() -> None:
    """A cancelled submit puts no item in; if the run ends meanwhile, the item is refused."""
    got: list[int] = []
    waiting = late = asyncio.create_task(asyncio.sleep(0, ""))
    refused: list[asyncio.Task[str]] = []
    with pytest.raises(LookupError):  # noqa: PT012
        async with line(takes(10.0), queue_size=1).run() as r:
            r.results("a").subscribe(got.append, on_error=lambda _: None)
            await r.submit("a", 0)
            await asyncio.sleep(0)
            await r.submit("a", 1)
            waiting = asyncio.create_task(r.submit("a", 2))
            await asyncio.sleep(1)
            waiting.cancel()
            late = asyncio.create_task(r.submit("a", 3))
            await asyncio.sleep(20)
            refused = [asyncio.create_task(r.submit("a", n)) for n in (4, 5, 6)]
            await asyncio.sleep(0)
            raise LookupError
    assert [0, 1] == got
    assert waiting.cancelled()
    assert isinstance(await late, str)
    ends = await asyncio.gather(*refused, return_exceptions=True)
    assert isinstance(ends[-1], rxd.TaskRejectedError)


async def test_what_a_run_refuses() -> None:
    """Unknown nodes and ports are refused, and so is use outside of the block."""
    g = line(same, same)
    g.add_node("two", same, outputs=("p", "q"))
    run = g.run()
    with pytest.raises(rxd.TaskRejectedError, match="entered first"):
        await run.submit("a", 1)
    with pytest.raises(rxd.ConfigError, match="entered before"):
        await run.drain()
    async with run as r:
        with pytest.raises(rxd.ConfigError, match=r"^node must be an entry, one of a, two, got"):
            await r.submit("b", 1)
        with pytest.raises(rxd.ConfigError, match=r"^id must"):
            await r.submit("a", 1, id="")
        with pytest.raises(rxd.ConfigError, match=r"^node must be one of a, b, two, got 'x'"):
            r.results("x")
        with pytest.raises(rxd.ConfigError, match=r"^port must be one of p, q, got None"):
            r.results("two")
        with pytest.raises(rxd.ConfigError, match=r"^port must be one of out, got 'x'"):
            r.results("a", "x")
        with pytest.raises(rxd.ConfigError, match=r"^timeout must"):
            await r.drain(-1)
    with pytest.raises(rxd.ConfigError, match="entered once"):
        await run.__aenter__()


async def test_what_ends_the_whole_run() -> None:
    """An error that belongs to no item, such as one of the limit, ends the run."""

    class Broken(rxd.AdaptiveLimit):
        def ended(self, *args: Any, **kwargs: Any) -> None:
            raise LookupError

    g = rxd.Graph()
    g.add_node("a", same, max_concurrent=Broken())
    g.add_node("b", takes(100.0))
    with pytest.raises(LookupError):  # noqa: PT012
        async with g.run() as r:
            await r.submit("b", 1)
            await r.submit("a", 1)
    assert 0.0 == now()


async def test_leaving_while_a_drain_times_out() -> None:
    """Both wait for the cancelled coroutines, and both see their end."""

    async def lasting(_: int) -> None:
        try:
            await asyncio.sleep(1000.0)
        finally:
            await asyncio.sleep(5.0)

    g = rxd.Graph()
    g.add_node("a", lasting)
    async with g.run() as r:
        await r.submit("a", 1)
        await asyncio.sleep(0)
        draining = asyncio.create_task(r.drain(timeout=1.0))
    assert not (await asyncio.wait({draining}, timeout=10.0))[1]
    assert draining.result() is False
