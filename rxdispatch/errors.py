"""
The exceptions of rxdispatch.

::

    RxDispatchError
     ├── ConfigError (ValueError)          an argument or a setting breaks its rule
     ├── CodecError (ValueError)           a payload cannot be encoded or decoded
     ├── BoardFullError                    the board has no room for more tasks
     ├── TaskRejectedError                 an ingress, an actor or a pipeline refused an item
     ├── TaskExecutionError                a handler failed; its error is the cause
     │    ├── ActorError                   the handler of an actor
     │    ├── StageError                   the function of a stage
     │    └── WorkflowError                a state of a workflow
     ├── RemoteError                       a function over HTTP returned no result
     ├── ProcessCallError                  an error in another process that cannot be raised here
     ├── ItemTimeoutError (TimeoutError)   an item took too long
     ├── BufferOverflowError               a bounded buffer was full
     ├── NodeNotFoundError                 no node with that id is registered
     ├── NoCapacityError                   no node has room
     └── StoreUnavailableError             the server cannot be reached, does not answer in time,
                                           or refuses to write

A name in brackets is a built-in class that the error also has as a base. Each error takes facts,
keeps them as attributes and builds its message from them: the rule first, then the value.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BoardFullError",
    "BufferOverflowError",
    "CodecError",
    "ConfigError",
    "ItemTimeoutError",
    "NoCapacityError",
    "NodeNotFoundError",
    "ProcessCallError",
    "RxDispatchError",
    "StoreUnavailableError",
    "TaskExecutionError",
    "TaskRejectedError",
]


class RxDispatchError(Exception):
    """The root of every error that rxdispatch raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, unpickling calls the class with the message, which these classes do not take.
        # An error that cannot be unpickled breaks the process pool that it was raised in.
        return _restore, (type(self), self.args, self.__dict__)


class ConfigError(RxDispatchError, ValueError):
    """
    An argument or a setting breaks a rule.

    Args:
        rule: The rule, such as ``"count must be >= 1"``.
        value: The value that breaks it; omitted when it may hold a secret.
    """

    def __init__(self, rule: str, *value: Any) -> None:
        self.rule = rule
        self.value = value[0] if value else None
        super().__init__(f"{rule}, got {_short(value[0])}" if value else rule)


class CodecError(RxDispatchError, ValueError):
    """
    A payload cannot be encoded, or stored bytes cannot be decoded.

    Args:
        rule: The rule, such as ``"payload must be at most 1048576 bytes"``.
        value: The value that breaks it.
        task_id: The task, if it is known.
    """

    def __init__(self, rule: str, *value: Any, task_id: str | None = None) -> None:
        self.rule = rule
        self.value = value[0] if value else None
        self.task_id = task_id
        text = f"{rule}, got {_short(value[0])}" if value else rule
        super().__init__(text if task_id is None else f"task {task_id!r}: {text}")


class BoardFullError(RxDispatchError):
    """
    A board has no room for more tasks; the tasks on it can still be worked on and settled.

    Args:
        board: The board's name.
        accepted: The ids that were written before the board was full.
        why: The reason, such as what is full.
    """

    def __init__(self, board: str, accepted: tuple[str, ...] = (), why: str = "") -> None:
        self.board = board
        self.accepted = accepted
        self.why = why
        tail = f": {why}" if why else ""
        super().__init__(f"board {board!r} must have room for new tasks, got a full one{tail}")


class TaskRejectedError(RxDispatchError):
    """
    An ingress, an actor or a pipeline refused an item: it is closed, or a rule forbids the item.

    Args:
        reason: The reason for the refusal.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"task refused: {reason}")


class TaskExecutionError(RxDispatchError):
    """
    A handler failed; the handler's own error is the ``__cause__``.

    Args:
        task_id: The task that failed.
        attempt: The number of the attempt, from 1.
    """

    def __init__(self, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self.attempt = attempt
        super().__init__(f"task {task_id!r} failed at attempt {attempt}")


class ItemTimeoutError(RxDispatchError, TimeoutError):
    """
    An item took longer than its timeout.

    The message names the item by its id or its type, never by its value.

    Args:
        seconds: The timeout.
        item: The item, or None if the wait for the next item took too long.
        name: The name of the item in the message; taken from *item* when None.
    """

    def __init__(self, seconds: float, item: Any = None, name: str | None = None) -> None:
        self.seconds = seconds
        self.item = item
        super().__init__(f"{name or _called(item)} must be done within {seconds:g} s")


class BufferOverflowError(RxDispatchError):
    """
    A bounded buffer was full, and its overflow policy is ``"error"``.

    Args:
        size: The number of items that the buffer holds.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"buffer must hold at most {size} items")


class ProcessCallError(RxDispatchError):
    """
    A function failed in another process, and its error cannot be raised here.

    The original error cannot be pickled or unpickled, or it is one that ends a process, such as
    ``SystemExit``. The ``__cause__`` holds its traceback.

    Args:
        kind: The type of the original error, by name.
        text: The message of the original error.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text
        super().__init__(f"{kind}: {text}" if text else kind)


class NodeNotFoundError(RxDispatchError):
    """
    No node with that id is registered.

    Args:
        node_id: The id.
    """

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(f"node {node_id!r} must be registered")


class NoCapacityError(RxDispatchError):
    """
    No node has room for one more job.

    Args:
        criteria: The criteria that a node had to match.
    """

    def __init__(self, criteria: str) -> None:
        self.criteria = criteria
        super().__init__(f"a node with room must match {criteria}")


class StoreUnavailableError(RxDispatchError):
    """
    The server cannot be reached, does not answer in time, or refuses to write.

    An error of the operating system or of TLS is the ``__cause__``.

    Args:
        operation: The operation that failed.
        maybe_executed: True if the server may have carried out the request: it was sent, and only
            its reply is missing.
        accepted: For a submit of several chunks, the ids that the server acknowledged before this.
        state: The answer of a server that refuses to write for now, such as ``MISCONF`` or
            ``READONLY``.
        why: The reason, such as ``connection refused``; empty if no answer came and nothing more
            is known.
    """

    def __init__(
        self,
        operation: str,
        *,
        maybe_executed: bool = False,
        accepted: tuple[str, ...] = (),
        state: str = "",
        why: str = "",
    ) -> None:
        self.operation = operation
        self.maybe_executed = maybe_executed
        self.accepted = accepted
        self.state = state
        self.why = why
        if state:
            text = f"must accept writes, it says {state}"
        else:
            reached = "did not answer in time" if maybe_executed or not why else "must be reachable"
            reason = f" ({why})" if why else ""
            text = f"{reached}{reason}{'; it may have been executed' if maybe_executed else ''}"
        super().__init__(f"{operation}: the server {text}")


def _restore(kind: type[RxDispatchError], args: tuple[Any, ...], facts: Any) -> RxDispatchError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


def _called(item: Any) -> str:
    if item is None:
        return "the next item"
    try:
        name = item.id
    except Exception:
        name = None  # no such attribute, or a property that raises
    return repr(name) if isinstance(name, str) else f"an item of type {type(item).__name__}"


def _short(value: Any, limit: int = 200) -> str:
    """Return the repr of *value*, cut so that a message stays readable."""
    try:
        text = repr(value)
    except Exception:
        # The user's code, or an int of more digits than Python prints.
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
