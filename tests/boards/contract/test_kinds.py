"""Claims of some kinds: the best of these first; what nobody here knows waits for others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.errors import ConfigError
from rxdispatch.results import KindState
from rxdispatch.task import Task
from tests.boards.contract.test_events import heard
from tests.boards.places import Place, counts, until


def tasks(kinds: str, **options: Any) -> list[Task[Any]]:
    """Return a task for each letter, with the letter as its kind and its place as its id."""
    return [Task(n, id=f"{n}{kind}", kind=kind, **options) for n, kind in enumerate(kinds)]


async def claimed(board: Board[Any], limit: int, **options: Any) -> list[str]:
    """Claim, and return the ids."""
    return [claim.task.id for claim in await board.claim(limit, **options)]


async def test_best_first_across_kinds(place: Place) -> None:
    """Priority comes first, then the order of submission, whatever the kinds."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(tasks("abcab"))
        await board.submit([Task(0, id="high-b", kind="b", priority=1)])
        await board.submit([Task(0, id="low-a", kind="a", priority=-1)])
        assert ["high-b", "0a", "1b"] == await claimed(board, 3, kinds=["a", "b"])
        assert ["3a", "4b", "low-a"] == await claimed(board, 9, kinds=["b", "a"])
        assert [] == await claimed(board, 9, kinds=["a", "b"])
        assert ["2c"] == await claimed(board, 9, kinds=["c"])


async def test_unfinished_tasks_of_each_kind(place: Place) -> None:
    """Scheduled, ready and claimed tasks count, also those that wait for others; dead ones not."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        assert {} == await other.kinds()
        await board.submit(tasks("bxaxabx"))
        await board.submit([Task(0, id="later", kind="ä" * 200, delay=100.0), Task(0), Task(0)])
        assert ["2a"] == await claimed(board, 1, kinds=["a"])
        expected = {"x": 3, "a": 2, "b": 2, "default": 2, "ä" * 200: 1}
        for handle in (board, other):
            found = await handle.kinds()
            assert list(expected) == list(found)
            assert expected == {kind: state.unfinished for kind, state in found.items()}
        done, dead = await board.claim(2, kinds=["x"])
        await board.settle([done.done(), dead.dead("no")])
        assert [True, True] == await board.cancel(["0b", "5b"])
        await board.settle([claim.done() for claim in await board.claim(9, kinds=["default"])])
        assert [("a", 2), ("x", 1), ("ä" * 200, 1)] == [
            (kind, state.unfinished) for kind, state in (await other.kinds()).items()
        ]
        assert 3 == await board.redrive()
        assert 2 == (await other.kinds())["b"].unfinished


async def test_default_tasks_only(place: Place) -> None:
    """A board without other kinds counts its tasks, whatever their marks."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0), Task(0), Task(0, delay=100.0)])
        await board.claim(1)
        assert {"default": KindState(3, paused=False)} == await bench.elsewhere().kinds()


async def test_which_kinds_are_paused(place: Place) -> None:
    """A pause of the whole board does not count, and a kind without tasks is not listed."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit([*tasks("xay"), Task(0)])
        for kind in ("x", "default", "none"):
            await board.pause(kind=kind)
        await board.pause()

        async def paused() -> dict[str, bool]:
            return {kind: state.paused for kind, state in (await other.kinds()).items()}

        assert {"x": True, "default": True, "a": False, "y": False} == await paused()
        await board.resume(kind="x")
        assert {"x": False, "default": True, "a": False, "y": False} == await paused()


async def test_an_undecodable_task_has_its_kind(place: Place) -> None:
    """Its dead letter and the event of its death have it, though its payload is unreadable."""
    async with place.bench() as bench:
        plain, typed = bench.board(), bench.elsewhere(payload=int)
        await plain.submit([Task("no", id="x", kind="x"), Task("no", id="plain")])
        async with heard(bench, plain) as events:
            assert [] == await typed.claim(9)
            await typed._intakes.finished()
            await until(lambda: 2 == sum(event.kind == "dead" for event in events))
        expected = [("plain", "default", "undecodable"), ("x", "x", "undecodable")]
        ends = [event for event in events if event.kind == "dead"]
        assert expected == sorted((end.task_id, end.task_kind, end.reason) for end in ends)
        for board in (plain, typed, bench.board()):
            letters = [letter async for letter in board.dead_letters()]
            found = [(letter.task.id, letter.task.kind, letter.reason) for letter in letters]
            assert expected == sorted(found)


async def test_a_task_keeps_its_kind(place: Place) -> None:
    """A claim, a dead letter and a repeated claim all have it."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="x", kind="ä" * 200), Task(0, id="y")])
        (claim,) = await board.claim(1, kinds=["ä" * 200])
        assert "ä" * 200 == claim.task.kind
        await board.settle([claim.dead("no")])
        (letter,) = [letter async for letter in board.dead_letters()]
        assert "ä" * 200 == letter.task.kind
        (plain,) = await board.claim(1, kinds=["default"])
        assert "default" == plain.task.kind


