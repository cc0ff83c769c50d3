"""Every board does what the model does, for any sequence of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from math import inf
from random import Random
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim, Settlement
from rxdispatch.task import Task
from tests.boards.model import Ending, Entry, Held, Model, Verb
from tests.boards.places import Bench, Place, counts

T = TypeVar("T")

IDS = "abcdefghijkl"
VERBS: tuple[Verb, ...] = ("done", "retry", "dead", "release")
PRIORITIES = (0,) * 6 + (1, 4096, -4096)

# Time passes in hundreds of seconds, and all durations end in fifty. So no two events coincide,
# and the extra seconds of a slow machine change nothing.
WAITS = (100, 100, 200, 400)
SPANS = (50.0, 150.0, 350.0)
LEASES = (50.0, 350.0, 350.0, 350.0)
DELAYS = (0.0,) * 6 + (50.0, 150.0)
TTLS = (inf,) * 4 + (150.0, 350.0, 550.0)
ATTEMPTS = (1, 2, 5)
WORKERS = ("x", "y")
KINDS = ("default", "default", "a", "b")
WANTED = (None, None, None, ["a"], ["a", "b"], ["b", "default"], ["none"])

_numbers = count()

ids = st.sampled_from(IDS)
spans = st.sampled_from(SPANS)
some_ids = st.lists(ids, max_size=4)
entries = st.builds(
    Entry,
    id=ids,
    priority=st.sampled_from(PRIORITIES),
    delay=st.sampled_from(DELAYS),
    ttl=st.sampled_from(TTLS),
    max_attempts=st.sampled_from(ATTEMPTS),
    kind=st.sampled_from(KINDS),
)
chances = st.integers(0, 2**32).map(Random)


class Machine(RuleBasedStateMachine):
    """Drives a board and the model with the same steps."""

    def __init__(self, runner: asyncio.Runner, bench: Bench) -> None:
        super().__init__()
        self.runner = runner
        self.bench = Bench(bench.kind, bench.hub, bench.other_hub, f"{bench.name}-{next(_numbers)}")
        self.claims: list[tuple[Claim[Any], Held]] = []
        self.token = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(max_crashes=st.sampled_from((0, 1, 3)), remember=st.sampled_from((0.0, 250.0)))
    def start(self, max_crashes: int, remember: float) -> None:
        self.model = Model(max_crashes, remember)
        self.model.step()
        options: dict[str, Any] = {"max_crashes": max_crashes, "remember": remember}
        self.boards: list[Board[Any]] = [self.bench.board(**options), self.bench.elsewhere()]
        # The options must be stored before the other handle is used.
        self.run(self.boards[0].resume())

    @property
    def board(self) -> Board[Any]:
        """Return the two handles alternately."""
        self.boards.reverse()
        self.model.step()
        return self.boards[0]

    @rule(entries=st.lists(entries, min_size=1, max_size=6))
    def submit(self, entries: list[Entry]) -> None:
        tasks = [
            Task(
                e.id,
                id=e.id,
                priority=e.priority,
                delay=e.delay,
                ttl=None if e.ttl == inf else e.ttl,
                max_attempts=e.max_attempts,
                kind=e.kind,
            )
            for e in entries
        ]
        result = self.run(self.board.submit(tasks))
        assert self.model.submit(entries) == (result.accepted, result.duplicates)

    @rule(
        limit=st.sampled_from((0, 1, 2, 3, 8)),
        only=st.one_of(st.none(), st.none(), st.none(), some_ids),
        kinds=st.sampled_from(WANTED),
        lease=spans,
        worker=st.sampled_from(WORKERS),
    )
    def claim(
        self,
        limit: int,
        only: list[str] | None,
        kinds: list[str] | None,
        lease: float,
        worker: str,
    ) -> None:
        kinds = kinds if only is None else None
        claims = self.run(
            self.board.claim(limit, ids=only, kinds=kinds, lease=lease, worker=worker)
        )
        expected = self.model.claim(limit, only, kinds, lease, worker)
        assert [(row.entry.id, row.attempts + 1, row.crashes) for row in expected] == [
            (claim.task.id, claim.attempt, claim.crashes) for claim in claims
        ]
        for claim, row in zip(claims, expected, strict=True):
            assert claim.token > self.token
            assert claim.task.payload == row.entry.id
            self.token = row.token = claim.token
            held = Held(row.entry.id, claim.token, claim.attempt, row.entry.max_attempts)
            self.claims.append((claim, held))

    def some_claims(self, chance: Random) -> list[tuple[Claim[Any], Held]]:
        """Choose among the claims, mostly unsettled ones."""
        unsettled = [pair for pair in self.claims if pair[1].answer is None][-8:]
        chosen = unsettled * 3 + self.claims[-4:]
        return chance.choices(chosen, k=chance.randint(1, 4)) if chosen else []

    @rule(chance=chances)
    def settle(self, chance: Random) -> None:
        endings: list[Ending] = []
        settlements: list[Settlement] = []
        for claim, held in self.some_claims(chance):
            verb = chance.choice(VERBS)
            # Of tasks that are due at the same time, any may come first.
            wait = 0.0 if endings or verb in {"done", "dead"} else chance.choice((0.0, *SPANS))
            endings.append(Ending(held, verb, wait))
            if verb == "done":
                settlements.append(claim.done())
            elif verb == "retry":
                settlements.append(claim.retry("retry", wait))
            elif verb == "dead":
                settlements.append(claim.dead("unfit", "dead"))
            else:
                settlements.append(claim.release(wait))
        answers = self.run(self.board.settle(settlements))
        assert [self.model.settle(ending) for ending in endings] == answers

    @rule(chance=chances, lease=spans)
    def renew(self, chance: Random, lease: float) -> None:
        chosen = self.some_claims(chance)
        lost = self.run(self.board.renew([claim for claim, _ in chosen], lease))
        expected = self.model.renew([held for _, held in chosen], lease)
        assert [held.token for held in expected] == [claim.token for claim in lost]

    @rule(some=some_ids)
    def cancel(self, some: list[str]) -> None:
        answers = self.run(self.board.cancel(some))
        assert self.model.cancel(some) == answers

    @rule(some=some_ids)
    def redrive(self, some: list[str]) -> None:
        assert self.model.redrive(some) == self.run(self.board.redrive(some))

    @rule()
    def redrive_all(self) -> None:
        dead = self.dead_letters()
        assert self.model.redrive(dead) == self.run(self.board.redrive())
        assert [] == self.dead_letters()

    @rule()
    def pause(self) -> None:
        """Pause claims, but not sweeps."""
        self.run(self.board.pause())
        self.model.paused = True
        self.claim(limit=8, only=None, kinds=None, lease=50.0, worker=WORKERS[0])
        self.run(self.board.resume())
        self.model.paused = False

    @rule(kind=st.sampled_from(KINDS), kinds=st.sampled_from(WANTED), only=some_ids)
    def pause_kind(self, kind: str, kinds: list[str] | None, only: list[str]) -> None:
        """Pause one kind, for claims of kinds and of ids."""
        self.run(self.board.pause(kind=kind))
        self.model.paused_kind = kind
        self.claim(limit=2, only=None, kinds=kinds, lease=50.0, worker=WORKERS[0])
        self.claim(limit=2, only=only, kinds=None, lease=50.0, worker=WORKERS[0])
        self.run(self.board.resume(kind=kind))
        self.model.paused_kind = None

    def many_things(self, chance: Random) -> None:
        """Run many steps, the important ones more often."""
        for _ in range(12):
            match chance.choice("ssscccceeeeeerxdddwwp"):
                case "s":
                    self.submit(
                        [
                            Entry(
                                chance.choice(IDS),
                                chance.choice(PRIORITIES),
                                chance.choice(DELAYS),
                                chance.choice(TTLS),
                                chance.choice(ATTEMPTS),
                                chance.choice(KINDS),
                            )
                            for _ in range(chance.randint(1, 5))
                        ]
                    )
                case "c":
                    only = chance.choices(IDS, k=4) if chance.random() < 0.2 else None
                    lease, worker = chance.choice(LEASES), chance.choice(WORKERS)
                    kinds = chance.choice(WANTED)
                    self.claim(chance.choice((0, 1, 2, 3, 8)), only, kinds, lease, worker)
                case "e":
                    self.settle(chance)
                case "r":
                    self.renew(chance, chance.choice(LEASES))
                case "x":
                    self.cancel(chance.choices(IDS, k=2))
                case "p":
                    kind, kinds = chance.choice(KINDS), chance.choice(WANTED)
                    self.pause_kind(kind, kinds, chance.choices(IDS, k=2))
                case "d":
                    self.redrive(chance.choices(IDS, k=4))
                case _:
                    self.wait(chance.choice(WAITS))
            self.the_same_counts()
            self.the_same_order()
            self.the_same_unfinished()

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: int) -> None:
        self.run(self.bench.later(seconds))
        self.model.now += seconds

    @invariant()
    def the_same_order(self) -> None:
        """Claim and release all tasks, unless the claim would also sweep."""
        if self.model.swept():
            self.look_at_the_order()

    @invariant()
    def the_same_unfinished(self) -> None:
        """Count what is unfinished of some kinds, unless that would also sweep."""
        if self.model.swept():
            for kinds in filter(None, WANTED):
                found = self.run(self.boards[0]._engine.tick(kinds))
                # A board on a server gives the sum in the place of the three.
                left = found.scheduled + found.ready + found.claimed
                assert self.model.unfinished(kinds) == left

    def look_at_the_order(self) -> None:
        board = self.board
        claims = self.run(board.claim(100, worker="onlooker"))
        answers = self.run(board.settle([claim.release() for claim in claims]))
        assert all(answers)
        self.token = max([self.token, *(claim.token for claim in claims)])
        self.model.sweep()
        expected = self.model.fit(self.model.order(), "onlooker")
        assert expected == [claim.task.id for claim in claims]

    def dead_letters(self) -> list[str]:
        """Compare all dead letters; return their ids."""

        async def read() -> list[tuple[str, str, str, str | None, int, int]]:
            return [
                (x.task.id, x.task.kind, x.reason, x.error or None, x.attempts, x.crashes)
                async for x in self.boards[0].dead_letters()
            ]

        letters = self.run(read())
        rows = self.model.rows
        assert [
            (
                i,
                rows[i].entry.kind,
                rows[i].reason,
                rows[i].error,
                rows[i].attempts,
                rows[i].crashes,
            )
            for i, *_ in letters
        ] == letters
        order = [letter[0] for letter in letters]
        expected = self.model.dead
        walk = iter(order)
        assert [some for some in expected if some] == [
            {next(walk) for _ in some} for some in expected if some
        ]
        assert [] == list(walk)
        return order

    @invariant()
    def the_same_counts(self) -> None:
        assert self.model.counts() == self.run(counts(self.boards[0]))
        found = self.run(self.boards[0].kinds())
        assert self.model.kinds() == {kind: state.unfinished for kind, state in found.items()}

    @invariant()
    def the_same_states(self) -> None:
        async def read() -> dict[str, Any]:
            states = await asyncio.gather(*(self.boards[0].get(i) for i in IDS))
            return {
                i: s and (s.status.value, s.attempts, s.crashes, s.error)
                for i, s in zip(IDS, states, strict=True)
            }

        assert {i: self.model.state(i) for i in IDS} == self.run(read())

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.look_at_the_order()
            self.dead_letters()


@contextmanager
def opened(place: Place) -> Generator[Callable[[], Machine]]:
    """Open a board's hubs, and yield a factory of machines for them."""
    with asyncio.Runner(loop_factory=place.loop_factory) as runner:
        stack = AsyncExitStack()
        bench = runner.run(stack.enter_async_context(place.bench()))
        try:
            yield lambda: Machine(runner, bench)
        finally:
            runner.run(stack.aclose())


def test_short_runs(place: Place) -> None:
    """Board and model agree in short runs; Hypothesis finds the shortest counterexample."""
    profile = settings(
        max_examples=30,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    with opened(place) as machine:
        # Hypothesis documents that it takes any callable that makes a machine.
        factory: Any = machine
        run_state_machine_as_test(factory, settings=profile)


def test_long_runs(place: Place) -> None:
    """Board and model also agree after many steps."""
    with opened(place) as machine:
        for seed in range(16):
            run = machine()
            run.start(max_crashes=seed % 3, remember=(0.0, 250.0)[seed % 2])
            chance = Random(seed)
            for _ in range(10):
                run.many_things(chance)
                run.the_same_states()
            run.teardown()
