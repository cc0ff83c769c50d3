"""Pipelines with boards between stages: hand-off, claims, releases and kills."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch.testing import run_virtual
from tests.pipelines.stages.pipeline_worker import pipeline
from tests.servers import valkey_server

ROOT = Path(__file__).parents[3]

Outcomes = list[rxd.Outcome[Any, Any]]


async def plus(n: int) -> int:
    """Add one, after a moment."""
    await asyncio.sleep(0.01)
    return n + 1


async def same(n: Any) -> Any:
    """Return the argument."""
    return n


def results(outcomes: Outcomes) -> list[Any]:
    """Return the sorted results."""
    found: list[Any] = [outcome.result for outcome in outcomes]
    return sorted(found)


async def work(p: rxd.Pipeline, name: str, **options: Any) -> Outcomes:
    """Run a stage until its board is empty."""
    outcomes: Outcomes = []
    options = {"until": "joined", **options}
    await rxd.run(p.worker(name, **options).pipe(rx.do_action(outcomes.append)))
    return outcomes


async def test_stages_run_where_they_are_claimed() -> None:
    """Stages run behind two boards, by name, with plain functions and batches; ids are kept."""
    async with rxd.connect("memory://") as hub:

        def thrice(n: int) -> int:
            return 3 * n

        def text(numbers: list[int]) -> list[str]:
            return [str(n) for n in numbers]

        p = rxd.Pipeline(
            rxd.stage(plus),
            rxd.stage(thrice, board="b1"),
            rxd.stage(plus, name="again"),
            rxd.stage(text, board="b2", batch=(4, 0.01)),
            boards=hub.board,
        )
        handed: list[int] = []
        async with p:
            p.results.subscribe(handed.append)
            assert 10 == await p.feed(range(10))
            assert "mine" == await p.submit(10, id="mine")
        assert list(range(1, 12)) == sorted(handed)
        assert ["plus"] == list(p.stats.stages)
        assert (11, 11) == (p.stats.submitted, p.stats.results)
        assert 11 == (await hub.board("b1").counts()).ready
        first = await work(p, "thrice")
        assert sorted(3 * n + 1 for n in range(1, 12)) == results(first)
        state = await hub.board("b2").get("mine")
        assert state is not None
        last = await work(p, "text")
        assert {str(3 * n + 1) for n in range(1, 12)} == {o.result for o in last}
        assert ["34"] == [o.result for o in last if o.claim.task.id == "mine"]
        assert {"text"} == {o.claim.task.kind for o in last}
        assert {"done"} == {o.status for o in first + last}


async def test_an_item_that_was_submitted_to_a_board_is_stored() -> None:
    """An item that is submitted to the first stage's board is stored, and the same id only once."""
    board = rxd.MemoryBoard[Any]("b")
    p = rxd.Pipeline(rxd.stage(same, board=board))
    found: list[Any] = []
    async with p:
        p.results.subscribe(found.append)
        await p.submit(1, id="a")
        assert 1 == (await board.counts()).ready
        await p.submit(1, id="a")
        assert 2 == await p.feed([2, 3])
        assert 3 == (await board.counts()).ready
        with pytest.raises(rxd.CodecError):
            await p.submit(float("nan"))
    with pytest.raises(rxd.TaskRejectedError):
        await p.submit(4)
    assert [1, 1, 2, 3] == found
    assert [1, 2, 3] == results(await work(p, "same"))


def tenfold(numbers: list[int]) -> list[int]:
    """A function that can be pickled."""
    return [10 * n for n in numbers]


@pytest.mark.parametrize("retry", [None, rxd.Backoff(first=0.0, attempts=2)])
@pytest.mark.parametrize("batch", [(3, 0.01), (1, 0.01)])
async def test_stages_behind_a_board_may_run_in_processes(retry: Any, batch: Any) -> None:
    """A result from a process still belongs to its claim."""
    board = rxd.MemoryBoard[Any]("b")
    with ProcessPoolExecutor(1) as pool:
        p = rxd.Pipeline(rxd.stage(tenfold, board=board, batch=batch, backoff=retry, executor=pool))
        async with p:
            await p.feed(range(7))
        assert [0, 10, 20, 30, 40, 50, 60] == results(await work(p, "tenfold"))