async def test_what_nobody_knows_waits(place: Place) -> None:
    """Many tasks of other kinds neither hide what is behind them nor are lost."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n, id=f"x{n}", kind="x") for n in range(2500)])
        await board.submit(tasks("ab"))
        found: list[str] = []
        async with asyncio.timeout(30.0):
            while len(found) < 2:
                found += await claimed(board, 5, kinds=["a", "b"])
        assert ["0a", "1b"] == found
        assert (0, 2500, 2, 0, 0) == await counts(board)
        ids: list[str] = []
        while some := await claimed(bench.elsewhere(), 1000, kinds=["x"]):
            ids += some
        assert [f"x{n}" for n in range(2500)] == ids


async def test_all_kinds_include_those_that_waited(place: Place) -> None:
    """A claim without kinds takes everything, in order."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(tasks("xaxbxa"))
        assert ["1a"] == await claimed(board, 1, kinds=["a", "b"])
        await board.submit([Task(0, id="late-x", kind="x")])
        assert ["0x", "2x", "3b", "4x", "5a", "late-x"] == await claimed(board, 9)


@pytest.mark.parametrize("how", ["release", "retry", "lapse", "redrive", "delay", "cancel"])
async def test_a_task_that_comes_back(place: Place, how: str) -> None:
    """Its kind decides again who gets it."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=5)
        await board.submit(tasks("xa"))
        assert [] == await claimed(board, 1, kinds=["none"])
        (claim,) = await board.claim(1, kinds=["x"], lease=10.0)
        match how:
            case "release":
                await board.settle([claim.release()])
            case "retry":
                await board.settle([claim.retry("no")])
            case "delay":
                await board.settle([claim.retry("no", delay=5.0)])
                await bench.later(10)
            case "lapse":
                await bench.later(15)
            case "redrive":
                await board.settle([claim.dead("no")])
                assert 1 == await board.redrive()
            case _:
                await board.settle([claim.release()])
                assert [] == await claimed(board, 1, kinds=["none"])
                assert [True] == await board.cancel("0x")
                assert (0, 1, 0, 0, 1) == await counts(board)
                assert 1 == await board.redrive()
        assert ["1a"] == await claimed(board, 9, kinds=["a"])
        assert [] == await claimed(board, 9, kinds=["a"])
        assert ["0x"] == await claimed(board, 9, kinds=["x", "a"])


async def test_states_of_what_waits(place: Place) -> None:
    """Looking, claiming by id, ttl and lag see a task that waits for others."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(tasks("xxx", ttl=100.0))
        assert [] == await claimed(board, 9, kinds=["a"])
        state = await board.get("1x")
        assert state is not None
        assert "READY" == state.status
        assert ["1x"] == await claimed(board, 9, ids=["1x"], lease=500.0)
        await bench.later(20)
        assert await board.lag() >= 15
        await bench.later(100)
        assert [] == await claimed(board, 9, kinds=["a"])
        assert (0, 0, 1, 0, 2) == await counts(board)


async def test_suspects_of_other_kinds(place: Place) -> None:
    """A task with a crash behind it waits for workers that know its kind, and hides nothing."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=9)
        await board.submit(tasks("xxxxxxxxxxa"))
        assert 11 == len(await board.claim(11, lease=10.0))
        await bench.later(15)
        assert ["10a"] == await claimed(board, 9, kinds=["a"])
        found = await claimed(bench.elsewhere(), 9, kinds=["x"], worker="other")
        assert ["0x", "1x", "2x", "3x"] == found


async def test_a_suspect_behind_many_of_another_kind(place: Place) -> None:
    """A claim that has not seen all that is better does not take it first."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=9)
        await board.submit(Task(0, id="suspect", kind="a"))
        assert ["suspect"] == await claimed(board, 1, lease=10.0)
        await bench.later(15)
        await board.submit([Task(n, id=f"x{n}", kind="x", priority=2) for n in range(1500)])
        await board.submit(Task(0, id="better", kind="a", priority=1))
        assert ["better"] == await claimed(board, 1, kinds=["a"])
        assert ["suspect"] == await claimed(board, 1, kinds=["a"])


