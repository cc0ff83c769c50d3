"""``state_of`` finds the state of a server that refuses to write."""

from __future__ import annotations

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from rxdispatch.store.refusal import state_of

REFUSALS: list[tuple[ResponseError, str | None]] = [
    (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OOM"),
    (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), "OOM"),
    (ResponseError("MISCONF Redis is configured to save RDB snapshots, but"), "MISCONF"),
    (ResponseError("NOREPLICAS Not enough good replicas to write."), "NOREPLICAS"),
    (ResponseError("READONLY You can't write against a read only replica."), "READONLY"),
    (ResponseError("MASTERDOWN Link with MASTER is down"), "MASTERDOWN"),
    (ResponseError("Error running script (call to f_1): @user_script:9: -OOM command"), "OOM"),
    (ResponseError("ERR @user_script: 5: -READONLY You can't write"), "READONLY"),
    (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), None),
    (ResponseError("NOPERM this user has no permissions to run the 'evalsha' command"), None),
    (ResponseError("ERR user_script:1: Script attempted to access nonexistent global 'OOM'"), None),
    (ResponseError("OOMPH"), None),
    (ResponseError("value of key x: MISCONF"), None),
    (ReadOnlyError("READONLY You can't write against a read only replica."), "READONLY"),
    (ResponseError(""), None),
]


@pytest.mark.parametrize(("error", "state"), REFUSALS, ids=lambda value: str(value)[:30])
def test_states(error: ResponseError, state: str | None) -> None:
    """The state is at the start of the error, or inside a script error of an older server."""
    assert state == state_of(error)