async def test_an_item_that_fails_is_dead_on_its_board() -> None:
    """The letter has the cause; redriven, the task runs again. Other items are not affected."""
    board, after = rxd.MemoryBoard[Any]("b"), rxd.MemoryBoard[Any]("c")
    broken = True

    async def picky(n: int) -> int:
        if broken and n == 3:
            raise ValueError(n)
        return n

    p = rxd.Pipeline(
        rxd.stage(same, board=board), rxd.stage(picky), rxd.stage(same, name="end", board=after)
    )
    async with p:
        await p.feed(range(6))
    outcomes = await work(p, "same")
    assert Counter(done=5, dead=1) == Counter(outcome.status for outcome in outcomes)
    (error,) = [outcome.error for outcome in outcomes if outcome.error]
    failure = error.__cause__
    assert isinstance(failure, rxd.StageError)
    assert ("picky", 3, 1) == (failure.stage, failure.item, failure.attempt)
    assert isinstance(failure.__cause__, ValueError)
    assert 5 == (await after.counts()).ready
    broken = False
    assert 1 == await board.redrive()
    assert ["done"] == [outcome.status for outcome in await work(p, "same")]
    assert set(range(6)) == {outcome.result for outcome in await work(p, "end")}


async def test_items_that_fail_can_be_skipped_or_replaced() -> None:
    """The tasks of such items are done."""

    async def odd(n: int) -> int:
        if not n % 2:
            raise ValueError(n)
        return n

    board = rxd.MemoryBoard[Any]("b")
    p = rxd.Pipeline(rxd.stage(odd, board=board, on_error="skip"))
    async with p:
        await p.feed(range(4))
    outcomes = await work(p, "odd")
    assert [("done", None), ("done", 1), ("done", None), ("done", 3)] == [
        (o.status, o.result) for o in sorted(outcomes, key=lambda o: o.claim.task.payload)
    ]
    p = rxd.Pipeline(rxd.stage(odd, board=board, on_error=lambda item, _: -item))
    async with p:
        await p.feed(range(4))
    assert [-2, 0, 1, 3] == results(await work(p, "odd"))


async def test_an_item_that_cannot_be_stored_fails_alone() -> None:
    """The item is a failure here, and a dead task in a worker; the other items go on."""
    boards = rxd.MemoryBoard[Any]("b"), rxd.MemoryBoard[Any]("c")

    async def spoil(n: float) -> float:
        return float("nan") if n in (2.0, 4.0) else n

    p = rxd.Pipeline(
        rxd.stage(same),
        rxd.stage(spoil, board=boards[0]),
        rxd.stage(same, name="end", board=boards[1]),
    )
    failed: list[rxd.StageError] = []
    async with p:
        p.failures.subscribe(failed.append)
        await p.feed([1.0, 2.0, float("inf"), 4.0, 5.0])
    assert [("spoil", float("inf"))] == [(failure.stage, failure.item) for failure in failed]
    assert isinstance(failed[0].__cause__, rxd.CodecError)
    outcomes = await work(p, "spoil")
    assert Counter(done=2, dead=2) == Counter(outcome.status for outcome in outcomes)
    causes = [outcome.error.__cause__ for outcome in outcomes if outcome.error]
    assert ["end", "end"] == [cause.stage for cause in causes if isinstance(cause, rxd.StageError)]
    assert [1.0, 5.0] == results(await work(p, "end"))


