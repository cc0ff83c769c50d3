"""A breadth-first search of every state that a scenario can reach."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable

import attrs

from tests.boards.hand_over.invariants import is_idle_beside_work, is_over, violation
from tests.boards.hand_over.rules import Scenario
from tests.boards.hand_over.sameness import renamed
from tests.boards.hand_over.steps import steps
from tests.boards.hand_over.world import Task, Worker, World

__all__ = ["Findings", "explore"]

RANKS = {"": 0, "settle": 1, "poll": 2, "fault": 3}
"""The kinds of steps, by how little a worker may count on them."""


@attrs.define
class Findings:
    """What a search found.

    Attributes:
        states: How many states there are.
        wrong: The invariant that does not hold. Then the search has ended early.
        trace: The shortest way to the state in which it does not hold.
        stuck: From so many states some task never ends, although nothing else goes wrong.
        need_poll: From so many states some task ends only if a worker polls.
        asleep: In so many states a task is ready beside a parked worker that nobody tells of it,
            so that it waits for a poll or for the end of a handler.
    """

    states: int = 0
    wrong: str = ""
    trace: list[str] = attrs.field(factory=list[str])
    stuck: int = 0
    need_poll: int = 0
    asleep: int = 0


def explore(scenario: Scenario) -> Findings:
    """Visit every state, and then look back from those in which all is well."""
    tasks = tuple(Task(killer=scenario.killer and i == 0) for i in range(scenario.tasks))
    first = renamed(World(tasks, (Worker(),) * scenario.workers))
    # States are known by their hashes: of a few million, two are equal once in a million searches.
    known = {hash(first): 0}
    parents, queue, graph = array("l", [-1]), deque([first]), _Graph()
    over, well = bytearray(), bytearray()
    while queue:
        world, at = queue.popleft(), len(over)
        over.append(is_over(world))
        well.append(not is_idle_beside_work(world))
        for step in steps(scenario, world):
            wrong = violation(scenario, step.world)
            if wrong:
                way = [*_way(scenario, first, known, parents, at), step.name]
                return Findings(len(known), wrong, way)
            after = renamed(step.world)
            to = known.setdefault(hash(after), len(parents))
            if to == len(parents):
                parents.append(at)
                queue.append(after)
            graph.add(at, to, RANKS[step.kind])
    graph.sort(len(over))
    loop = graph.loop(RANKS["settle"])
    return Findings(
        len(over),
        "" if loop is None else "workers are busy for ever",
        [] if loop is None else _way(scenario, first, known, parents, loop),
        stuck=graph.count_lost(over, RANKS["poll"]),
        need_poll=graph.count_lost(over, RANKS["settle"]),
        asleep=graph.count_lost(well, RANKS[""]),
    )


def _way(
    scenario: Scenario, world: World, known: dict[int, int], parents: array[int], to: int
) -> list[str]:
    """Return the names of the steps to a state."""
    states = [to]
    while states[-1]:
        states.append(parents[states[-1]])
    names: list[str] = []
    for state in states[-2::-1]:
        step, world = next(
            (step, after)
            for step in steps(scenario, world)
            if known.get(hash(after := renamed(step.world))) == state
        )
        names.append(step.name)
    return names


class _Graph:
    """The steps between states, to be followed backwards."""

    def __init__(self) -> None:
        self._from, self._to, self._ranks = array("l"), array("l"), bytearray()
        self._first, self._order = array("l"), array("l")

    def add(self, at: int, to: int, rank: int) -> None:
        """Add a step."""
        self._from.append(at)
        self._to.append(to)
        self._ranks.append(rank)

    def sort(self, states: int) -> None:
        """Sort the steps by the state to which they lead."""
        self._first = array("l", [0]) * (states + 1)
        for to in self._to:
            self._first[to + 1] += 1
        for at in range(states):
            self._first[at + 1] += self._first[at]
        free = self._first[:]
        self._order = array("l", [0]) * len(self._to)
        for step, to in enumerate(self._to):
            self._order[free[to]] = step
            free[to] += 1

    def _before(self, at: int, rank: int) -> Iterable[int]:
        for step in self._order[self._first[at] : self._first[at + 1]]:
            if self._ranks[step] <= rank:
                yield self._from[step]

    def count_lost(self, good: bytearray, rank: int) -> int:
        """Count the states from which no steps up to a rank lead to a good one."""
        reached = good[:]
        todo = [at for at, is_good in enumerate(good) if is_good]
        while todo:
            for at in self._before(todo.pop(), rank):
                if not reached[at]:
                    reached[at] = True
                    todo.append(at)
        return reached.count(0)

    def loop(self, rank: int) -> int | None:
        """Return a state from which steps up to a rank need never end."""
        states = len(self._first) - 1
        onward = array("l", [0]) * states
        for at, step in zip(self._from, self._ranks, strict=True):
            onward[at] += step <= rank
        todo = [at for at in range(states) if not onward[at]]
        ended = len(todo)
        while todo:
            for at in self._before(todo.pop(), rank):
                onward[at] -= 1
                if not onward[at]:
                    todo.append(at)
                    ended += 1
        return None if ended == states else next(at for at in range(states) if onward[at])
