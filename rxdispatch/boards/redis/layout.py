"""The binary forms of what a board on a server stores; the scripts read and write them too."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any, Final

from rxdispatch.boards.task_codec import NewTask
from rxdispatch.claim import Claim

__all__ = [
    "LENGTHS",
    "TRIES",
    "body_of",
    "kind_bytes",
    "kind_text",
    "read_grave",
    "read_kinds",
    "read_tries",
    "record_of",
    "runs_of_kinds",
]

LENGTHS: Final = 3
"""The largest first byte of a length of a kind; MessagePack begins with a larger one."""

TRIES: Final = struct.Struct(">IIB")
"""The beginning of an entry of ``tries``; the last error follows."""

_PLAIN: Final = frozenset(["default"])
_GRAVE: Final = struct.Struct(">IIdHH")


def record_of(entry: NewTask) -> bytes:
    """Return the record of a new task: its kind, unless that is ``default``, and its bytes."""
    if entry.kind == "default":
        return entry.record
    kind = kind_bytes(entry.kind)
    return len(kind).to_bytes(2, "big") + kind + entry.record


def kind_bytes(kind: str) -> bytes:
    """Return a kind as it is stored."""
    return kind.encode("utf-8", "surrogatepass")


def body_of(record: bytes) -> bytes:
    """Return a record without the kind before it; MessagePack begins with a larger byte."""
    if record and record[0] <= LENGTHS:
        return record[2 + int.from_bytes(record[:2], "big") :]
    return record


def kind_text(record: bytes) -> str:
    """Return the kind before a record; ``default`` if there is none."""
    if record and record[0] <= LENGTHS:
        kind = record[2 : 2 + int.from_bytes(record[:2], "big")]
        return kind.decode("utf-8", "replace") or "default"
    return "default"


def read_kinds(field: bytes) -> set[bytes]:
    """Return the kinds in a list of kinds, as the fields ``aside`` and ``paused`` have it."""
    kinds, at = set[bytes](), 0
    while at < len(field):
        start = at + 2
        at = start + int.from_bytes(field[at:start], "big")
        kinds.add(field[start:at])
    return kinds


def runs_of_kinds(claims: list[Claim[Any]]) -> list[bytes | int]:
    """Sort *claims* by kind; return each kind and how many have it, nothing if none is needed."""
    if {claim.task.kind for claim in claims} <= _PLAIN:
        return []
    claims.sort(key=lambda claim: claim.task.kind)
    counted = Counter(claim.task.kind for claim in claims)
    return [value for kind in sorted(counted) for value in (kind_bytes(kind), counted[kind])]


def read_tries(past: bytes | None) -> tuple[int, int]:
    """Return the failed attempts and the crashes in an entry of ``tries``."""
    # A value that a restore or another client has truncated must not stop a worker.
    if not past or len(past) < TRIES.size:
        return 0, 0
    attempts, crashes, _ = TRIES.unpack_from(past)
    return attempts, crashes


def read_grave(grave: bytes) -> tuple[str, bytes, int, int]:
    """Return the reason, the cause, and the counts in an entry of ``grave``."""
    if len(grave) < _GRAVE.size:
        return "", b"", 0, 0
    attempts, crashes, _, kind, length = _GRAVE.unpack_from(grave)
    text = grave[_GRAVE.size + kind :]
    return text[:length].decode("utf-8", "replace"), text[length:], attempts, crashes
