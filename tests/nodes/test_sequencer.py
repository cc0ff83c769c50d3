"""``Sequencer`` applies messages in order, and holds them back after a gap."""

from __future__ import annotations

import struct
from typing import Any

from structlog.testing import capture_logs

from rxdispatch.node import Node
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.records import MESSAGE_LIMIT, NodeRow, pack_record
from rxdispatch.nodes.replica.replica import Replica
from tests.nodes.replicas import FIRST, SECOND, Watcher, record

HEAD = struct.Struct(">B16sQI")
ROW = struct.Struct(">BQIHI")


class Bench:
    """A sequencer of an empty fleet that has caught up."""

    def __init__(self) -> None:
        self.watcher, self.counters, self.gaps = Watcher(), Counters(), 0
        self.replica = Replica({}, lambda: 0.0, self.watcher)
        self.watcher.replica = self.replica
        self.replica.replace(FIRST, [], 0)
        self.sequencer = Sequencer(self.replica, self.counters, self.on_gap)
        self.sequencer.receive(None)
        self.sequencer.resubscribed = False
        self.sequencer.caught_up()
        self.gaps = 0

    def on_gap(self) -> None:
        """Count the gap."""
        self.gaps += 1

    def catch_up(self, up_to: int, *rows: NodeRow) -> None:
        """Apply the missing rows."""
        self.replica.fill(rows, up_to, complete=True)
        self.sequencer.caught_up()

    @property
    def seqs(self) -> dict[str, int]:
        """Return the number of each node."""
        return {node.id: node.seq for node in self.replica.nodes.values()}


def packed(*rows: tuple[str, int] | tuple[str, int, bool], epoch: bytes = FIRST) -> bytes:
    """Return a message of records or removals, given by id and number."""
    data = HEAD.pack(1, epoch, rows[0][1], len(rows))
    for name, seq, *alive in rows:
        body = pack_record(Node(name, version=1)) if alive != [False] else b""
        data += ROW.pack(1 if body else 2, seq, 30_000, len(name), len(body))
        data += name.encode() + body
    return data


def test_in_order() -> None:
    """Each message is applied on arrival, and counted."""
    it = Bench()
    it.sequencer.receive(packed(("a", 1), ("b", 2)))
    it.sequencer.receive(packed(("a", 3)))
    assert {"a": 3, "b": 2} == it.seqs
    assert (2, 0, 0, False) == (
        it.counters.messages,
        it.counters.gaps,
        it.gaps,
        it.sequencer.behind,
    )


def test_a_gap() -> None:
    """A gap is reported once; later messages wait until the missing ones are applied."""
    it = Bench()
    it.sequencer.receive(packed(("a", 1)))
    for seq in (3, 4, 5):
        it.sequencer.receive(packed(("a", seq)))
    assert ({"a": 1}, 1, 1) == (it.seqs, it.counters.gaps, it.gaps)
    assert (True, 3) == (it.sequencer.behind, it.sequencer.held)
    it.catch_up(4, record("b", 2), record("a", 4))
    assert ({"a": 5, "b": 2}, False, 0) == (it.seqs, it.sequencer.behind, it.sequencer.held)
    assert ["added", "added", "updated", "updated"] == [c.kind for c in it.watcher.changes]


def test_another_gap_in_what_was_held() -> None:
    """Messages after the second gap stay held back, in order."""
    it = Bench()
    for seq in (2, 3, 5, 6):
        it.sequencer.receive(packed(("a", seq)))
    it.catch_up(1, record("b", 1))
    assert ({"b": 1, "a": 3}, True, 2, 2) == (
        it.seqs,
        it.sequencer.behind,
        it.sequencer.held,
        it.gaps,
    )
    it.catch_up(4, record("c", 4))
    assert ({"b": 1, "a": 6, "c": 4}, False) == (it.seqs, it.sequencer.behind)


def test_so_much_that_not_all_is_held() -> None:
    """The newest messages are kept; the loss of the others is noticed as another gap."""
    it = Bench()
    for seq in range(2, 6002):
        it.sequencer.receive(packed(("a", seq)))
    assert 4096 == it.sequencer.held
    it.catch_up(10, record("b", 1), record("a", 10))
    assert (10, True, 4096) == (it.replica.high, it.sequencer.behind, it.sequencer.held)
    it.catch_up(5000, record("a", 5000))
    assert (6001, False) == (it.replica.high, it.sequencer.behind)


def test_resubscribed() -> None:
    """Messages may have been lost, so the sequencer is behind until the registry was asked."""
    it = Bench()
    it.sequencer.receive(packed(("a", 1)))
    it.sequencer.receive(None)
    assert (True, True, 1) == (it.sequencer.behind, it.sequencer.resubscribed, it.gaps)
    it.sequencer.receive(packed(("a", 2)))
    assert {"a": 1} == it.seqs
    it.sequencer.caught_up()
    assert ({"a": 2}, False) == (it.seqs, it.sequencer.behind)
    # The first subscription is not a reconnect.
    assert 1 == it.counters.reconnects


