"""One form for states that differ only in names.

Numbers become ranks, workers and tasks are sorted by what they are, and what can make no difference
any more is forgotten. States that should be equal may still differ; then there are more to explore.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.boards.hand_over.world import Hold, Message, Task, Token, Worker, World

__all__ = ["renamed"]

NEVER = -1
"""Instead of a number that is older than what the worker has read."""


def renamed(world: World) -> World:
    """Return the form of a state that all states like it have."""
    tasks = [_trimmed_task(task) for task in world.tasks]
    holders = {task.holder for task in tasks}
    workers = {
        at: _trimmed_worker(worker, [task.number for task in tasks if task.holder == at])
        for at, worker in enumerate(world.workers)
        if worker.life != "dead" or at in holders or worker.room or worker.claim
    }
    used = {0, *(task.number for task in tasks)}.union(*map(_numbers, workers.values()))
    ranks = {number: rank for rank, number in enumerate(sorted(used - {NEVER}))} | {NEVER: NEVER}
    order = sorted(workers, key=lambda at: _looks(workers[at], ranks))
    places = {at: place for place, at in enumerate(order)} | {-1: -1}
    ranked = [
        task._replace(number=ranks[task.number], holder=places[task.holder]) for task in tasks
    ]
    whole = [workers[at] for at in order]
    by_looks = sorted(
        range(len(tasks)), key=lambda i: (ranked[i], [_traces(worker, i) for worker in whole])
    )
    names = {i: name for name, i in enumerate(by_looks)}
    return world._replace(
        tasks=tuple(ranked[i] for i in by_looks),
        workers=tuple(_renamed_worker(worker, ranks, names) for worker in whole),
        last=len(ranks) - 2,
    )


def _trimmed_task(task: Task) -> Task:
    # Of tasks that kill nobody, it matters only whether there was a crash.
    crashes = task.crashes if task.killer else min(task.crashes, 1)
    if task.state == "ended":
        return Task("ended", killer=task.killer)
    return task._replace(begun=task.begun or task.lapsed, crashes=crashes)


def _trimmed_worker(worker: Worker, mine: list[int]) -> Worker:
    read, request = worker.read, worker.claim
    last = worker.last if worker.last > read else 0
    listed = worker.listed
    if request is None or request.done:
        listed = tuple(number for number in listed if number > read)
    queue = tuple(
        message._replace(
            before=message.before if message.before > read else 0, room=min(message.room, 1)
        )
        for message in worker.queue
    )
    if request is not None:
        upto = request.upto if request.upto >= read else NEVER
        request = request._replace(upto=upto, room=min(request.room, 1))
    worker = worker._replace(
        listed=listed, last=last, queue=queue, claim=request, read=0, parked=min(worker.parked, 1)
    )
    # Where a worker stands between two numbers that concern it makes no difference.
    told = 0 if request is None else request.read
    if request is not None:
        worker = worker._replace(claim=request._replace(read=0))
    marks = {0, *mine, *_numbers(worker)} - {NEVER}
    if request is not None:
        told = max(number for number in marks if number <= told)
        worker = worker._replace(claim=request._replace(read=told))
    return worker._replace(read=max(number for number in marks if number <= read))


def _numbers(worker: Worker) -> set[int]:
    numbers = {worker.last, worker.read, *worker.listed, *worker.seen}
    numbers.update(hold.number for hold in worker.holds)
    numbers.update(message.number for message in worker.queue)
    numbers.update(message.before for message in worker.queue)
    numbers.update(number for _, number in worker.unread)
    if worker.claim is not None:
        numbers.update((worker.claim.read, worker.claim.upto))
        numbers.update(number for _, number in (*worker.claim.later, *worker.claim.got))
    return numbers


def _looks(worker: Worker, ranks: dict[int, int]) -> tuple[object, ...]:
    """Return what there is to see of a worker without the names of tasks."""
    request = worker.claim
    asked = () if request is None else (request.done, request.limit, ranks[request.read])
    told = () if request is None else (ranks[request.upto], request.room, len(request.later))
    return (
        worker.life,
        worker.listens,
        worker.must_claim,
        worker.room,
        worker.parked,
        (ranks[worker.read], ranks[worker.last], *(ranks[n] for n in worker.listed)),
        [(ranks[hold.number], hold.stage, hold.old) for hold in worker.holds],
        [(ranks[message.number], message.old) for message in worker.queue],
        asked,
        told,
    )


def _traces(worker: Worker, task: int) -> tuple[object, ...]:
    """Return where a worker mentions a task."""
    request = worker.claim
    tokens = worker.unread if request is None else (*request.later, *request.got, *worker.unread)
    return (
        [hold[1:] for hold in worker.holds if hold.task == task],
        [message.number for message in worker.queue if task in message.tasks],
        [number for i, number in tokens if i == task],
    )


def _renamed_worker(worker: Worker, ranks: dict[int, int], names: dict[int, int]) -> Worker:
    def tokens(old: Iterable[Token]) -> tuple[Token, ...]:
        return tuple(sorted((names[task], ranks[number]) for task, number in old))

    request = worker.claim
    if request is not None:
        request = request._replace(
            read=ranks[request.read],
            later=tokens(request.later),
            got=tokens(request.got),
            upto=ranks[request.upto],
        )
    return worker._replace(
        listed=tuple(ranks[number] for number in worker.listed),
        last=ranks[worker.last],
        unread=tokens(worker.unread),
        read=ranks[worker.read],
        seen=tuple(ranks[number] for number in worker.seen),
        holds=tuple(
            sorted(
                Hold(names[hold.task], ranks[hold.number], hold.stage, hold.old)
                for hold in worker.holds
            )
        ),
        queue=tuple(
            Message(
                ranks[message.number],
                ranks[message.before],
                tuple(sorted(names[task] for task in message.tasks)),
                message.room,
                message.old,
            )
            for message in worker.queue
        ),
        claim=request,
    )
