"""On a server: where tasks of other kinds stand, and what a claim that comes across them costs."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from rxdispatch.task import Task
from tests.boards.model import Entry
from tests.boards.places import Bench, Place, counts
from tests.boards.test_machine import LEASES, PRIORITIES, Machine, opened

IDS = [f"{letter}{n}" for n in range(12) for letter in "dxy"]
KIND_OF = {"d": "default", "x": "x", "y": "x\0"}
KINDS = tuple(KIND_OF.values())
WANTED = (None, *([kind] for kind in KINDS), ["x", "x\0"], ["default", "x"])


async def keys(bench: Bench, *names: str) -> list[Any]:
    """Return the values of keys of a board, each as a dictionary of fields or members."""
    found: list[Any] = []
    for name in names:
        hashed = name in {"tasks", "place", "kinds", "meta", "tries"}
        command = ("HGETALL",) if hashed else ("ZRANGE",)
        rest = () if hashed else (0, -1, "WITHSCORES")
        reply = await bench.hub.client.call("look", *command, bench.key(name), *rest)
        found.append(dict(zip(reply[::2], reply[1::2], strict=True)))
    return found


def kind_of(record: bytes) -> bytes:
    """Return the kind before a record."""
    if record[0] > 3:
        return b"default"
    return record[2 : 2 + int.from_bytes(record[:2], "big")]


def list_of(field: bytes) -> list[bytes]:
    """Return the kinds of a field of ``meta``."""
    kinds: list[bytes] = []
    while field:
        end = 2 + int.from_bytes(field[:2], "big")
        kinds.append(field[2:end])
        field = field[end:]
    return kinds


async def check_keys(bench: Bench) -> None:
    """Compare the keys of a board with each other, by the rules of the stored format."""
    tasks, place, kinds, meta, tries = await keys(bench, "tasks", "place", "kinds", "meta", "tries")
    marks = await keys(bench, "ready", "suspects", "sched", "claimed", "dead", "aside")
    *queues, aside = marks
    ready, suspects, sched, _, dead = queues
    stands: dict[bytes, bytes] = {}
    for member in aside:
        length = int.from_bytes(member[:2], "big")
        task_id = member[2 + length + 11 :]
        stands[task_id] = member
        assert kind_of(tasks[task_id]) == member[2 : 2 + length]
        assert (member[2 + length : 3 + length] == b"s") == (
            task_id in tries and tries[task_id][4:8] != bytes(4)
        )
        assert member[2 : 2 + length] in list_of(meta.get(b"aside", b""))
    assert dict.fromkeys(tasks, 1) == dict(Counter(i for mark in (*queues, stands) for i in mark))
    assert {*sched, *stands} == set(place)
    assert stands == {task_id: place[task_id] for task_id in stands}
    assert all(tries[task_id][4:8] != bytes(4) for task_id in suspects)
    assert not [i for i in ready if i in tries and tries[i][4:8] != bytes(4)]
    listed = list_of(meta.get(b"aside", b""))
    assert sorted(set(listed)) == sorted(listed)
    left = Counter(kind_of(record) for task_id, record in tasks.items() if task_id not in dead)
    del left[b"default"]
    assert {kind: b"%d" % count for kind, count in left.items()} == kinds


class Aside(Machine):
    """Many tasks of three kinds; a kind stays paused for some steps, and nothing else looks."""

    def one_thing(self, chance: Random) -> None:
        """Run one step, and check the keys after it."""
        kinds = chance.choice(WANTED)
        match chance.choice("sscccccceeeerxdkkww"):
            case "s":
                found = chance.choices(IDS, k=chance.randint(1, 8))
                options = [chance.choice(PRIORITIES) for _ in found]
                delays = [chance.choice((0.0, 0.0, 0.0, 50.0)) for _ in found]
                ttls = [chance.choice((float("inf"), float("inf"), 350.0)) for _ in found]
                attempts = [chance.choice((1, 2, 5)) for _ in found]
                rows = zip(found, options, delays, ttls, attempts, strict=True)
                self.submit([Entry(*row, kind=KIND_OF[row[0][0]]) for row in rows])
            case "c":
                only = chance.choices(IDS, k=6) if chance.random() < 0.2 else None
                lease, worker = chance.choice(LEASES), chance.choice("uvw")
                self.claim(chance.choice((1, 1, 2, 3, 8)), only, kinds, lease, worker)
            case "e":
                self.settle(chance)
            case "r":
                self.renew(chance, chance.choice(LEASES))
            case "x":
                self.cancel(chance.choices(IDS, k=3))
            case "d":
                self.redrive(chance.choices(IDS, k=4))
            case "k":
                if self.model.paused_kind is not None:
                    self.run(self.board.resume(kind=self.model.paused_kind))
                    self.model.paused_kind = None
                else:
                    self.model.paused_kind = chance.choice(KINDS)
                    self.run(self.board.pause(kind=self.model.paused_kind))
            case _:
                self.wait(chance.choice((100, 100, 400)))
        self.the_same_counts()
        self.run(check_keys(self.bench))


@pytest.mark.parametrize("seed", range(4))
def test_random_steps(server: Place, seed: int) -> None:
    """The board does what the model does, and its keys agree with each other after each step."""
    with opened(server) as machine:
        plain = machine()
        run = Aside(plain.runner, plain.bench)
        run.start(max_crashes=1 + 2 * seed, remember=(0.0, 250.0)[seed % 2])
        chance = Random(seed)
        for _ in range(300):
            run.one_thing(chance)
        run.run(run.boards[0].resume(kind=run.model.paused_kind or "x"))
        run.model.paused_kind = None
        run.teardown()


async def cardinality(bench: Bench, name: str) -> int:
    """Return how many members a sorted set has."""
    found: int = await bench.hub.client.call("look", "ZCARD", bench.key(name))
    return found


async def test_a_thousand_new_kinds_at_once(server: Place) -> None:
    """The list of kinds is written once, so the claim does not exceed the time of a call."""
    async with server.bench() as bench:
        board = bench.board()
        kinds = [f"{n:03}".ljust(200, "\U0001f600") for n in range(1000)]
        await board.submit([Task(0, id=f"{n}", kind=kind) for n, kind in enumerate(kinds)])
        assert [] == await board.claim(1, kinds=["a"])
        assert 1000 == await cardinality(bench, "aside")
        await check_keys(bench)
        (last,) = await board.claim(9, kinds=kinds[-1:])
        assert ("999", kinds[-1]) == (last.task.id, last.task.kind)
        assert [f"{n}" for n in range(999)] == [c.task.id for c in await board.claim(1000)]


async def test_a_claim_brings_back_only_what_it_asks_for(server: Place) -> None:
    """Kinds whose tasks alternate do not fill the queue, where they would be in the way."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=f"{n}", kind=f"k{n % 20}") for n in range(3000)])
        assert [] == await board.claim(1, kinds=["a"])
        assert 3000 == await cardinality(bench, "aside")
        assert [f"{n}" for n in range(150)] == [c.task.id for c in await board.claim(150)]
        assert (0, 2850) == (await cardinality(bench, "ready"), await cardinality(bench, "aside"))


