"""The scripts of the board. Each yields every state that it may leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from tests.boards.hand_over.rules import Rule, Scenario
from tests.boards.hand_over.world import Message, Worker, World

__all__ = ["claim", "crash", "hand_over", "lapse", "put_back"]

DELIVERIES = 1
"""How many deliveries a script makes. One is enough to leave something over for the baton."""


def hand_over(scenario: Scenario, world: World, deliveries: int = DELIVERIES) -> Iterator[World]:
    """Hand over what is ready to a worker with most room, and announce the rest."""
    ready = world.ready()
    room = max((worker.room for worker in world.workers), default=0)
    if not ready or not room:
        yield world
        return
    lapsed_too = not scenario.keeps(Rule.ONLY_ANNOUNCE_LAPSED)
    fresh = [
        i for i in ready if not world.tasks[i].crashes and (lapsed_too or not world.tasks[i].lapsed)
    ]
    for at, worker in enumerate(world.workers):
        if worker.room != room:
            continue
        if not worker.listens or worker.life == "dead":
            # Of a host that was cut off, the server notices this sooner or later.
            listed = worker.listed if scenario.keeps(Rule.KEEP_LIST) else ()
            unparked = worker._replace(room=0, listed=listed)
            yield from hand_over(scenario, world.with_worker(at, unparked), deliveries)
        if not worker.listens:
            continue
        if fresh and deliveries:
            for chosen in combinations(fresh, min(room, len(fresh))):
                after = _delivered(world, at, chosen)
                yield from hand_over(scenario, after, deliveries - 1)
        elif scenario.keeps(Rule.BATON):
            yield world.with_worker(at, _told(worker))
        else:
            yield world


def _told(worker: Worker) -> Worker:
    # A second announcement before the first is read would change nothing.
    if worker.life not in ("live", "frozen") or Message() in worker.queue:
        return worker
    return worker._replace(queue=(*worker.queue, Message()))


def _delivered(world: World, at: int, chosen: tuple[int, ...]) -> World:
    worker, number = world.workers[at], world.last + 1
    room = worker.room - len(chosen)
    if worker.life == "dead":
        worker = worker._replace(room=room)
    else:
        message = Message(number, worker.last, chosen, room)
        worker = worker._replace(
            room=room,
            listed=(*worker.listed, number),
            last=number,
            queue=(*worker.queue, message),
        )
    world = world.with_worker(at, worker)._replace(last=number)
    return world.with_tasks(chosen, state="claimed", number=number, holder=at, lease="handed")


def put_back(
    scenario: Scenario, world: World, which: Iterable[int], *, lapsed: bool = False
) -> Iterator[World]:
    """Make claimed tasks ready."""
    which = list(which)
    if lapsed:
        world = world.with_tasks(which, lapsed=True)
    yield from hand_over(scenario, _ready(world, which))


def _ready(world: World, which: Iterable[int]) -> World:
    return world.with_tasks(which, state="ready", number=0, holder=-1, lease="")


def claim(scenario: Scenario, world: World, at: int) -> Iterator[World]:
    """Put back what was claimed unread, list what was handed over later, and claim the rest."""
    worker = world.workers[at]
    request = worker.claim
    assert request is not None
    world = _ready(world, [i for i, number in worker.unread if world.tasks[i].token == number])
    listed = tuple(number for number in worker.listed if number > request.read)
    if not scenario.keeps(Rule.NAME_READ):
        mine = [world.tasks[i] for i in world.held_by(at)]
        listed = tuple(task.number for task in mine if task.lease != "asked")
    if not scenario.keeps(Rule.LIST_LATER):
        listed = ()
    later = [i for i in world.held_by(at) if world.tasks[i].number in listed]
    if not scenario.keeps(Rule.KEEP_MARK):
        world = world.with_tasks(later, lease="confirmed")
    counted = len(later) if scenario.keeps(Rule.COUNT_LATER) else 0
    limit = max(0, request.limit - counted)
    ready, number = world.ready(), world.last + 1
    for got in combinations(ready, min(limit, len(ready))):
        after = world.with_tasks(got, state="claimed", number=number, holder=at, lease="asked")
        upto, room = (number if got else world.last), limit - len(got)
        reply = request._replace(
            limit=0,
            read=0,
            done=True,
            later=tuple((i, world.tasks[i].number) for i in later),
            got=tuple((i, number) for i in got),
            upto=upto,
            room=room,
        )
        parked = worker._replace(room=room, listed=listed, unread=(), claim=reply)
        if worker.life == "dead":
            parked = parked._replace(listed=(), claim=None)
        yield from hand_over(scenario, after.with_worker(at, parked)._replace(last=upto))


def lapse(scenario: Scenario, world: World, which: list[int]) -> Iterator[World]:
    """End the lease of tasks of one range."""
    first = world.tasks[which[0]]
    if first.lease != "handed":
        yield from crash(scenario, world, which)
        return
    again = any(world.tasks[i].lapsed for i in which)
    if again:
        world = world._replace(wrong="a task lost two delivery leases")
    if again or not scenario.keeps(Rule.FIRST_LAPSE_UNCOUNTED):
        yield from crash(scenario, world, which)
        return
    worker = world.workers[first.holder]
    listed = tuple(number for number in worker.listed if number != first.number)
    world = world.with_worker(first.holder, worker._replace(room=0, listed=listed))
    yield from put_back(scenario, world, which, lapsed=True)


def crash(scenario: Scenario, world: World, which: list[int]) -> Iterator[World]:
    """Count a crash for tasks that lapsed."""
    for i in which:
        task = world.tasks[i]
        if task.lease != "asked" and not task.begun and not task.lapsed:
            world = world._replace(wrong="a crash is counted for a handler that never started")
        world = world.with_tasks([i], crashes=task.crashes + 1)
    dead = [i for i in which if world.tasks[i].crashes >= scenario.max_crashes]
    world = world.with_tasks(dead, state="ended", number=0, holder=-1, lease="")
    yield from put_back(scenario, world, [i for i in which if i not in dead])
