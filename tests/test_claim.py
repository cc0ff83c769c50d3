"""The states of a claim: which change may follow which, and which watchers are notified."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Final

import pytest

from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.claim import LOST, RECALLED, REFUSED, SETTLED, SETTLING, Change, Claim
from rxdispatch.task import Task

STEPS: Final[dict[str, Callable[[Claim[Any]], object]]] = {
    "settling": lambda claim: Claim._settling([claim.done()]),
    "unsettled": lambda claim: Claim._unsettled([claim.done()]),
    "refused": lambda claim: Claim._settled([claim.done()], [False]),
    "settled": lambda claim: Claim._settled([claim.done()], [True]),
    "recalled": lambda claim: claim._recall(),
    "lost": lambda claim: claim._lose(),
}


class Heard:
    """A watcher that records its name and the change."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """Record the change."""
        self._log.append(f"{self._name} {change}")


async def made() -> Claim[int]:
    """Return an open claim."""
    board: MemoryBoard[int] = MemoryBoard("b")
    await board.submit(Task(1, id="a", max_attempts=2))
    return (await board.claim(1))[0]


@pytest.mark.parametrize("steps", list(product(STEPS, repeat=3)), ids="-".join)
async def test_the_invariant_holds_whatever_happens(steps: tuple[str, ...]) -> None:
    """Only SETTLING can be undone, and after SETTLED a claim can only be recalled."""
    claim, log = await made(), list[str]()
    claim._watch(Heard("keeper", log))
    for step in steps:
        before = claim._state
        STEPS[step](claim)
        gone, new = before & ~claim._state, claim._state & ~before
        assert not gone & (RECALLED | LOST | SETTLED)
        assert not gone & REFUSED or new == SETTLED
        assert not (before & LOST and new & RECALLED)
        assert not before & SETTLED or not new & ~(RECALLED | SETTLING)
    # Each event comes once, except that a refusal may turn out to be a settlement.
    assert len(set(log)) + (steps.count("refused") > 0 and "settled" in steps) >= len(log)


@pytest.mark.parametrize(
    ("steps", "stopped", "answered", "lost"),
    [
        ([], None, False, False),
        (["settling"], None, False, False),
        (["settling", "unsettled"], None, False, False),
        (["recalled"], "released", False, False),
        (["recalled", "settling", "unsettled"], "released", False, False),
        (["recalled", "lost"], "released", False, True),
        (["lost", "recalled"], "lost", False, True),
        (["settling", "settled"], None, True, False),
        (["settling", "refused"], None, True, False),
        (["lost", "settling", "refused"], "lost", True, True),
        (["settling", "settled", "lost"], None, True, False),
    ],
)
async def test_what_a_state_means(
    steps: list[str], stopped: str | None, answered: bool, lost: bool
) -> None:
    """The state says whether the handler may begin, whether the board answered, and a loss."""
    claim = await made()
    for step in steps:
        STEPS[step](claim)
    assert (stopped, answered, lost) == (claim._stopped, claim._answered, claim.lost)
    assert (not answered and not lost) == claim._open


async def test_the_operator_is_told_first_and_once() -> None:
    """The handler stops, then the slot becomes free, then the lease is forgotten."""
    claim, log = await made(), list[str]()
    claim._watch(Heard("keeper", log))
    claim._watch(Heard("slots", log))
    claim._operator = Heard("handler", log)
    claim._recall()
    claim._recall()
    assert ["handler recalled", "slots recalled", "keeper recalled"] == log
    claim._lose()
    claim._lose()
    assert ["slots lost", "keeper lost"] == log[3:]


async def test_the_operator_is_not_told_of_settlements() -> None:
    """A handler may settle its own claim and go on, so it is not notified."""
    claim, log = await made(), list[str]()
    claim._watch(Heard("keeper", log))
    claim._operator = Heard("handler", log)
    Claim._settled([claim.done()], [True])
    assert ["keeper settled"] == log


async def test_a_renewal_that_overtakes_a_settlement_is_no_loss() -> None:
    """A refused renewal is no loss while a settlement runs, but is one if that has failed."""
    claim = await made()
    Claim._settling([claim.done()])
    assert not claim._missed()
    Claim._unsettled([claim.done()])
    assert claim._missed()
    Claim._settled([claim.done()], [True])
    assert not claim._missed()


async def test_the_answer_that_held_is_the_last_word() -> None:
    """Of two concurrent settlements, the accepted one counts, whichever reply comes first."""
    claim = await made()
    Claim._settled([claim.retry("no")], [False])
    assert claim._knows("retry")
    assert not claim._knows("done")
    Claim._settled([claim.done()], [True])
    Claim._settled([claim.retry("no")], [False])
    assert claim._knows("retry")
    assert [True, False] == Claim._answers([claim.done(), claim.retry("no")])
    assert claim._state & (SETTLED | REFUSED | SETTLING) == SETTLED


async def test_a_retry_is_written_as_dead_after_the_last_attempt() -> None:
    """The settlement asks for a retry, and its verdict says what the board writes."""
    claim = await made()
    settlement = claim.retry("no")
    assert ("retry", "retry") == (settlement.kind, settlement.verdict)
    claim.attempt = 2
    assert ("retry", "dead") == (settlement.kind, settlement.verdict)