async def test_large_suspects_of_another_kind(server: Place) -> None:
    """One script reads a limited number of bytes, and the next one continues."""
    async with server.bench() as bench:
        board = bench.board(max_crashes=9)
        for n in range(40):
            await board.submit(Task(b"-" * 1_000_000, id=f"{n}", kind="x"))
        assert 40 == len(await board.claim(40, lease=10.0))
        await bench.later(15)
        assert ([], 0.0) == (await board._engine.claim(9, None, ["a"], "worker", 10.0))[:2]
        assert 0 < await cardinality(bench, "aside") <= 16
        await board.submit(Task(0, id="a", kind="a"))
        assert ["a"] == [claim.task.id for claim in await board.claim(9, kinds=["a"])]
        assert 40 == await cardinality(bench, "aside")


async def test_records_that_are_gone(server: Place) -> None:
    """A task that stands aside is found without its record, and is in one place afterwards."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(n, id=f"x{n}", kind="x", ttl=50.0 * n or None) for n in range(3)])
        assert [] == await board.claim(9, kinds=["a"])
        await bench.hub.client.call("spoil", "HDEL", bench.key("tasks"), "x0", "x1")
        assert [True] == await board.cancel("x0")
        assert (0, 2, 0, 0, 1) == await counts(board)
        await bench.later(75)
        assert [] == await board.claim(9, kinds=["a"])
        assert (0, 1, 0, 0, 2) == await counts(board)
        assert ["x2"] == [claim.task.id for claim in await board.claim(9, kinds=["x"])]


async def test_a_grave_that_was_cut_short(server: Place) -> None:
    """A redriven task is counted with its kind, which its record has too."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(n, id=f"x{n}", kind="x") for n in range(2)])
        assert [True] == await board.cancel("x0")
        await bench.hub.client.call("spoil", "HSET", bench.key("grave"), "x0", b"\x01")
        assert 1 == await board.redrive("x0")
        await check_keys(bench)


async def test_joining_after_records_are_gone(server: Place) -> None:
    """The counts of kinds may be too high then, but nobody is joined too early."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=f"x{n}", kind="x") for n in range(3)])
        await board.submit(Task(0, id="plain"))
        await bench.hub.client.call("spoil", "HDEL", bench.key("tasks"), "x0", "x1", "x2")
        assert [True] == await board.cancel("x2")
        (claim,) = await board.claim(9)
        assert "plain" == claim.task.id
        unfinished = await board._engine.tick(["default"])
        assert 1 == unfinished.ready
        await board.settle([claim.done()])
        await board.join(kinds=["default"])
        await board.join(kinds=["x"])
        await board.submit(Task(0, id="x0", kind="x"))
        await board.join(kinds=["default"])
        assert 1 == (await board._engine.tick(["x"])).ready
