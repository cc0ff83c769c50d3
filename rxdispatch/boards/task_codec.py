"""``TaskCodec``: converts tasks to the bytes that boards store, and back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from rxdispatch.checks import check_id_size
from rxdispatch.error_text import TRACEBACK_LIMIT, describe
from rxdispatch.errors import CodecError, ConfigError, RxDispatchError
from rxdispatch.payload_rules import (
    check_payload,
    check_readable,
    maybe_nested,
    maybe_unsafe,
    openers_of,
    too_deep,
)
from rxdispatch.payload_types import decode_hook, encode_hook, require_decodable
from rxdispatch.task import NO_HEADERS, Task

__all__ = [
    "SIZE_LIMIT",
    "NewTask",
    "TaskCodec",
    "check_id",
    "created_of",
    "delay_of",
    "id_bytes",
    "id_text",
    "kind_of",
    "pack_cause",
    "unpack_cause",
]

SIZE_LIMIT: Final = 1024 * 1024
"""The most bytes that an encoded payload may have."""

_BETWEEN: Final = b"\xff"  # Separates an error from its traceback; UTF-8 never has this byte.

P = TypeVar("P")


class NewTask(msgspec.Struct, gc=False):
    """A new task in its encoded form; times are in seconds, and a ``ttl`` of 0 means none."""

    id: str
    record: bytes
    priority: int
    delay: float
    ttl: float
    kind: str = "default"

    @property
    def size(self) -> int:
        """How many bytes it adds to a request; an id that is not ASCII adds a few more."""
        return len(self.id) + len(self.record)


class Record(msgspec.Struct, Generic[P], array_like=True, gc=False):
    """A stored task. If all options have their defaults, only the first two fields are stored."""

    payload: P
    created: int
    kind: str = "default"
    timeout: float | None = None
    max_attempts: int = 5
    headers: dict[str, str] | None = None
    priority: int = 0
    delay: float = 0.0
    ttl: float | None = None


_encode = msgspec.msgpack.Encoder(enc_hook=encode_hook).encode
_bare: Final = msgspec.msgpack.Decoder(Record[msgspec.Raw])
_PLAIN_RECORD: Final = (
    0x92  # an array of two: the fields after payload and time have their defaults
)
_PLAIN: Final = frozenset({str, bytes, int, bool, type(None)})


class TaskCodec(Generic[P]):
    """
    Encodes tasks for a board and decodes them again.

    The format is MessagePack, written by msgspec. It can have plain values, attrs classes,
    dataclasses, Structs, pydantic models and paths; other types are refused. Unlike pickle,
    decoding never runs the sender's code.

    Args:
        payload: The type to decode payloads into; None for plain values.

    Raises:
        ConfigError: If msgspec cannot decode into that type, or into a type inside it.
    """

    def __init__(self, payload: type[P] | None = None) -> None:
        self.payload = payload
        target: Any = Any if payload is None else payload
        require_decodable("payload", target)
        record: Any = Record
        try:
            self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
                record[target], dec_hook=decode_hook, ext_hook=_refuse_extension
            )
        except Exception as error:
            raise ConfigError("payload must be a type that msgspec can decode", payload) from error

    def encode_all(self, tasks: Iterable[Task[Any]]) -> list[NewTask]:
        """
        Encode *tasks*, all of them or none.

        Raises:
            ConfigError: If an item is not a Task, or has an id that cannot be stored.
            CodecError: If a payload is too large, too deep, not finite or not encodable.
        """
        created = int(time.time() * 1000)
        entries: list[NewTask] = []
        add = entries.append
        for task in tasks:
            if not isinstance(task, Task):
                raise ConfigError("tasks must be rxdispatch.Task objects", task)
            check_id(task.id)
            record = _record(task, created)
            if len(record) > SIZE_LIMIT or task.payload.__class__ not in _PLAIN:
                _check(task, record, self)
            add(NewTask(task.id, record, task.priority, task.delay, task.ttl or 0.0, task.kind))
        return entries

    def decode(self, task_id: str, record: bytes) -> Task[P]:
        """
        Decode a stored task.

        Raises:
            CodecError: If the bytes are not a record, or the payload does not fit the type.
        """
        try:
            found = self._decoder.decode(record)
            if record[0] == _PLAIN_RECORD:
                return Task.trusted(found.payload, task_id)
            return Task(
                found.payload,
                id=task_id,
                kind=found.kind,
                priority=found.priority,
                delay=found.delay,
                ttl=found.ttl,
                timeout=found.timeout,
                max_attempts=found.max_attempts,
                headers=found.headers or NO_HEADERS,
            )
        except Exception as error:  # A user's payload type may raise anything.
            raise _undecodable(task_id, error) from error


def created_of(record: bytes) -> float:
    """
    Return when a task was submitted, in seconds since 1970, without decoding its payload.

    Returns 0 if the bytes are not a record.
    """
    try:
        return _bare.decode(record).created / 1000
    except msgspec.MsgspecError:
        return 0.0


def delay_of(record: bytes) -> float:
    """Return the delay with which a task was submitted, in seconds."""
    return 0.0 if record[0] == _PLAIN_RECORD else _bare.decode(record).delay


def kind_of(record: bytes) -> str:
    """Return the kind of a task without decoding its payload; ``default`` if it is no record."""
    if not record or record[0] == _PLAIN_RECORD:
        return "default"
    try:
        return _bare.decode(record).kind
    except msgspec.MsgspecError:
        return "default"


def _record(task: Task[Any], created: int) -> bytes:
    fields: Sequence[Any] = (task.payload, created)
    if (
        task.priority
        or task.delay
        or task.headers
        or task.ttl is not None
        or task.timeout is not None
        or task.max_attempts != 5
        or task.kind != "default"
    ):
        fields = (
            *fields,
            task.kind,
            task.timeout,
            task.max_attempts,
            dict(task.headers) if task.headers else None,
            task.priority,
            task.delay,
            task.ttl,
        )
    try:
        return _encode(fields)
    except RecursionError as error:
        raise _too_deep(task) from error
    except Exception as error:  # A pydantic model's own serializers may raise anything.
        raise CodecError(f"payload must be encodable: {_text(error)}", task_id=task.id) from error


def _check(task: Task[Any], record: bytes, codec: TaskCodec[Any]) -> None:
    """Refuse payloads that can be encoded but not stored; the cheap tests come first."""
    if len(record) > SIZE_LIMIT:
        size = len(_encode(task.payload))
        if size > SIZE_LIMIT:
            raise CodecError(f"payload must be at most {SIZE_LIMIT} bytes", size, task_id=task.id)
    openers = openers_of(record)
    if maybe_unsafe(record, openers):
        try:
            packed = _encode(task.payload)
        except RecursionError as error:
            raise _too_deep(task) from error
        # The time in the record may be what looks unsafe, so test the payload alone.
        if maybe_unsafe(packed, openers_of(packed)):
            check_payload("payload", packed, task.id)
            return
    if len(openers) > 2 and maybe_nested(openers):
        # One of the openers belongs to the record itself.
        try:
            check_readable("payload", record, task.id)
        except CodecError:
            # With a payload type, keys may be dataclasses, for example. Then the type decides.
            if codec.payload is None:
                raise
            codec.decode(task.id, record)


def _undecodable(task_id: str, error: Exception) -> CodecError:
    return CodecError(f"stored bytes must be a task: {_text(error)}", task_id=task_id)


def _text(error: Exception) -> str:
    # The messages of msgspec suffice; other errors come from the user's types.
    plain = isinstance(error, (TypeError, msgspec.MsgspecError, RxDispatchError))
    return str(error) if plain else describe(error)


def _too_deep(task: Task[Any]) -> CodecError:
    return too_deep("payload", type(task.payload), task_id=task.id)


def _refuse_extension(code: int, _: memoryview) -> Any:
    raise ValueError(f"MessagePack extension type {code} is not allowed")


def check_id(task_id: Any) -> None:
    """
    Raise ConfigError for an id that no board can store.

    Raises:
        ConfigError: If it is not a str, is empty, has more than 1,024 bytes, or contains a
            surrogate that does not encode a byte.
    """
    if not isinstance(task_id, str) or not task_id:
        raise ConfigError("id must be a str that is not empty", task_id)
    if len(task_id) > 256:
        check_id_size(task_id)
    id_bytes(task_id)


def id_bytes(task_id: str) -> bytes:
    """
    Return the bytes of an id: UTF-8, or the bytes from which ``os.fsdecode`` made it.

    Raises:
        ConfigError: If the id contains a surrogate that does not encode a byte.
    """
    try:
        return task_id.encode()
    except UnicodeEncodeError:
        stored = task_id.encode("utf-8", "surrogateescape") if _escaped(task_id) else b""
        if not stored or id_text(stored) != task_id:
            raise ConfigError("id must be encodable as UTF-8", task_id) from None
        return stored


def id_text(stored: bytes) -> str:
    """Return the id that is stored as *stored*."""
    return stored.decode("utf-8", "surrogateescape")


def _escaped(task_id: str) -> bool:
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in task_id)


def pack_cause(error: str, traceback: str = "", limit: int = TRACEBACK_LIMIT) -> bytes:
    """
    Return an error and its traceback as UTF-8 with a byte 255 between them.

    Without a traceback, return the error only.

    Args:
        error: The type and message of the error.
        traceback: The text of the traceback.
        limit: The most bytes of the traceback to keep, from its end.
    """
    first = error.encode("utf-8", "replace")
    if not traceback or limit <= 0:
        return first
    second = traceback.encode("utf-8", "replace")
    if len(second) > limit:
        # This leaves out a character that was cut in two.
        second = b"..." + second[len(second) - limit + 3 :].decode(errors="ignore").encode()
    return first + _BETWEEN + second


def unpack_cause(stored: bytes) -> tuple[str, str]:
    """Return the error and the traceback."""
    error, _, traceback = stored.partition(_BETWEEN)
    return error.decode("utf-8", "replace"), traceback.decode("utf-8", "replace")
