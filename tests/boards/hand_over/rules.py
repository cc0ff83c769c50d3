"""The rules of the hand-over that a model can break, and what a model explores."""

from __future__ import annotations

import enum

import attrs

__all__ = ["FAULTS", "Rule", "Scenario"]

FAULTS = (
    "reply lost",
    "message lost",
    "disconnected",
    "doubled",
    "delayed",
    "killed",
    "cut off",
    "frozen",
    "leaves",
    "polls",
)
"""What can happen to a worker. A poll counts as a fault where it may cross something else."""


class Rule(enum.Enum):
    """A sentence of the protocol."""

    KEEP_LIST = "an inbox without a listener is unparked, but its unread deliveries stay listed"
    ONLY_ANNOUNCE_LAPSED = "what lapsed in a delivery before is only announced"
    BATON = "what a script cannot hand over is announced"
    NAME_READ = "a claim names the last number that the worker has read"
    LIST_LATER = "the reply to a claim has what was handed over later"
    COUNT_LATER = "what was handed over later counts against the limit of the claim"
    KEEP_MARK = "a claim renews what was handed over, but does not confirm that it started"
    FIRST_LAPSE_UNCOUNTED = "the first lapse of a delivery is no crash"
    CHECK_AGE = "what waited long is renewed, and answered, before its handler starts"
    CLAIM_ON_RECONNECT = "a worker claims when it has connected again"
    LEAVE_NAMES_SEEN = "a worker that leaves names what it has read beyond a gap"
    LEAVE_WAITS = "a worker leaves when no claim of it is under way"
    DROP_OLD = "a delivery that was read before is dropped"
    SEE_GAPS = "a worker that misses a delivery claims"
    SKIP_KNOWN = "a worker skips what it has read since it sent the claim"
    NEWEST_ROOM = "a worker believes the room in the newest message or reply"
    UPTO = "a worker has read everything up to the number in the reply"


@attrs.frozen
class Scenario:
    """What a model explores.

    Attributes:
        workers: How many workers there are.
        tasks: How many tasks are submitted, one after the other.
        places: How many tasks a worker holds at most.
        faults: How many faults there are at most.
        kinds: Which faults there are.
        quick: Whether handlers may also start without a confirmation.
        killer: Whether the handler of the first task kills its worker. Another worker comes then.
        max_crashes: A task with so many crashes is dead.
        broken: The rules that are not kept.
    """

    workers: int = 2
    tasks: int = 2
    places: int = 2
    faults: int = 1
    kinds: tuple[str, ...] = FAULTS
    quick: bool = False
    killer: bool = False
    max_crashes: int = 3
    broken: frozenset[Rule] = frozenset()

    def keeps(self, rule: Rule) -> bool:
        """Say whether the model keeps a rule."""
        return rule not in self.broken
