"""What a worker does with a message, and with the reply to its claim."""

from __future__ import annotations

from tests.boards.hand_over.rules import Rule, Scenario
from tests.boards.hand_over.world import Hold, Worker

__all__ = ["read_message", "read_reply"]


def read_message(scenario: Scenario, worker: Worker) -> Worker:
    """Take the first message of the queue."""
    message = worker.queue[0]
    worker = worker._replace(queue=worker.queue[1:])
    if not message.number:
        return worker._replace(must_claim=True)
    known = message.number <= worker.read or message.number in worker.seen
    if known and scenario.keeps(Rule.DROP_OLD):
        return worker
    old = message.old and scenario.keeps(Rule.CHECK_AGE)
    read = {Hold(task, message.number, old=old) for task in message.tasks}
    worker = worker._replace(holds=tuple(sorted({*worker.holds, *read})), parked=message.room)
    if message.before <= worker.read or not scenario.keeps(Rule.SEE_GAPS):
        return worker._replace(read=max(worker.read, message.number))
    seen = tuple(sorted({*worker.seen, message.number}))
    return worker._replace(seen=seen, must_claim=True)


def read_reply(scenario: Scenario, worker: Worker) -> Worker:
    """Take the reply to the claim."""
    reply = worker.claim
    assert reply is not None
    later = reply.later
    if scenario.keeps(Rule.SKIP_KNOWN):
        later = tuple(
            (task, number)
            for task, number in later
            if number > worker.read and number not in worker.seen
        )
    old = reply.old and scenario.keeps(Rule.CHECK_AGE)
    new = {Hold(task, number, old=old) for task, number in (*later, *reply.got)}
    newest = max(worker.read, *worker.seen, 0)
    newer = reply.upto >= newest or not scenario.keeps(Rule.NEWEST_ROOM)
    read = max(worker.read, reply.upto) if scenario.keeps(Rule.UPTO) else worker.read
    return worker._replace(
        claim=None,
        holds=tuple(sorted({*worker.holds, *new})),
        parked=reply.room if newer else worker.parked,
        read=read,
        seen=tuple(number for number in worker.seen if number > read),
    )