def test_boards_that_are_full_or_away_are_waited_for() -> None:
    """Nothing fails and nothing is lost; submit waits too."""

    class Full(rxd.MemoryBoard[Any]):
        refusals = 3

        async def submit(self, tasks: Any) -> rxd.SubmitResult:
            if self.refusals:
                self.refusals -= 1
                if self.refusals == 1:
                    raise rxd.StoreUnavailableError("submit", maybe_executed=True)
                raise rxd.BoardFullError(self.name)
            return await super().submit(tasks)

    async def main() -> None:
        first, second = Full("b"), Full("c")
        p = rxd.Pipeline(rxd.stage(same, board=first), rxd.stage(same, name="end", board=second))
        async with p:
            await p.feed(range(5))
        assert ["done"] * 5 == [outcome.status for outcome in await work(p, "same")]
        assert list(range(5)) == results(await work(p, "end"))

    run_virtual(main())


def test_a_worker_claims_what_it_can_work_on() -> None:
    """The worker also claims one ahead for each slot, or *queue_size*; the rest is for others."""

    async def main() -> None:
        for queue, expected in ((None, 4), (5, 7)):
            board = rxd.MemoryBoard[Any]("b")
            p = rxd.Pipeline(rxd.stage(plus, board=board, max_concurrent=2, queue_size=queue))
            async with p:
                await p.feed(range(50))
            seen: set[int] = set()
            outcomes: Outcomes = []
            with p.worker("plus").subscribe(outcomes.append):
                for _ in range(400):
                    await asyncio.sleep(0.001)
                    seen.add((await board.counts()).claimed)
            assert 50 == len(outcomes)
            assert expected == max(seen)
            await board._intakes.finished()

    run_virtual(main())


def test_a_full_board_holds_up_those_before_it() -> None:
    """A worker claims no more, and submit waits; when there is room again, all items arrive."""

    class Full(rxd.MemoryBoard[Any]):
        full = True

        async def submit(self, tasks: Any) -> rxd.SubmitResult:
            if self.full:
                raise rxd.BoardFullError(self.name)
            return await super().submit(tasks)

    async def main() -> None:
        boards = Full("b"), Full("c")
        p = rxd.Pipeline(
            rxd.stage(plus, max_concurrent=2),
            rxd.stage(same, board=boards[0], max_concurrent=2),
            rxd.stage(same, name="end", board=boards[1]),
        )
        async with p:
            feeding = asyncio.create_task(p.feed(range(2000)))
            await asyncio.sleep(60)
            # The items in progress, the waiting ones, and those of this write and the next.
            assert 256 <= p.stats.submitted <= 2 * 256 + 2 * 16
            boards[0].full = False
            assert 2000 == await feeding
        outcomes: Outcomes = []
        with p.worker("same").subscribe(outcomes.append):
            await asyncio.sleep(300)
            assert (4, 1996) == ((c := await boards[0].counts()).claimed, c.ready)
            assert [] == outcomes
            boards[1].full = False
            await boards[0].join()
        await boards[0]._intakes.finished()
        assert 2000 == (await boards[1].counts()).ready

    run_virtual(main())


@pytest.mark.parametrize("kind", ["memory", "server"])
async def test_leaving_the_hub_finishes_the_items_at_work(kind: str) -> None:
    """The running items are handed off and settled, and the others stay on the board."""
    if kind == "memory":
        await _leave("memory://", None)
        return
    async with valkey_server() as server:
        await _leave(server.target.safe, server.target.safe)


async def _leave(url: str, again: str | None) -> None:
    started = 0

    async def slow(n: int) -> int:
        nonlocal started
        started += 1
        await asyncio.sleep(0.1)
        return n

    p = rxd.Pipeline(
        rxd.stage(slow, board="b", max_concurrent=2), rxd.stage(same, name="end", board="c")
    )
    outcomes: Outcomes = []
    async with rxd.connect(url) as hub:
        await hub.board("b").submit(rxd.Task(n) for n in range(10))
        p.worker("slow", hub.board).subscribe(outcomes.append)
        while started < 2:
            await asyncio.sleep(0.001)
    statuses = Counter(outcome.status for outcome in outcomes)
    assert statuses["done"] >= 2
    assert set(statuses) <= {"done", "released"}
    if again is not None:
        async with rxd.connect(again) as hub:
            counts = await hub.board("b").counts()
            assert (10 - statuses["done"], 0) == (counts.ready, counts.claimed)
            assert statuses["done"] == (await hub.board("c").counts()).ready