async def test_lag_of_a_low_priority_that_waits(place: Place) -> None:
    """The oldest task counts, also behind many newer ones with a higher priority."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="old", kind="x"))
        await bench.later(20)
        await board.submit([Task(n, id=f"{n}", kind="x", priority=1) for n in range(20)])
        assert [] == await claimed(board, 9, kinds=["a"])
        assert 15 <= await board.lag() <= 25


async def test_a_settlement_given_twice(place: Place) -> None:
    """It counts once, so the kind still has an unfinished task."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(tasks("xx"))
        one, two = await board.claim(2)
        await board.settle([one.done(), one.done()])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await board.join(kinds=["x"])
        await board.settle([two.done()])
        await board.join(kinds=["x"])


async def test_a_paused_kind(place: Place) -> None:
    """Nobody gets its tasks until it is resumed; each resume lifts its own pause."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit(tasks("xaxa"))
        await board.pause(kind="x")
        assert ["1a"] == await claimed(other, 1)
        assert [] == await claimed(other, 9, kinds=["x"])
        assert [] == await claimed(other, 9, ids=["0x"])
        await board.pause()
        await board.resume(kind="x")
        assert [] == await claimed(other, 9)
        await board.pause(kind="x")
        await board.resume()
        assert ["3a"] == await claimed(other, 9)
        await other.pause(kind="x")
        await other.resume(kind="x")
        assert ["0x", "2x"] == await claimed(board, 9)


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of claims looks only when a hint tells it to."""
    monkeypatch.setattr("rxdispatch.operators.tasks._claim.POLL", 1e6)


@pytest.mark.usefixtures("no_looks")
async def test_a_resumed_kind_wakes_workers(place: Place) -> None:
    """A stream of claims gets the tasks without waiting for its next look."""
    async with place.bench() as bench:
        board = bench.board()
        await board.pause(kind="x")
        await board.submit(tasks("xx"))
        found: list[str] = []
        with board.claims(kinds=["x"]).subscribe(lambda claim: found.append(claim.task.id)):
            await asyncio.sleep(0.05)
            assert [] == found
            await bench.elsewhere().resume(kind="x")
            await until(lambda: ["0x", "1x"] == found)
        await board._intakes.finished()


@pytest.mark.usefixtures("no_looks")
async def test_streams_of_kinds(place: Place) -> None:
    """Each stream is woken for its kinds, also while tasks of other kinds are ready."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        ours: list[str] = []
        theirs: list[str] = []
        with (
            board.claims(kinds=["a"]).subscribe(lambda claim: ours.append(claim.task.id)),
            other.claims(kinds=["b"]).subscribe(lambda claim: theirs.append(claim.task.id)),
        ):
            for n in range(5):
                await board.submit([Task(0, id=f"x{n}", kind="x"), Task(0, id=f"a{n}", kind="a")])
                await other.submit(Task(0, id=f"b{n}", kind="b"))
                await until(lambda n=n: (n + 1, n + 1) == (len(ours), len(theirs)))  # type: ignore[misc]
        assert [f"a{n}" for n in range(5)] == ours
        assert [f"b{n}" for n in range(5)] == theirs
        await board._intakes.finished()
        await other._intakes.finished()


async def test_joined_of_kinds(place: Place) -> None:
    """Joining some kinds does not wait for tasks of others, claimed or scheduled ones included."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(tasks("axay"))
        await board.submit([Task(0, id="later", kind="x", delay=100.0)])
        await board.join(kinds=["none"])
        joined = asyncio.create_task(board.join(kinds=["a", "none"]))
        found: list[str] = []

        def take(claim: Any) -> None:
            found.append(claim.task.id)
            board._intakes.post([claim.done()])

        ended = asyncio.get_running_loop().create_future()
        board.claims(kinds=["a"], until="joined").subscribe(
            take, ended.set_exception, lambda: ended.set_result(None)
        )
        async with asyncio.timeout(30.0):
            await ended
            await joined
        assert ["0a", "2a"] == found
        assert (1, 2, 0, 2, 0) == await counts(board)


