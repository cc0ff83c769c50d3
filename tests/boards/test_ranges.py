"""What a board on a server stores keeps to stored-format.md after any sequence of calls."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

import attrs
import pytest

from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim, Settlement
from rxdispatch.results import TaskEvent
from rxdispatch.task import Task
from tests.boards.contract.test_events import heard
from tests.boards.places import Bench, Place, until

SLACK: Final = 60.0
"""Seconds by which a slow machine may be late; all durations differ by more."""

STATES: Final = ("ready", "suspects", "aside", "sched", "claimed", "dead")
KINDS: Final = ("default", "x", "yy")


# -- what is stored --------------------------------------------------------------------------


@attrs.frozen
class Range:
    """A member of ``ranges``."""

    first: int
    worker: str
    places: list[float]

    @property
    def tokens(self) -> range:
        return range(self.first, self.first + len(self.places))


@attrs.frozen
class Stored:
    """All keys of a board, apart from sessions."""

    sets: dict[str, dict[str, float]]
    hashes: dict[str, dict[str, bytes]]
    ranges: list[Range]

    @classmethod
    async def of(cls, bench: Bench) -> Stored:
        """Read the keys."""
        call = bench.hub.client.call
        sets: dict[str, dict[str, float]] = {}
        for name in {*STATES, "leases", "expiry", "past"} - {"aside"}:
            flat = await call("ask", "ZRANGE", bench.key(name), 0, -1, "WITHSCORES")
            rows = zip(flat[::2], flat[1::2], strict=True)
            sets[name] = {member.decode(): float(score) for member, score in rows}
        hashes: dict[str, dict[str, bytes]] = {}
        for name in ("tasks", "place", "kinds", "held", "tries", "grave", "meta"):
            flat = await call("ask", "HGETALL", bench.key(name))
            hashes[name] = {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)}
        aside: dict[str, float] = {}
        sets["aside"] = aside
        members: set[bytes] = set()
        for member in await call("ask", "ZRANGE", bench.key("aside"), 0, -1):
            members.add(member)
            size = 2 + int.from_bytes(member[:2], "big")
            base, number = struct.unpack_from(">HQ", member, size + 1)
            aside[member[size + 11 :].decode()] = (base - 8192) * 2.0**40 + number
        flat = await call("ask", "ZRANGE", bench.key("ranges"), 0, -1, "WITHSCORES")
        ranges: list[Range] = []
        for member, score in zip(flat[::2], flat[1::2], strict=True):
            first, count, handed, size, inbox = struct.unpack_from(">dHBHB", member)
            assert (0, 0) == (handed, inbox)
            assert float(score) == first
            places = [float(place) for place in member[14 + size :].split()]
            assert count == len(places)
            ranges.append(Range(int(first), member[14 : 14 + size].decode(), places))
        # For a task that stands aside, ``place`` has its member.
        assert members == {hashes["place"].pop(task_id) for task_id in aside}
        return cls(sets, hashes, ranges)

    @property
    def flags(self) -> set[str]:
        return set(self.hashes["meta"].get("flags", b"").decode())

    @property
    def next(self) -> float:
        return float(self.hashes["meta"].get("next") or "inf")

    def crashes(self, task_id: str) -> int:
        """How many crashes a task has behind it."""
        tries = self.hashes["tries"].get(task_id)
        return 0 if tries is None else int.from_bytes(tries[4:8], "big")

    def range_of(self, token: float) -> Range:
        """Return the only range that has *token*."""
        (found,) = [r for r in self.ranges if token in r.tokens]
        return found

    def lease_of(self, token: float) -> float:
        """Return when the lease of *token* lapses, in microseconds."""
        return self.sets["leases"][str(self.range_of(token).first)]

    def check(self) -> None:
        """Check what always holds."""
        sets, hashes = self.sets, self.hashes
        claimed = sets["claimed"]
        # 1. One record and one state.
        ids = [task_id for name in STATES for task_id in sets[name]]
        assert len(set(ids)) == len(ids)
        assert set(hashes["tasks"]) == set(ids)
        # 2. Tokens.
        tokens = sorted(claimed.values())
        assert len(set(tokens)) == len(tokens)
        assert all(token <= float(hashes["meta"]["token"]) for token in tokens)
        # 3. Ranges and leases.
        assert {str(r.first) for r in self.ranges} == set(sets["leases"])
        for one in self.ranges:
            assert any(token in one.tokens for token in tokens)
        for token in tokens:
            self.range_of(token)
        # 4. Nothing is due before ``next``.
        for name in ("leases", "expiry", "sched"):
            assert all(self.next <= at for at in sets[name].values()), name
        # 5. Properties.
        unfinished = set(ids) - set(sets["dead"])
        assert set(hashes["place"]) == set(sets["sched"])
        assert set(hashes["grave"]) == set(sets["dead"])
        assert len(set(sets["dead"].values())) == len(sets["dead"])
        assert set(sets["expiry"]) <= unfinished
        assert set(hashes["tries"]) <= unfinished
        assert not [task_id for task_id in sets["ready"] if self.crashes(task_id)]
        assert all(self.crashes(task_id) for task_id in sets["suspects"])
        weights: dict[str, int] = {}
        for task_id, token in claimed.items():
            if self.crashes(task_id):
                held = hashes["held"]["t" + task_id]
                worker = self.range_of(token).worker
                assert worker == held[1:].decode()
                weights["w" + worker] = weights.get("w" + worker, 0) + held[0]
            else:
                assert "t" + task_id not in hashes["held"]
        sums = {name: int(sum_) for name, sum_ in hashes["held"].items() if name[0] == "w"}
        assert weights == sums
        assert not {name[1:] for name in hashes["held"] if name[0] == "t"} - set(claimed)
        # Kinds.
        kinds = Counter(kind_of(hashes["tasks"][task_id]) for task_id in unfinished)
        del kinds["default"]
        assert kinds == {kind: int(count) for kind, count in hashes["kinds"].items()}
        standing = hashes["meta"].get("aside", b"")
        for task_id in sets["aside"]:
            kind = kind_of(hashes["tasks"][task_id]).encode()
            assert len(kind).to_bytes(2, "big") + kind in standing
        # Flags.
        needed = {
            "d": sets["sched"],
            "r": hashes["tries"],
            "s": [task_id for task_id in hashes["tries"] if self.crashes(task_id)],
            "t": sets["expiry"],
            "k": hashes["kinds"],
        }
        assert {letter for letter, entries in needed.items() if entries} <= self.flags


def kind_of(record: bytes) -> str:
    """Return the kind at the beginning of a record."""
    return record[2 : 2 + record[1]].decode() if record[0] <= 3 else "default"


# -- random calls ----------------------------------------------------------------------------


class Run:
    """Random calls on a board, and what their effects must be."""

    def __init__(
        self, bench: Bench, random: Random, remember: float | None, *, kinds: bool
    ) -> None:
        self.bench = bench
        self.random = random
        options: dict[str, Any] = {"max_crashes": 2, "dead_limit": 12, "remember": remember}
        self.boards: list[Board[Any]] = [bench.board(**options), bench.elsewhere(**options)]
        self.names = 0
        self.kinds = KINDS if kinds else KINDS[:1]
        self.claims: list[Claim[Any]] = []
        self.leases: dict[int, float] = {}
        self.places: dict[str, float] = {}
        self.passed = 0.0
        self.start = 0.0
        self.steps: list[tuple[Callable[[], Coroutine[Any, Any, None]], int]] = [
            (self.submit, 5),
            (self.claim, 6),
            (self.claim_ids, 1),
            (self.claim_unread, 2),
            (self.renew, 6),
            (self.settle, 6),
            (self.cancel, 1),
            (self.redrive, 1),
            (self.pause, 1),
            (self.later, 3),
            (self.tick, 1),
        ]

    @property
    def board(self) -> Board[Any]:
        return self.random.choice(self.boards)

    def some(self, most: int) -> list[Claim[Any]]:
        """Return some claims: mostly of the last ones, and often neighbours."""
        recent = self.claims[-25:]
        if self.random.random() < 0.5:
            start = self.random.randint(0, len(recent))
            return recent[start : start + self.random.randint(1, most)]
        return self.random.sample(recent, min(len(recent), self.random.randint(0, most)))

    async def submit(self) -> None:
        tasks: list[Task[Any]] = []
        for _ in range(self.random.randint(1, 8)):
            self.names += 1
            tasks.append(
                Task(
                    0,
                    id=f"{self.names}",
                    kind=self.random.choice(self.kinds),
                    priority=self.random.choice((0, 0, 0, 1, 4096, -4096)),
                    delay=self.random.choice((0, 0, 0, 500)),
                    ttl=self.random.choice((None, None, None, 1500, 3500)),
                )
            )
        await self.board.submit(tasks)

    async def claim(self) -> None:
        await self._claim(self.random.randint(1, 8))

    async def claim_ids(self) -> None:
        await self._claim(3, ids=[f"{self.random.randint(1, self.names + 1)}" for _ in range(9)])

    async def claim_unread(self) -> None:
        """Give up a claim; the next one of the same handle returns its tasks."""
        engine = self.board._engine
        kinds = list(self.kinds[1:2]) or None
        claiming = asyncio.create_task(
            engine.claim(self.random.randint(1, 8), None, kinds, "y", 1500.0)
        )
        for _ in range(self.random.randint(0, 12)):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        if not claiming.cancelled():
            self.leases |= dict.fromkeys(
                (task.token for task in claiming.result().found), self.passed + 1500.0
            )
        await engine.claim(0, None, None, "y", 1500.0)

    async def _claim(self, limit: int, ids: list[str] | None = None) -> None:
        lease = self.random.choice((300.0, 700.0, 1500.0))
        worker = self.random.choice("xy")
        kinds = None
        if len(self.kinds) > 1 and ids is None and self.random.random() < 0.7:
            kinds = self.random.sample(self.kinds, self.random.randint(1, 2))
        self._got(
            await self.board.claim(limit, ids=ids, kinds=kinds, worker=worker, lease=lease), lease
        )

    def _got(self, claims: list[Claim[Any]], lease: float) -> None:
        self.claims += claims
        for claim in claims:
            self.leases[claim.token] = self.passed + lease

    async def renew(self) -> None:
        lease = self.random.choice((200.0, 900.0, 2000.0))
        some = self.some(8)
        lost = await self.board.renew(some, lease)
        for claim in some:
            if claim not in lost:
                self.leases[claim.token] = self.passed + lease

    async def settle(self) -> None:
        some = self.some(8)
        for board in self.boards:
            ends: list[Settlement] = []
            for claim in some:
                if claim._origin.board is board:
                    delay = self.random.choice((0, 0, 500))
                    choices = claim.done(), claim.retry("no", delay), claim.release(delay)
                    ends.append(self.random.choice((*choices, claim.done(), claim.dead("unfit"))))
            await board.settle(ends)

    async def cancel(self) -> None:
        await self.board.cancel([f"{self.random.randint(1, self.names + 1)}" for _ in range(6)])

    async def redrive(self) -> None:
        await self.board.redrive(None if self.random.random() < 0.5 else ["1", "5", "9"])

    async def pause(self) -> None:
        kind = self.random.choice((None, *self.kinds)) if len(self.kinds) > 1 else None
        await self.board.pause(kind=kind)
        await self._claim(3)
        await self.check()
        await self.board.resume(kind=kind)

    async def later(self) -> None:
        seconds = self.random.choice((100, 400, 1000))
        self.passed += seconds
        await self.bench.later(seconds)

    async def tick(self) -> None:
        await self.board._engine.tick(None)

    async def check(self) -> Stored:
        """Check what is stored, and that each task has the lease and place that it must have."""
        stored = await Stored.of(self.bench)
        stored.check()
        if not self.start:
            self.start = float(stored.hashes["meta"]["raw"]) / 1e6
        claimed = stored.sets["claimed"]
        for task_id, token in claimed.items():
            lapses = stored.lease_of(token) / 1e6 - self.start
            assert 0 <= lapses - self.leases[int(token)] < SLACK
            one = stored.range_of(token)
            place = one.places[one.tokens.index(int(token))]
            assert place == self.places.get(task_id, place)
        for task_id, raw in stored.hashes["place"].items():
            # A retried task joins the end when its delay is over.
            self.places.pop(task_id, None)
            if not raw.startswith(b"+"):
                self.places[task_id] = float(raw)
        self.places |= stored.sets["ready"] | stored.sets["suspects"] | stored.sets["aside"]
        return stored

    async def step(self) -> None:
        """Make one random call, and check."""
        steps, weights = zip(*self.steps, strict=True)
        (step,) = self.random.choices(steps, weights)
        await step()
        await self.check()

    async def finish(self) -> None:
        """End every task; then only ``meta`` is left."""
        for _ in range(20):
            await self.later()
            for board in self.boards:
                await board.settle([c.done() for c in await board.claim(1000)])
            await self.board.redrive()
        stored = await self.check()
        assert not any(stored.sets[name] for name in stored.sets if name != "past")
        assert not any(stored.hashes[name] for name in stored.hashes if name != "meta")


@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_calls(server: Place, seed: int) -> None:
    """After each call the keys are as specified, and the events tell the same story."""
    async with server.bench() as bench:
        run = Run(bench, Random(seed), 400.0 if seed % 2 else None, kinds=seed % 4 > 1)
        await run.submit()
        async with heard(bench, run.boards[1]) as events:
            before = await run.check()
            for _ in range(120):
                await run.step()
            stored = await run.check()
            await bench.another(bench.name).submit(Task(0, id="last"))
            await until(lambda: bool(events) and events[-1].task_id == "last")
            dead = {task_id: task_id in stored.sets["dead"] for task_id in stored.hashes["tasks"]}
            assert dead == told(events[:-1], before)
        await run.finish()


def told(events: list[TaskEvent], before: Stored) -> dict[str, bool]:
    """Return, by the events, which tasks there are and whether they are dead."""
    # A task is waiting or dead, or claimed with a token.
    states: dict[str, str | int] = dict.fromkeys(before.hashes["tasks"], "waiting")
    for event in events:
        name, kind, token = event.task_id, event.kind, event.token
        state = states.pop(name, "")
        match kind:
            case "submitted":
                assert not state, event
            case "claimed":
                # A claim that was given up has no event for its end.
                assert state not in {"", "dead"}, event
            case "dead" if not token:
                assert state not in {"", "dead"}, event
            case "done" | "retried" | "released" | "crashed" | "undelivered":
                assert state == token, event
            case "dead":
                # If the lease has lapsed, "crashed" comes before.
                assert state in {token, "waiting"}, event
            case "redriven" | "discarded":
                assert state == "dead", event
        if kind in {"claimed", "dead"}:
            states[name] = (token or 0) if kind == "claimed" else "dead"
        elif kind not in {"done", "discarded"}:
            states[name] = "waiting"
    return {name: state == "dead" for name, state in states.items()}