def test_two_workers_share() -> None:
    """Each item goes to one of them, and together they need half the time."""

    async def main() -> None:
        board = rxd.MemoryBoard[Any]("b")
        p = rxd.Pipeline(rxd.stage(plus, board=board, max_concurrent=2))
        async with p:
            await p.feed(range(40))
        loop = asyncio.get_running_loop()
        start = loop.time()
        both = await asyncio.gather(work(p, "plus", until="idle"), work(p, "plus", until="idle"))
        assert 40 == len({outcome.claim.task.id for one in both for outcome in one})
        assert 0.1 == pytest.approx(loop.time() - start)

    run_virtual(main())


@pytest.mark.parametrize("moment", [n / 1000 for n in range(0, 60, 3)])
def test_a_worker_that_is_stopped_at_any_moment_loses_nothing(moment: float) -> None:
    """The worker's items are released and run again; all arrive, each id once."""

    async def main() -> None:
        boards = rxd.MemoryBoard[Any]("b"), rxd.MemoryBoard[Any]("c")
        runs: Counter[int] = Counter()

        async def count(n: int) -> int:
            runs[n] += 1
            return await plus(n)

        p = rxd.Pipeline(
            rxd.stage(count, board=boards[0], max_concurrent=3),
            rxd.stage(plus, max_concurrent=2),
            rxd.stage(same, board=boards[1]),
        )
        async with p:
            await p.feed(range(20))
        running = asyncio.create_task(work(p, "count"))
        await asyncio.sleep(moment)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await boards[0]._intakes.finished()
        counts = await boards[0].counts()
        assert (0, 0) == (counts.claimed, counts.dead)
        await work(p, "count")
        ended = await work(p, "same")
        assert list(range(2, 22)) == results(ended)
        assert set(range(20)) == set(runs)
        assert runs.total() <= 20 + 3 + 16 + 3 + 2

    run_virtual(main())


def test_a_worker_that_lost_its_claim_hands_nothing_off() -> None:
    """Only the worker that took over hands the item off, once."""

    async def main() -> None:
        boards = rxd.MemoryBoard[Any]("b"), rxd.MemoryBoard[Any]("c")
        release = asyncio.Event()

        async def slow(n: int) -> int:
            await release.wait()
            return n

        p = rxd.Pipeline(
            rxd.stage(slow, board=boards[0]), rxd.stage(same, name="end", board=boards[1])
        )
        async with p:
            await p.submit(1, id="a")
        outcomes: Outcomes = []
        with p.worker("slow").subscribe(outcomes.append):
            await asyncio.sleep(1)
            assert [True] == await boards[0].cancel("a")
            await asyncio.sleep(60)
            assert ["lost"] == [outcome.status for outcome in outcomes]
            release.set()
            await asyncio.sleep(1)
            assert 0 == (await boards[1].counts()).ready
            assert 1 == await boards[0].redrive("a")
            await asyncio.sleep(1)
        assert ["lost", "done"] == [outcome.status for outcome in outcomes]
        assert 1 == (await boards[1].counts()).ready
        await boards[0]._intakes.finished()

    run_virtual(main())


def test_a_skip_or_failure_of_a_lost_claim_is_ignored() -> None:
    """The handler is no longer waited for."""

    async def main() -> None:
        board = rxd.MemoryBoard[Any]("b")
        release = asyncio.Event()

        async def fail(n: int) -> int:
            await release.wait()
            raise ValueError(n)

        p = rxd.Pipeline(rxd.stage(fail, board=board))
        async with p:
            await p.submit(1, id="a")
        outcomes: Outcomes = []
        with p.worker("fail").subscribe(outcomes.append):
            await asyncio.sleep(1)
            await board.cancel("a")
            await asyncio.sleep(60)
            release.set()
            await asyncio.sleep(1)
        assert ["lost"] == [outcome.status for outcome in outcomes]
        await board._intakes.finished()

    run_virtual(main())


