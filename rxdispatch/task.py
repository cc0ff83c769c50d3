"""``Task``: a piece of work; ``Status``: its mark."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import attrs
from uuid_utils import uuid7

from rxdispatch.checks import check_id_size, check_kind, integer, strings, utf8_size
from rxdispatch.errors import ConfigError
from rxdispatch.seconds import seconds

__all__ = ["NO_HEADERS", "Status", "Task"]

P = TypeVar("P")

PRIORITY_LIMIT: Final = 4096
HEADERS_LIMIT: Final = 64 * 1024
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Status(StrEnum):
    """The mark of a task."""

    SCHEDULED = "SCHEDULED"
    READY = "READY"
    CLAIMED = "CLAIMED"
    DONE = "DONE"
    DEAD = "DEAD"


@attrs.define(slots=True, weakref_slot=False, eq=False, init=False)
class _Fields(Generic[P]):
    """
    The fields of a task that is not frozen yet.

    A frozen class sets its fields slowly. So a new task starts as an object of this class, gets its
    fields, and then becomes a Task.
    """

    payload: P
    id: str = attrs.field(kw_only=True)
    kind: str = attrs.field(kw_only=True, default="default")
    priority: int = attrs.field(kw_only=True, default=0)
    delay: float = attrs.field(kw_only=True, default=0.0)
    ttl: float | None = attrs.field(kw_only=True, default=None)
    timeout: float | None = attrs.field(kw_only=True, default=None)
    max_attempts: int = attrs.field(kw_only=True, default=5)
    headers: Mapping[str, str] = attrs.field(kw_only=True, default=NO_HEADERS)


_NAMES: Final = tuple(field.name for field in attrs.fields(_Fields))

# Compared by identity, so that every str that a caller gives counts as an id.
_NEW: Final = b"a new UUID".decode()


@attrs.frozen(  # pyright: ignore[reportGeneralTypeIssues]
    slots=True, weakref_slot=False, hash=False, init=False
)
class Task(_Fields[P]):
    """
    A piece of work.

    Args:
        payload: The data for the handler: anything that msgspec can encode as MessagePack, at most
            1 MiB, without NaN or infinity.
        id: Unique on its board, at most 1,024 bytes in UTF-8; a UUID version 7 by default.
            Boards store it unchanged.
        kind: A label that tells handlers apart, of 1 to 200 characters.
        priority: Higher first, an int from -4096 to 4096.
        delay: Seconds to wait before the task is ready.
        ttl: Seconds from submission after which the task is dead unless an attempt is running.
        timeout: Seconds that an attempt may take; overrides the timeout of ``execute``.
        max_attempts: How many attempts the task gets before it is dead.
        headers: Short strings beside the payload, such as a trace context; names and values
            together at most 64 KiB in UTF-8.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> Task({"path": "a.py"}, id="a.py", priority=5).priority
        5
    """

    def __init__(
        self,
        payload: P,
        *,
        id: str = _NEW,  # noqa: A002 - the word for it
        kind: str = "default",
        priority: int = 0,
        delay: float | timedelta = 0.0,
        ttl: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        max_attempts: int = 5,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        # Plain comparisons: validators of attrs would cost more than the rest of a submit.
        if id is _NEW:
            id = str(uuid7())  # noqa: A001
        elif id.__class__ is not str or not id:
            raise ConfigError("id must be a str that is not empty", id)
        elif len(id) > 256:
            check_id_size(id)
        if kind != "default":
            check_kind(kind)
        if priority.__class__ is not int or not -4096 <= priority <= 4096:
            raise ConfigError(
                f"priority must be an int from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}", priority
            )
        if delay.__class__ is not float or delay != 0.0:
            delay = seconds("delay", delay)
        if ttl is not None:
            ttl = seconds("ttl", ttl, zero=False)
        if timeout is not None:
            timeout = seconds("timeout", timeout, zero=False)
        integer("max_attempts", max_attempts)
        if headers is not NO_HEADERS:
            headers = _checked_headers(headers)
        if self.__class__ is not Task:
            # _Fields has no slots for the fields that a subclass adds.
            given = (payload, id, kind, priority, delay, ttl, timeout, max_attempts, headers)
            for name, value in zip(_NAMES, given, strict=True):
                object.__setattr__(self, name, value)
            return
        made: Any = self
        object.__setattr__(made, "__class__", _Fields)
        made.payload = payload
        made.id = id
        made.kind = kind
        made.priority = priority
        made.delay = delay
        made.ttl = ttl
        made.timeout = timeout
        made.max_attempts = max_attempts
        made.headers = headers
        made.__class__ = Task

    @classmethod
    def trusted(cls, payload: Any, task_id: str, kind: str = "default") -> Task[Any]:
        """Return a task with default settings but its kind, without checking the arguments."""
        # Field by field, which takes a third of the time of the initializer.
        plain: Any = _Fields
        made: Any = object.__new__(plain)
        made.payload = payload
        made.id = task_id
        made.kind = kind
        made.priority = 0
        made.delay = 0.0
        made.ttl = None
        made.timeout = None
        made.max_attempts = 5
        made.headers = NO_HEADERS
        made.__class__ = cls
        task: Task[Any] = made
        return task

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, and process pools pickle tasks.
        fields: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        fields["headers"] = dict(self.headers)
        return _restore, (fields,)


def _checked_headers(given: Any) -> Mapping[str, str]:
    headers = strings("headers", given)
    size = sum(utf8_size(name) + utf8_size(value) for name, value in headers.items())
    if size > HEADERS_LIMIT:
        raise ConfigError(f"headers must be at most {HEADERS_LIMIT} bytes in UTF-8", size)
    return headers


def _restore(fields: dict[str, Any]) -> Task[Any]:
    fields["headers"] = fields["headers"] or NO_HEADERS
    return Task(**fields)