async def test_a_kind_waits_for_each_state(place: Place) -> None:
    """Scheduled, ready and claimed tasks of a kind are unfinished; done and dead ones are not."""
    async with place.bench() as bench:
        board = bench.board()

        async def joined() -> bool:
            try:
                async with asyncio.timeout(0.15):
                    await board.join(kinds=["a"])
            except TimeoutError:
                return False
            return True

        assert await joined()
        await board.submit([Task(0, id="a", kind="a", delay=5.0), Task(0, id="x", kind="x")])
        assert not await joined()
        await bench.later(10)
        assert not await joined()
        (claim,) = await board.claim(1, kinds=["a"])
        assert not await joined()
        await board.settle([claim.retry("no")])
        assert not await joined()
        (claim,) = await board.claim(1, kinds=["a"])
        await board.settle([claim.dead("no")])
        assert await joined()
        await board.redrive()
        assert not await joined()
        (claim,) = await board.claim(1, kinds=["a"])
        await board.settle([claim.done()])
        assert await joined()


@pytest.mark.parametrize(
    ("kinds", "rule"),
    [
        ("a", r"kinds must be an iterable of str, or None for all, got 'a'"),
        (5, r"kinds must be an iterable of str, or None for all, got 5"),
        ([], r"kinds must not be empty; None means all, got \[\]"),
        (["a", 1], r"kind must be a str that is not empty, got 1"),
        (["a", ""], r"kind must be a str that is not empty, got ''"),
        (["a" * 201], r"kind must be at most 200 characters, got 201"),
    ],
)
async def test_bad_kinds(place: Place, kinds: Any, rule: str) -> None:
    """They are refused at the call."""
    async with place.bench() as bench:
        board = bench.board()
        with pytest.raises(ConfigError, match=f"^{rule}$"):
            board.claims(kinds=kinds)
        for call in (lambda: board.claim(1, kinds=kinds), lambda: board.join(kinds=kinds)):
            with pytest.raises(ConfigError, match=f"^{rule}$"):
                await call()


async def test_other_bad_arguments(place: Place) -> None:
    """Kinds with ids, and kinds that cannot be paused."""
    async with place.bench() as bench:
        board = bench.board()
        with pytest.raises(ConfigError, match=r"^kinds must be None when ids are given, got"):
            await board.claim(1, ids=["a"], kinds=["a"])
        for call in (board.pause, board.resume):
            with pytest.raises(ConfigError, match=r"^kind must be a str that is not empty, got 5$"):
                await call(kind=5)  # type: ignore[arg-type]


async def test_events_have_the_kind(place: Place) -> None:
    """Each event of a task has the task's kind, whatever caused it."""
    async with place.bench() as bench:
        board, other = bench.board(max_crashes=1, dead_limit=1), bench.elsewhere()
        async with heard(bench, other) as events:
            await board.submit([Task(0, id="x", kind="x"), Task(0, id="plain")])
            (one,) = await board.claim(1, kinds=["x"], lease=10.0)
            await bench.later(15)
            (two,) = await board.claim(1, kinds=["x"])
            await board.settle([two.retry("no")])
            (three,) = await board.claim(1, kinds=["x"])
            await board.settle([three.release()])
            assert [True] == await board.cancel("x")
            assert 1 == await board.redrive()
            (four,) = await board.claim(1, kinds=["x"])
            await board.settle([four.done()])
            (plain,) = await board.claim(1)
            await board.settle([plain.done()])
            await until(lambda: "plain" == events[-1].task_id and "done" == events[-1].kind)
        assert one.token < two.token
        seen = [(event.kind, event.task_kind) for event in events]
        kinds = ["submitted", "claimed", "crashed", "claimed", "retried", "claimed", "released"]
        kinds += ["dead", "redriven", "claimed", "done"]
        assert [(kind, "x") for kind in kinds] == [pair for pair in seen if pair[1] == "x"]
        assert ["submitted", "claimed", "done"] == [k for k, task in seen if task == "default"]