def test_messages_of_another_epoch() -> None:
    """A new epoch is a gap, as data may be lost; messages of an ended epoch do not count."""
    it = Bench()
    it.sequencer.receive(packed(("a", 1)))
    it.sequencer.receive(packed(("b", 1), epoch=SECOND))
    assert (True, 1) == (it.sequencer.behind, it.gaps)
    it.sequencer.receive(packed(("a", 2)))
    it.replica.replace(SECOND, [record("b", 1)], 1)
    it.sequencer.caught_up()
    assert ({"b": 1}, False) == (it.seqs, it.sequencer.behind)


def test_what_cannot_be_read() -> None:
    """The message is counted, logged without its text, and has no other effect."""
    it = Bench()
    it.sequencer.receive(packed(("a", 1)))
    with capture_logs() as logs:
        for data in (b"", b"secret", packed(("a", 2))[:-1], b"x" * (MESSAGE_LIMIT + 1)):
            it.sequencer.receive(data)
    assert (4, False, 0) == (it.counters.malformed, it.sequencer.behind, it.gaps)
    assert ["node_message_dropped"] * 4 == [entry["event"] for entry in logs]
    assert not any("secret" in str(entry) for entry in logs)
    it.sequencer.receive(packed(("a", 2)))
    assert {"a": 2} == it.seqs


def test_a_row_that_cannot_be_read() -> None:
    """The row may have been a change, so the registry is asked."""
    it = Bench()
    data = packed(("a", 1), ("b", 2), ("c", 3))
    it.sequencer.receive(data.replace(b"b\x01", b"b\x09"))
    assert (True, 1, 1, 0) == (it.sequencer.behind, it.gaps, it.counters.malformed, it.replica.high)
    assert {"a": 1, "c": 3} == it.seqs
    it.catch_up(3, record("a", 1), record("b", 2), record("c", 3))
    assert ({"a": 1, "b": 2, "c": 3}, False) == (it.seqs, it.sequencer.behind)


def test_replies_may_be_large() -> None:
    """The size limit of messages does not apply to a page of the log."""
    it = Bench()
    data = HEAD.pack(1, FIRST, 0, 80)
    state: dict[str, Any] = {"x": "x" * 65000}
    for n in range(80):
        body = pack_record(Node(f"{n:02}", state=state))
        data += ROW.pack(1, n, 1, 2, len(body)) + f"{n:02}".encode() + body
    assert len(data) > MESSAGE_LIMIT
    assert it.sequencer.read(data) is None
    page = it.sequencer.read(data, trusted=True)
    assert page is not None
    assert 80 == len(page.rows)


def test_bogus_numbers() -> None:
    """Numbers that the registry never assigned are dropped, or the feed would wait forever."""
    it = Bench()
    it.sequencer.receive(packed(("a", 50)))
    assert it.sequencer.behind
    it.sequencer.caught_up(bogus=1)
    assert (False, 0, {}) == (it.sequencer.behind, it.sequencer.held, it.seqs)


# -- own writes ------------------------------------------------------------------------------


def test_own_writes_come_first() -> None:
    """Own writes in order raise ``high``, and their copies from Pub/Sub are ignored."""
    it = Bench()
    it.sequencer.receive_own(packed(("a", 1)))
    it.sequencer.receive(packed(("a", 1)))
    assert ({"a": 1}, 1, ["added"]) == (
        *(it.seqs, it.replica.high),
        [c.kind for c in it.watcher.changes],
    )


def test_own_writes_ahead_of_others() -> None:
    """Own writes are visible at once and leave no gap; the stream brings the rest."""
    it = Bench()
    it.sequencer.receive_own(packed(("a", 3)))
    assert ({"a": 3}, 0, False, 0) == (it.seqs, it.replica.high, it.sequencer.behind, it.gaps)
    it.sequencer.receive(packed(("a", 1), ("b", 2)))
    it.sequencer.receive(packed(("a", 3)))
    assert ({"a": 3, "b": 2}, 3) == (it.seqs, it.replica.high)


def test_own_writes_while_behind() -> None:
    """Own writes are visible at once, even while messages are missing."""
    it = Bench()
    it.sequencer.receive(packed(("b", 2)))
    it.sequencer.receive_own(packed(("a", 3)))
    assert {"a": 3} == it.seqs
    it.catch_up(2, record("c", 1), record("b", 2))
    assert ({"a": 3, "b": 2, "c": 1}, False) == (it.seqs, it.sequencer.behind)


def test_own_writes_that_come_late() -> None:
    """A node that was added and removed by own writes stays removed."""
    it = Bench()
    data = packed(("a", 1), ("a", 2, False))
    it.sequencer.receive(data)
    it.watcher.kinds()
    it.sequencer.receive_own(data)
    it.sequencer.receive(None)
    it.sequencer.receive_own(data)
    assert [] == it.watcher.kinds()


def test_own_writes_to_another_epoch() -> None:
    """Own writes of another epoch are ignored until that epoch has been read."""
    it = Bench()
    it.sequencer.receive_own(packed(("a", 1), epoch=SECOND))
    assert ({}, 0) == (it.seqs, it.gaps)
    it.sequencer.receive_own(b"junk")
    assert 1 == it.counters.malformed
