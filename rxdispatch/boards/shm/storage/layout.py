"""The marks and offsets of a board in shared memory; see docs/explanation/shared-memory.md."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["CELL", "HEAD", "INLINE", "NONE", "TASK", "Head", "make_mark", "number_of"]

MAGIC: Final = 0x52584453484D3031
VERSION: Final = 2

# -- marks: state (4 bits), number (34), low (26) ---------------------------------------------

(
    FREE,
    WRITING,  # low: the participant that may write it
    TAIL,  # bytes that belong to a head
    FRESH,  # ready since its submission, unless STAGING is its number; low: its place in the ring
    FRESH_LATER,  # scheduled since its submission, unless STAGING is its number
    READY,
    LATER,  # scheduled
    CLAIMED,  # number: that of the token; low: the tick at which the lease lapses
    DEAD,
    MOVED,  # low: the cell of the next version
    PENDING,  # a next version that may not be decided yet; low: the participant that decides
    GONE,  # finished; its tails are being freed
    DISCARD,  # dead and discarded; counted unless INTENT is its number
    DONE,  # remembered; low: the tick at which the board forgets it
    ABORT,  # a next version whose move was not decided; its own tails are being freed
) = range(15)
NO_TASK: Final = frozenset((FREE, WRITING, TAIL, GONE, DISCARD, ABORT))
"""The states of a cell that does not hold a task, or no longer does."""

NUMBER_BITS: Final = 34
LOW_BITS: Final = 26
NUMBERS: Final = (1 << NUMBER_BITS) - 1
LOWS: Final = (1 << LOW_BITS) - 1
STATE_SHIFT: Final = NUMBER_BITS + LOW_BITS
IN_RING: Final = 1 << 25
PLACES: Final = IN_RING - 1
TICK: Final = 10_000
"""Microseconds of a lease tick; 26 bits of ticks are 7.7 days, and comparisons are modulo that."""
LEASE_LIMIT: Final = 259_200.0
"""The most seconds that a lease may last: less than half the range of ticks."""

CELL: Final = 192
NONE: Final = 0xFFFFFFFF
LINK: Final = 1 << 63
"""The bit in a tail's first word by which it differs from the birth of a head."""
TO_END: Final = 1
"""The flag of a scheduled task that joins the end when it is due."""


class Head(NamedTuple):
    """The first 112 bytes of a head cell; times are in microseconds."""

    birth: int = 0
    attempts: int = 0
    crashes: int = 0
    id_size: int = 0
    kind: int = 0
    body_size: int = 0
    expires: int = 0
    chain: int = NONE
    text: int = NONE
    chain_number: int = 0
    text_number: int = 0
    at: int = 0
    tie: int = 0
    due: int = 0
    priority: int = 0
    final: int = 0
    flags: int = 0
    reason_size: int = 0
    error_size: int = 0
    death: int = 0
    old_word: int = 0
    old_cell: int = 0
    old_birth: int = 0


HEAD: Final = struct.Struct("<QIIHHIqIIQQqQqhBBHHqQII")
INLINE: Final = CELL - HEAD.size
PIECE: Final = CELL - 8
TASK: Final = struct.Struct(f"<8xIIH2xIqII{HEAD.size - 40}x{INLINE}s")
"""The fields of a head that a claim reads: attempts to text but the kind, and the inline bytes."""
ID_SIZE_AT: Final = 16
KIND_AT: Final = 18
"""Offsets in a head."""

# -- the header -------------------------------------------------------------------------------

HEADER: Final = 4096
(AT_MAGIC, AT_VERSION, AT_CELLS, AT_RING, AT_INDEX, AT_SPARE, AT_SIZE, AT_MADE) = range(0, 64, 8)
# Each word that many processes write has a cache line of its own.
NUMBER, RING_HEAD, RING_TAIL, HINTS, MOVES, ENDS = range(128, 128 + 6 * 64, 64)
(
    STAGING,
    STAGED_TAIL,
    STAGED_ACCEPTED,
    ACCEPTED,
    DISCARDED,
    INTENT,
    INTENT_CELL,
    INTENT_TOTAL,
    FREE_GUESS,
    CURSOR,
    HIGH,
    MAX_CRASHES,
    REMEMBER,
    DEAD_LIMIT,
    PAUSED,
    RESUMES,
    SKEW,
    EARLIEST,
    LAST_DEATH,
    DEAD_GUESS,
    LISTENING,
    EVENTS,
    CANCELS,
) = range(512, 512 + 23 * 8, 8)
ALL_PAUSED: Final = 1
"""The bit of PAUSED that says that all claims are paused."""
KINDS_PAUSED: Final = 2
"""The bit of PAUSED that says that a kind was paused once, so that PAUSED_KINDS must be read."""
PAUSED_KINDS: Final = 768
"""A bit for each kind, in 16 words."""
NAME_AT: Final = 1024
SEATS_AT: Final = 2048
SEATS: Final = 256

KINDS: Final = 1024
KIND: Final = 16
"""Bytes of the table for each kind: a digest of its name, and how many versions it has had."""
KIND_SHIFT: Final = 32
"""A word of the ring has a cell, and from this bit on the kind of its task."""

LABELS: Final = 8
LABEL: Final = 832
HINT_SLOTS: Final = 1 << 16
EVENT_BYTES: Final = 1 << 20
WINDOW: Final = 48
CELL_LIMIT: Final = 1 << 24


def make_mark(state: int, number: int, low: int = 0) -> int:
    """Return a mark."""
    return state << STATE_SHIFT | (number & NUMBERS) << LOW_BITS | low


def number_of(mark: int) -> int:
    """Return the number of a mark."""
    return mark >> LOW_BITS & NUMBERS