async def test_headers_are_kept() -> None:
    """The next task has the headers of the previous one, so a trace continues."""
    boards = rxd.MemoryBoard[Any]("b"), rxd.MemoryBoard[Any]("c")
    p = rxd.Pipeline(rxd.stage(same, board=boards[0]), rxd.stage(plus, board=boards[1]))
    await boards[0].submit(rxd.Task(1, headers={"traceparent": "x"}))
    await work(p, "same")
    (outcome,) = await work(p, "plus")
    assert {"traceparent": "x"} == dict(outcome.claim.task.headers)


async def test_an_error_of_a_limit_ends_the_worker() -> None:
    """The items of the worker are released."""

    class Broken(rxd.AdaptiveLimit):
        def ended(self, seconds: float, *, in_flight: int, dropped: bool) -> None:
            raise RuntimeError("no limit")

    board = rxd.MemoryBoard[Any]("b")
    p = rxd.Pipeline(rxd.stage(plus, board=board, max_concurrent=Broken(maximum=4)))
    async with p:
        await p.feed(range(3))
    with pytest.raises(RuntimeError, match="no limit"):
        await work(p, "plus")
    await asyncio.sleep(0.01)
    await board._intakes.finished()
    counts = await board.counts()
    assert (3, 0) == (counts.ready, counts.claimed)


async def test_a_drain_leaves_the_rest_on_the_board() -> None:
    """All submitted items are on the board, as ``drain`` does not wait for workers."""
    board = rxd.MemoryBoard[Any]("b")
    p = rxd.Pipeline(rxd.stage(plus), rxd.stage(same, board=board))
    async with p:
        await p.feed(range(30))
        assert await p.drain()
        assert 30 == (await board.counts()).ready


