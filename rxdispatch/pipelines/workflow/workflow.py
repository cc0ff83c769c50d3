"""``Workflow``: a state machine whose history survives its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

from reactivex import Observable
from uuid_utils import uuid7

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.callables import check_function
from rxdispatch.checks import integer, key_name
from rxdispatch.claim import Outcome
from rxdispatch.error_text import describe
from rxdispatch.errors import ConfigError
from rxdispatch.operators import execute, settle
from rxdispatch.operators.tasks._current_claim import current_claim
from rxdispatch.pipelines.workflow.history import WorkflowError, WorkflowResult
from rxdispatch.pipelines.workflow.log import WorkflowLog, patiently
from rxdispatch.pipelines.workflow.states import (
    NextStates,
    State,
    StateFailedError,
    Step,
    check_states,
)
from rxdispatch.results import TaskEvent
from rxdispatch.seconds import seconds
from rxdispatch.task import Status, Task

__all__ = ["Workflow"]

_POLL = 2.0


class Workflow:
    """
    A state machine; the result of a state's function selects the next state.

    :meth:`run` runs it in this process. With a *board* and a *journal*, :meth:`submit` puts it on
    the board, any :meth:`worker` in any process runs it, and the journal records every transition
    exactly once: if a worker is killed, another worker continues after the last record. The
    function of a state, though, runs at least once, so it should be idempotent. The new worker
    counts the attempts of the state from 1 again.

    Args:
        initial: The first state; it must have ``next_states``.
        board: The board on which workflows wait for a worker; for workflows only.
        journal: The board that keeps their transitions until :meth:`forget`; for transitions only.
            Data and results are then plain values, as payloads are: a tuple comes back as a list.
        max_transitions: The number of transitions after which a workflow fails, from 1 to 10,000.

    Raises:
        ConfigError: If an argument breaks its rule, or only one of the boards is given.

    Example:
        >>> async def check(order: dict[str, int]) -> str:
        ...     return "ok" if order["total"] < 100 else "bad"
        >>> workflow = Workflow(initial="new")
        >>> workflow.define_state("new", check, next_states={"ok": "paid", "bad": "refused"})
        >>> workflow.define_state("paid")
        >>> workflow.define_state("refused")
        >>> asyncio.run(workflow.run({"total": 12})).state
        'paid'
    """

    def __init__(
        self,
        initial: str = "new",
        *,
        board: Board[Any] | None = None,
        journal: Board[Any] | None = None,
        max_transitions: int = 100,
    ) -> None:
        integer("max_transitions", max_transitions, 1, 10_000)
        for name, given in (("board", board), ("journal", journal)):
            if given is not None and not isinstance(given, Board):
                raise ConfigError(f"{name} must be a board", given)
        if (board is None) != (journal is None):
            raise ConfigError("board and journal must be given together")
        if board is not None and board is journal:
            raise ConfigError("journal must not be the same board as board", board)
        self._initial = key_name("initial", initial)
        self._board = board
        self._log = None if journal is None else WorkflowLog(journal, max_transitions)
        self._most = max_transitions
        self._states: dict[str, State] = {}

    # -- building ----------------------------------------------------------------------------

    def define_state(
        self,
        name: str,
        process: Callable[[Any], Any] | None = None,
        *,
        next_states: NextStates | None = None,
        failed: str | None = None,
        timeout: float | timedelta | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """
        Add a state; it is terminal if *next_states* is missing or empty.

        Args:
            name: Its name, of 1 to 200 characters.
            process: Called with the data; preferably a coroutine function, as a plain one blocks
                the loop. Returns the result, or a :class:`Move` of a result and new data. It should
                not mutate the data that it gets.
            next_states: The next state by result; or pairs of a predicate on the result and a
                state: the first predicate that holds selects the state.
            failed: The state after an error, once the attempts are used up. Without one the
                workflow ends with a :class:`WorkflowError`.
            timeout: Seconds that an attempt may take; needs a coroutine function.
            backoff: The number of attempts, and the waits in between; None for one attempt.

        Raises:
            ConfigError: If an argument breaks its rule, or the state is defined already.
        """
        key_name("name", name)
        if name in self._states:
            raise ConfigError("name must not be defined already", name)
        following = _following(next_states)
        if (process is None) != (not following):
            raise ConfigError("process and next_states must be given together", name)
        if process is not None:
            check_function("process", process, "data")
        if failed is not None:
            key_name("failed", failed)
        if not following and (failed is not None or timeout is not None or backoff is not None):
            raise ConfigError("failed, timeout and backoff must be given with a process", name)
        if backoff is not None and not isinstance(backoff, Backoff):
            raise ConfigError("backoff must be a Backoff", backoff)
        limit = None if timeout is None else seconds("timeout", timeout, zero=False)
        self._states[name] = State(name, process, following, failed, limit, backoff)

    def validate(self) -> None:
        """
        Check all states together; every method but :meth:`define_state` does so first.

        Raises:
            ConfigError: If a state is unknown or unreachable, or none is terminal.
        """
        check_states(self._states, self._initial)

    # -- running -----------------------------------------------------------------------------

    async def run(self, data: Any, id: str | None = None) -> WorkflowResult:  # noqa: A002
        """
        Run one workflow in this process; nothing is stored.

        Args:
            data: The data for the first state.
            id: Its id in errors and in the result; a UUID version 7 by default.

        Raises:
            ConfigError: As :meth:`validate` does.
            WorkflowError: If a state without a failure state fails, or the workflow does not end
                within ``max_transitions``; the cause is the error.
        """
        self.validate()
        workflow = _id(id)
        steps: list[Step] = []
        while (step := await self._next(workflow, data, steps)) is not None:
            steps.append(step)
        return _result(workflow, self._initial, data, steps)

    async def submit(self, data: Any, id: str | None = None) -> str:  # noqa: A002
        """
        Put a workflow on the board, and return its id.

        If the board already has a workflow with this id, that workflow stays as it is. A workflow
        that has ended does not run again until it is forgotten.

        Raises:
            ConfigError: As :meth:`validate` does, or if there is no board.
            CodecError: If the data cannot be stored.
            StoreUnavailableError: If the server does not answer; repeat the call with the same
                *id*.
        """
        board, _ = self._places()
        workflow = _id(id)
        # One attempt: a state counts its own attempts, and the board counts crashes.
        await board.submit(Task(data, id=workflow, kind="workflow", max_attempts=1))
        return workflow

    def worker(
        self,
        *,
        max_concurrent: int = 16,
        lease: float | timedelta = 30.0,
        worker: str | None = None,
        until: Literal["never", "idle", "joined"] = "never",
    ) -> Observable[Outcome[Any, WorkflowResult]]:
        """
        Run workflows from the board while subscribed; emit an outcome for each that ends here.

        If a workflow is done, ``outcome.result`` is a :class:`WorkflowResult`. If it is dead, the
        cause of ``outcome.error`` is a :class:`WorkflowError`; after ``board.redrive`` the workflow
        continues from the state that it failed in. Disposal cancels running workflows and releases
        them.

        Args:
            max_concurrent: How many run at a time, including those that wait for another attempt.
            lease: Seconds until another process may take over the workflows of a killed process.
            worker: A label for this worker.
            until: When to complete, as for ``board.claims``.

        Raises:
            ConfigError: As :meth:`validate` does, or if an argument breaks its rule.
        """
        board, _ = self._places()
        return board.claims(prefetch=max_concurrent, lease=lease, worker=worker, until=until).pipe(
            execute(self._resume, max_concurrent=max_concurrent), settle(board)
        )

    async def result(self, id: str) -> WorkflowResult:  # noqa: A002
        """
        Wait until a workflow of the board has ended, in any process; may be called again.

        Raises:
            ConfigError: If it was never submitted, or is forgotten.
            WorkflowError: If it is dead: it failed, was cancelled, or crashed its processes more
                often than the board allows. The reason is in ``why``; ``__cause__`` is None.
            StoreUnavailableError: If the server does not answer.
        """
        board, log = self._places()
        ended = asyncio.Event()

        def hear(event: TaskEvent) -> None:
            if event.task_id == id and event.kind in {"done", "dead"}:
                ended.set()

        with board.events.subscribe(hear):
            while True:
                ended.clear()
                state = await board.get(id)
                if state is None or state.status in {Status.DONE, Status.DEAD}:
                    break
                try:
                    # Events may be lost.
                    await asyncio.wait_for(ended.wait(), _POLL)
                except TimeoutError:
                    pass
        steps = await log.read(id)
        at = steps[-1].entry.target if steps else self._initial
        if state is not None and state.status is Status.DEAD:
            history = tuple(step.entry for step in steps)
            raise WorkflowError(id, 0, at, history, state.error or "it is dead")
        if not steps or at not in self._states or not self._states[at].terminal:
            raise ConfigError("id must be the id of a workflow that was submitted", id)
        return _result(id, at, None, steps)

    async def forget(self, id: str) -> None:  # noqa: A002
        """
        Remove the transitions of a workflow that has reached a terminal state.

        Raises:
            ConfigError: If it has not reached one; a dead workflow has not.
            StoreUnavailableError: If the server does not answer.
        """
        board, log = self._places()
        state = await board.get(id)
        if state is not None and state.status is not Status.DONE:
            raise ConfigError("id must be the id of a workflow in a terminal state", id)
        await log.forget(id)

    # -- one workflow ------------------------------------------------------------------------

    async def _resume(self, task: Task[Any]) -> WorkflowResult:
        """Run a claimed workflow from the end of its log."""
        _, log = self._places()
        claim = current_claim()
        steps = await patiently(claim, lambda: log.read(task.id))
        while (step := await self._next(task.id, task.payload, steps)) is not None:
            made, number = step, len(steps) + 1
            try:
                mine = await patiently(claim, lambda: log.add(task.id, number, made))  # noqa: B023
            except ValueError as error:  # data, or a result, that cannot be stored
                raise _failure(task.id, made.entry.attempt, made.entry.source, steps, error) from (
                    error
                )
            if mine:
                steps.append(step)
            else:
                steps = await patiently(claim, lambda: log.read(task.id))
        return _result(task.id, self._initial, task.payload, steps)

    async def _next(self, workflow: str, data: Any, steps: list[Step]) -> Step | None:
        """Run the state that *steps* lead to, and return the next step; None if it is terminal."""
        name, at = self._initial, data
        if steps:
            name, at = steps[-1].entry.target, steps[-1].data
        state = self._states.get(name)
        if state is None:
            lost = ConfigError("state must be defined", name)
            raise _failure(workflow, 0, name, steps, lost) from lost
        if state.terminal:
            return None
        if len(steps) >= self._most:
            rule = f"a workflow must end within max_transitions ({self._most})"
            endless = ConfigError(rule, len(steps) + 1)
            raise _failure(workflow, 0, name, steps, endless) from endless
        try:
            return await state.leave(workflow, at)
        except StateFailedError as failure:
            cause = failure.__cause__
            assert cause is not None
            raise _failure(workflow, failure.attempt, name, steps, cause) from cause

    def _places(self) -> tuple[Board[Any], WorkflowLog]:
        self.validate()
        if self._board is None or self._log is None:
            raise ConfigError("workflow must have a board and a journal")
        return self._board, self._log


def _id(given: str | None) -> str:
    return str(uuid7()) if given is None else key_name("id", given)


def _following(given: Any) -> Any:
    """Return a checked copy of *given*: a dict by result, or pairs of predicate and state."""
    if given is None:
        return ()
    table: Any = given
    by_result = isinstance(given, Mapping)
    if not by_result and not isinstance(given, (list, tuple)):
        raise ConfigError("next_states must be a mapping or a list of pairs", table)
    pairs: list[Any] = [*table.items()] if by_result else [*table]
    for pair in pairs:
        if pair.__class__ is not tuple or len(pair) != 2 or not (by_result or callable(pair[0])):
            raise ConfigError("next_states must be pairs of a predicate and a state", pair)
        key_name("next_states", pair[1])
        if not by_result:
            check_function("each predicate of next_states", pair[0], "result")
    return dict(pairs) if by_result else tuple(pairs)


def _failure(
    workflow: str, attempt: int, state: str, steps: list[Step], error: BaseException
) -> WorkflowError:
    history = tuple(step.entry for step in steps)
    return WorkflowError(workflow, attempt, state, history, describe(error))


def _result(workflow: str, state: str, data: Any, steps: list[Step]) -> WorkflowResult:
    if steps:
        state, data = steps[-1].entry.target, steps[-1].data
    return WorkflowResult(workflow, state, data, tuple(step.entry for step in steps))
