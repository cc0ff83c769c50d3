"""
rxdispatch: reactive, event-driven task dispatch for asyncio.

A *board* is a shared list of tasks that workers claim by status mark instead of by lock; task
flow is made of RxPY observables whose demand flows upstream, so that they stay bounded.

Start with :func:`connect`, ``hub.board(name)``, ``board.submit`` and ``board.claims()``; the
operators are in :mod:`rxdispatch.operators`.
"""

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import BoardBase
from rxdispatch.boards.memory import MemoryBoard
from rxdispatch.boards.redis import RedisBoard
from rxdispatch.clock import LoopScheduler
from rxdispatch.config import Settings, StoreSettings
from rxdispatch.errors import (
    BoardFullError,
    BufferOverflowError,
    CodecError,
    ConfigError,
    ItemTimeoutError,
    NoCapacityError,
    NodeNotFoundError,
    RxDispatchError,
    StaleClaimError,
    StoreUnavailableError,
    TaskExecutionError,
    TaskRejectedError,
)
from rxdispatch.hub import Hub, connect
from rxdispatch.operators.tasks._current import current_claim
from rxdispatch.protocols import Board, Intake, Valve
from rxdispatch.streams._kill_switch import KillSwitch
from rxdispatch.streams._run import run
from rxdispatch.task import (
    Claim,
    Counts,
    DeadLetter,
    Outcome,
    Settlement,
    Status,
    SubmitResult,
    Task,
    TaskEvent,
    TaskState,
)

__all__ = [
    "Backoff",
    "Board",
    "BoardBase",
    "BoardFullError",
    "BufferOverflowError",
    "Claim",
    "CodecError",
    "ConfigError",
    "Counts",
    "DeadLetter",
    "Hub",
    "Intake",
    "ItemTimeoutError",
    "KillSwitch",
    "LoopScheduler",
    "MemoryBoard",
    "NoCapacityError",
    "NodeNotFoundError",
    "Outcome",
    "RedisBoard",
    "RxDispatchError",
    "Settings",
    "Settlement",
    "StaleClaimError",
    "Status",
    "StoreSettings",
    "StoreUnavailableError",
    "SubmitResult",
    "Task",
    "TaskEvent",
    "TaskExecutionError",
    "TaskRejectedError",
    "TaskState",
    "Valve",
    "connect",
    "current_claim",
    "run",
]