def test_bad_arguments() -> None:
    """Invalid, duplicate or unknown boards, ``ordered``, and stages without a board are refused."""
    board = rxd.MemoryBoard[Any]("b")

    def named(n: int) -> rxd.Stage:
        return rxd.stage(same, name=f"s{n}", board="b")

    with pytest.raises(rxd.ConfigError, match="board must be a board, its name, or None, got 7"):
        rxd.stage(same, board=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(rxd.ConfigError, match="board must"):
        rxd.stage(same, board="")
    with pytest.raises(rxd.ConfigError, match="each board must belong to one stage"):
        rxd.Pipeline(named(1), rxd.stage(same, board=board))
    with pytest.raises(rxd.ConfigError, match="ordered must be False if a stage has a board"):
        rxd.Pipeline(named(1), ordered=True)
    p = rxd.Pipeline(rxd.stage(same), named(1))
    with pytest.raises(rxd.ConfigError, match="boards must be given"):
        p.worker("s1")
    with pytest.raises(rxd.ConfigError, match="name must be the name of a stage with a board"):
        p.worker("same")
    nowhere: Any = "redis://"
    with pytest.raises(rxd.ConfigError, match="boards must be a function"):
        p.worker("s1", nowhere)
    with pytest.raises(rxd.ConfigError, match="boards must be a function"):
        rxd.Pipeline(named(1), boards=nowhere)
    with pytest.raises(rxd.ConfigError, match="name must be one of same, s1"):
        p.worker("s2")
    with pytest.raises(rxd.ConfigError, match="lease"):
        rxd.Pipeline(rxd.stage(same, board=board)).worker("same", lease=0.0)


async def test_a_pipeline_without_boards_cannot_be_entered() -> None:
    """With boards it can be entered later: the failed attempt changed nothing."""
    p = rxd.Pipeline(rxd.stage(same), rxd.stage(plus, board="b"))
    for _ in range(2):
        with pytest.raises(rxd.ConfigError, match="boards must be given"):
            async with p:
                pass


async def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    """Workers of both boards are killed by SIGKILL at random, and every item is stored."""
    path = str(tmp_path / "journal")
    rng = random.Random(5)
    count = 400
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        boards = [hub.board(name, max_crashes=1000) for name in ("enriching", "storing")]
        p = pipeline(path, hub)
        async with p:
            await p.feed(range(count))
        assert count == (await boards[0].counts()).ready
        workers: dict[str, subprocess.Popen[bytes]] = {}
        kills = 0
        try:
            while kills < 6:
                _fill(workers, server.target.safe, path)
                # On a busy machine, all items may be stored before the last kill.
                goal = min(3 * count, _lines(path) + rng.randrange(20, 120))
                while _lines(path) < goal:
                    await asyncio.sleep(0.001)
                for name in rng.choice([["enrich"], ["store"], ["enrich", "store"]]):
                    _end(workers.pop(name))
                    kills += 1
            _fill(workers, server.target.safe, path)
            # The order matters: when the first board is empty, nothing more is handed off.
            for board in boards:
                await board.join()
        finally:
            for process in workers.values():
                _end(process)
        seen = Counter(Path(path).read_text().splitlines())
        expected = {f"stored item {n} enrich polish" for n in range(count)}
        assert expected == {line for line in seen if line.startswith("stored")}
        assert [0, 0] == [(await board.counts()).dead for board in boards]
        # Items run at least once, and only those of a killed process run again.
        assert seen.total() <= 3 * count + 150 * kills


def _lines(path: str) -> int:
    return Path(path).read_text().count("\n") if Path(path).exists() else 0


def _fill(workers: dict[str, subprocess.Popen[bytes]], url: str, path: str) -> None:
    for stage in ("enrich", "store"):
        if stage not in workers:
            workers[stage] = subprocess.Popen(
                [sys.executable, "-m", "tests.pipelines.stages.pipeline_worker", url, stage, path],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.mark.parametrize("first", [False, True])
async def test_a_second_item_of_one_id_is_a_failure(first: bool) -> None:
    """The items may come one by one or in one write, and none vanishes."""
    async with rxd.connect("memory://") as hub:
        stages = [rxd.stage(same, name="check"), rxd.stage(same, name="save", board="orders")]
        failed: list[tuple[str, Any, str]] = []

        def fail(failure: rxd.StageError) -> None:
            failed.append((failure.task_id, failure.item, str(failure.__cause__)))

        got: list[Any] = []
        async with rxd.Pipeline(*stages[first:], boards=hub.board) as p:
            p.results.subscribe(got.append)
            p.failures.subscribe(fail)
            for item in ("paid", "shipped", "returned"):
                await p.submit(item, id="order-1")
            await p.submit("other", id="order-2")
        done = await work(rxd.Pipeline(*stages, boards=hub.board), "save")
    rule = "task refused: board 'orders' has another item of the same id"
    assert ["paid", "other"] == got
    assert [("order-1", "shipped", rule), ("order-1", "returned", rule)] == failed
    assert ["other", "paid"] == results(done)


async def test_an_item_whose_reply_was_lost_is_no_second_one() -> None:
    """The item on the board is the same one, not another with its id."""
    async with rxd.connect("memory://") as hub:
        board = hub.board("b")
        submit, lost = board.submit, [rxd.StoreUnavailableError("submit", maybe_executed=True)]

        async def once_lost(tasks: Any) -> Any:
            answer = await submit(tasks)
            if lost:
                raise lost.pop()
            return answer

        board.submit = once_lost  # type: ignore[method-assign]
        got: list[Any] = []
        async with rxd.Pipeline(rxd.stage(same), rxd.stage(same, name="next", board=board)) as p:
            p.results.subscribe(got.append)
            await p.submit(1, id="a")
        assert ([1], 1) == (got, (await board.counts()).ready)
