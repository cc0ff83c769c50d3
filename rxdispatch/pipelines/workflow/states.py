"""``State``: one state of a workflow, its function and its next states."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from rxdispatch.backoff import Backoff
from rxdispatch.callables import check_result
from rxdispatch.error_text import describe
from rxdispatch.errors import ConfigError
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.pipelines.shared.outside import is_from_outside
from rxdispatch.pipelines.workflow.history import Move, Transition

__all__ = ["NextStates", "State", "StateFailedError", "Step", "check_states"]

NextStates = Mapping[Any, str] | Sequence[tuple[Callable[[Any], object], str]]


class Step(NamedTuple):
    """A transition, and the data after it."""

    entry: Transition
    data: Any


class StateFailedError(Exception):
    """Carries the error of a state, its cause, to the workflow; it never reaches users."""

    def __init__(self, attempt: int) -> None:
        super().__init__(attempt)
        self.attempt = attempt


@attrs.frozen(slots=True)
class State:
    """
    One state; terminal if it has no *next_states*.

    Args:
        name: Its name.
        process: The function, called with the data.
        next_states: The next state by result, or by predicates on the result.
        failed: The state after an error.
        timeout: Seconds that an attempt may take.
        backoff: The number of attempts, and the waits in between.
    """

    name: str
    process: Callable[[Any], Any] | None
    next_states: Mapping[Any, str] | tuple[tuple[Callable[[Any], object], str], ...]
    failed: str | None
    timeout: float | None
    backoff: Backoff | None

    @property
    def terminal(self) -> bool:
        """Whether a workflow ends here."""
        return not self.next_states

    @property
    def targets(self) -> list[str]:
        """The states that may come next."""
        named = self.next_states
        found = [*named.values()] if isinstance(named, Mapping) else [to for _, to in named]
        return found if self.failed is None else [*found, self.failed]

    async def leave(self, workflow: str, data: Any) -> Step:
        """
        Call the function, repeat the call if it fails, and choose the next state.

        Raises:
            StateFailedError: If all attempts failed and there is no failure state.
        """
        attempt = 1
        while True:
            try:
                result = await self._call(workflow, data)
                break
            except BaseException as error:
                if is_from_outside(error) or isinstance(error, KeyboardInterrupt):
                    raise
                if self.backoff is None or not self.backoff.goes_on(attempt):
                    return self._fail(attempt, data, error)
                await asyncio.sleep(self.backoff.delay(attempt))
                attempt += 1
        if isinstance(result, Move):
            result, data = result.result, result.data
        try:
            target = self._choose(result)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a wrong result stays wrong: no other attempt
            return self._fail(attempt, data, error)
        return Step(Transition(self.name, target, result, time.time(), attempt), data)

    async def _call(self, workflow: str, data: Any) -> Any:
        assert self.process is not None
        work = self.process(data)
        if not inspect.isawaitable(work):
            check_result(f"process of {self.name!r}", work)
            return work
        return await run_with_timeout(work, workflow, self.timeout, name=repr(workflow))

    def _choose(self, result: Any) -> str:
        named = self.next_states
        if isinstance(named, Mapping):
            # An unhashable result raises TypeError, which says so.
            if result in named:
                return named[result]
            raise ConfigError(f"result of {self.name!r} must be one of {[*named]}", result)
        for holds, target in named:
            if holds(result):
                return target
        raise ConfigError(f"result of {self.name!r} must satisfy one of its predicates", result)

    def _fail(self, attempt: int, data: Any, error: BaseException) -> Step:
        if self.failed is None:
            raise StateFailedError(attempt) from error
        why = describe(error)
        return Step(Transition(self.name, self.failed, None, time.time(), attempt, why), data)


def check_states(states: Mapping[str, State], initial: str) -> None:
    """
    Check all states together.

    Raises:
        ConfigError: If a state is unknown or unreachable, or no reachable one is terminal.
    """
    if initial not in states:
        raise ConfigError("initial must be a defined state", initial)
    if states[initial].terminal:
        raise ConfigError("initial must be a state with next_states", initial)
    for state in states.values():
        for target in state.targets:
            if target not in states:
                raise ConfigError(f"next states of {state.name!r} must be defined", target)
    reached, ahead = {initial}, [initial]
    while ahead:
        new = set(states[ahead.pop()].targets) - reached
        reached |= new
        ahead += new
    for name in states:
        if name not in reached:
            raise ConfigError("every state must be reachable from the initial one", name)
    if not any(state.terminal for state in states.values()):
        raise ConfigError("there must be a terminal state, one without next_states")
